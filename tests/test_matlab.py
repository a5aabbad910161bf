"""SBD's .mat files: what scipy writes reads back, and no bytes end the process or unfold without
a limit."""

import io
import random
import tracemalloc
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.io import loadmat, savemat
from support import small_datasets as small

from pointseg.data.matlab import MOST_BYTES, read_struct
from pointseg.data.voc import read_sbd
from pointseg.structures import InputError

FIELDS = ("Segmentation", "Categories")


def written(path, inst, compressed, **others):
    savemat(path, {**others, "GTinst": inst}, do_compression=compressed)
    return path


@settings(max_examples=60, deadline=None)
@given(
    shape=st.tuples(st.integers(0, 5), st.integers(1, 7)),
    kind=st.sampled_from(["u1", "i1", "u2", "i2", "u4", "i4", "f4", "f8", "i8", "u8", "?"]),
    compressed=st.booleans(), seed=st.integers(0, 2**32 - 1),
)  # fmt: skip
def test_an_array_reads_back_as_scipy_wrote_it(tmp_path_factory, shape, kind, compressed, seed):
    values = np.random.default_rng(seed).integers(0, 100, shape).astype(kind)
    cells = np.array([[1], "two"], dtype=object)
    inst = {"Boundaries": cells, "Segmentation": values, "Categories": np.array([[3.0]])}
    path = written(tmp_path_factory.mktemp("m") / "a.mat", inst, compressed, first=np.eye(2))
    arrays = read_struct(path, "GTinst", FIELDS)
    theirs = loadmat(path)["GTinst"][0, 0]
    for name in FIELDS:
        assert arrays[name].shape == theirs[name].shape
        assert (arrays[name] == theirs[name]).all()


@pytest.mark.parametrize("compressed", [False, True])
def test_every_changed_byte_is_refused_or_reads_as_an_array(tmp_path, compressed):
    inst = {"Segmentation": small.BOX.astype("u1"), "Categories": np.array([[8.0]])}
    path = written(tmp_path / "a.mat", inst, compressed)
    good, rng, refused = path.read_bytes(), random.Random(0), 0
    for at in range(100, len(good), 2):
        path.write_bytes(good[:at] + bytes([rng.randrange(256)]) + good[at + 1 :])
        try:
            objects, classes = read_sbd(path, small.BOX.shape)
            assert objects.shape == classes.shape == small.BOX.shape
        except InputError as problem:
            refused += 1
            assert "a.mat: " in str(problem) and "\n" not in str(problem)
    assert refused > 20
    for end in range(0, len(good), 5):
        path.write_bytes(good[:end])
        with pytest.raises(InputError, match=r"a\.mat: "):
            read_sbd(path, small.BOX.shape)


def test_a_small_file_that_unfolds_to_gigabytes_is_refused(tmp_path):
    header = written(tmp_path / "a.mat", {"Segmentation": 1}, True).read_bytes()[:128]
    bomb = zlib.compress(bytes(MOST_BYTES + 64), 1)
    element = np.array([15, len(bomb)], "<u4").tobytes() + bomb
    (tmp_path / "a.mat").write_bytes(header + element)
    tracemalloc.start()
    with pytest.raises(InputError, match="unfolds to more than"):
        read_sbd(tmp_path / "a.mat", (3, 3))
    assert tracemalloc.get_traced_memory()[1] < 3 * MOST_BYTES
    tracemalloc.stop()


@pytest.mark.parametrize("content, cause", [
    ({"GTinst": np.eye(3)}, "no single struct"),
    ({"GTcls": {"Segmentation": np.eye(3)}}, "no GTinst"),
    ({"GTinst": {"Segmentation": np.eye(3)}}, "are missing"),
    ({"GTinst": {"Segmentation": "text", "Categories": 1}}, "no whole numbers"),
    ({"GTinst": {"Segmentation": {"a": 1}, "Categories": 1}}, "no whole numbers"),
])  # fmt: skip
def test_what_is_no_struct_of_numbers_is_refused(tmp_path, content, cause):
    stream = io.BytesIO()
    savemat(stream, content)
    (tmp_path / "a.mat").write_bytes(stream.getvalue())
    with pytest.raises(InputError, match=cause):
        read_sbd(tmp_path / "a.mat", (3, 3))
