"""Points: where each kind may lie, what a point depends on, and a parser that no file can break."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from support.memory_dataset import CATEGORIES, MemoryDataset

from pointseg.data import point_formats
from pointseg.data.masks import inner_border
from pointseg.data.point_file import FILE_KINDS, Jitter, as_points, hash_of
from pointseg.data.points import (
    ImagePoints,
    PointFile,
    border,
    centre,
    extreme,
    generator_for,
    jittered,
    read_points,
    sample_points,
    uniform,
    write_points,
)
from pointseg.structures import POINT_KINDS, InputError

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT.parent / "shared" / "data"
rng = np.random.default_rng
laws = settings(max_examples=60, deadline=None)


def drawn(*rows):
    """A mask from an image in text."""
    return np.array([[c == "#" for c in row] for row in rows])


def blob(seed, height=20, width=24):
    """A random mask that is never empty."""
    mask = rng(seed).random((height, width)) < 0.3
    mask[height // 2, width // 2] = True
    return mask


@pytest.fixture(scope="module")
def dataset():
    return MemoryDataset(6)


def owners(dataset, points, index):
    """[m] bool: does each point's pixel belong to its own target?"""
    truth, at = dataset.truth(index), points.xy.floor().long()
    rows = [truth.target.tolist().index(target) for target in points.target.tolist()]
    return truth.masks[rows, at[:, 1], at[:, 0]]


# --- where points lie -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "n"), [("uniform", 1), ("uniform", 10), ("centre", 1), ("border", 1), ("border", 10)]
)
def test_points_lie_on_their_own_target(dataset, kind, n):
    result = sample_points(dataset, kind, n, seed=3)
    for index, image_id in enumerate(dataset.ids):
        points, truth = result.for_image(image_id), dataset.truth(index)
        assert owners(dataset, points, index).all()
        assert torch.equal(points.xy % 1, torch.full_like(points.xy, 0.5))
        sizes = truth.masks.sum((1, 2))
        for target, label, crowd, area in zip(truth.target, truth.label, truth.is_crowd, sizes):
            mine = points.pick(points.target == target)
            assert (mine.label == label).all()
            assert crowd or len({tuple(xy) for xy in mine.xy.tolist()}) == len(mine)
            assert crowd or kind == "border" or len(mine) == min(n, area)
            assert not (crowd and len(mine))


def test_uniform_gives_every_pixel_the_same_chance():
    mask = drawn("..##", "#..#", "##..")
    counts = np.zeros(mask.shape)
    draws = 6000
    for seed in range(draws):
        x, y = uniform(mask, 1, rng(seed))[0].astype(int)
        counts[y, x] += 1
    share = counts[mask] / draws
    spread = math.sqrt(1 / 6 * 5 / 6 / draws)  # of a binomial share
    assert not counts[~mask].any()
    assert np.abs(share - 1 / 6).max() < 5 * spread


@laws
@given(st.integers(0, 10**6), st.integers(1, 40))
def test_more_points_begin_with_the_fewer(seed, n):
    mask = blob(seed % 97)
    assert np.array_equal(uniform(mask, n, rng(seed))[:1], uniform(mask, 1, rng(seed)))


@laws
@given(st.integers(0, 10**6))
def test_centre_is_the_nearest_owned_pixel(seed):
    mask = blob(seed)
    (x, y), rows, columns = centre(mask)[0], *np.nonzero(mask)
    middle = (columns.min() + columns.max() + 1) / 2, (rows.min() + rows.max() + 1) / 2
    distance = min(math.dist((c + 0.5, r + 0.5), middle) for r, c in zip(rows, columns))
    assert mask[int(y), int(x)]
    assert math.dist((x, y), middle) == pytest.approx(distance)


@laws
@given(st.integers(0, 10**6))
def test_border_against_a_double_loop(seed):
    mask = blob(seed, 7, 9)
    for frame in (True, False):
        lines = inner_border(mask, frame)
        for r, c in np.ndindex(mask.shape):
            around = [(r - 1, c), (r + 1, c), (r, c - 1), (r, c + 1)]
            inside = [mask[a, b] if 0 <= a < 7 and 0 <= b < 9 else not frame for a, b in around]
            assert lines[r, c] == (mask[r, c] and not all(inside))


def test_border_points_of_a_full_image_lie_on_its_edge():
    full = np.ones((3, 4), bool)
    assert np.array_equal(inner_border(full), drawn("####", "#..#", "####"))
    marked = np.zeros((3, 4), bool)
    for x, y in border(full, 99, rng(0)):
        marked[int(y), int(x)] = True
    assert np.array_equal(marked, inner_border(full))


def test_extreme_points_by_hand():
    mask = drawn(
        ".....##..",
        "....###..",
        "..######.",
        "#########",
        ".#######.",
        "..#......",
    )
    # top row: columns 5-6, middle 5; left: row 3; bottom: column 2; right: row 3
    assert extreme(mask).tolist() == [[5.5, 0.5], [0.5, 3.5], [2.5, 5.5], [8.5, 3.5]]


def test_extreme_takes_the_middle_of_the_two_percent_span():
    mask = np.zeros((120, 60), bool)
    mask[10:110, 20:40] = True  # 100 rows: the span reaches 2 rows below the top
    mask[10:12, 25:40] = (
        False  # the very top is columns 20-24, the two rows below are within the span
    )
    assert extreme(mask)[0].tolist() == [(20 + 39) // 2 + 0.5, 10.5]
    mask[10:13, 25:40] = False  # one row more: the flat part lies below the span
    assert extreme(mask)[0].tolist() == [(20 + 24) // 2 + 0.5, 10.5]


def test_extreme_does_not_leap_to_another_piece():
    mask = drawn("##....###", "##....###", "#########")
    assert extreme(mask)[0].tolist() == [0.5, 0.5]


@laws
@given(st.integers(0, 10**6))
def test_extreme_points_span_the_box(seed):
    mask = blob(seed)
    rows, columns = np.nonzero(mask)
    (_, top), (left, _), (_, bottom), (right, _) = extreme(mask)
    hull = [left, top, right, bottom]
    assert hull == [columns.min() + 0.5, rows.min() + 0.5, columns.max() + 0.5, rows.max() + 0.5]


def test_extreme_turns_with_the_image():
    mask = blob(5) | np.rot90(blob(6, 24, 20))
    turned = extreme(np.ascontiguousarray(mask.T))
    assert extreme(mask)[[1, 0, 3, 2], ::-1].tolist() == turned.tolist()


@pytest.mark.parametrize("of", ["uniform", "centre"])
def test_jitter_may_leave_the_mask_but_never_the_image(of):
    dataset = MemoryDataset(12)
    result = sample_points(dataset, "jitter", 10, seed=1, jitter_px=9.0, jitter_of=of)
    assert result.jitter == Jitter(of, 9.0)
    on_target = []
    for index, image_id in enumerate(dataset.ids):
        points, (height, width) = result.for_image(image_id), dataset.size(index)
        assert (points.xy >= 0).all() and (points.xy < torch.tensor([width, height])).all()
        on_target += owners(dataset, points, index).tolist()
    assert 0 < sum(on_target) < len(on_target)


def test_jitter_is_mirrored_at_the_edge_and_does_not_pile_up_there():
    mask = np.zeros((40, 50), bool)
    mask[0, 0] = True
    xy = np.concatenate(
        [jittered(mask, 1, rng(seed), Jitter("uniform", 4.0)) for seed in range(200)]
    )
    assert (xy == 0).sum() <= 2
    assert 0.2 < (xy < 2).mean() < 0.6  # of |0.5 + 4 z|, z normal: 0.38


def test_jitter_has_the_spread_asked_for():
    result = MemoryDataset(40, size=96)
    noisy = sample_points(result, "jitter", 10, jitter_px=2.0, jitter_of="centre")
    clean = sample_points(result, "centre")
    moved = []
    for image_id in result.ids:
        for xy, target in zip(clean.for_image(image_id).xy, clean.for_image(image_id).target):
            mine = noisy.for_image(image_id)
            inside = ((xy > 10) & (xy < 86)).all()
            moved += (mine.xy[mine.target == target] - xy).flatten().tolist() if inside else []
    assert np.std(moved) == pytest.approx(2.0, rel=0.1)
    assert abs(np.mean(moved)) < 0.2


# --- what a point depends on ----------------------------------------------------------------------


class Selection:
    """Some images of a data set, in another order and with their targets in another order."""

    def __init__(self, dataset, indices):
        self.source, self.indices = dataset, indices
        self.ids, self.categories = [dataset.ids[i] for i in indices], dataset.categories
        self.root = "selection"

    def __len__(self):
        return len(self.indices)

    def size(self, i):
        return self.source.size(self.indices[i])

    def truth(self, i):
        truth = self.source.truth(self.indices[i])
        return truth.pick(torch.arange(len(truth)).flip(0))

    def arrays(self, i):
        truth = self.source.arrays(self.indices[i])
        return truth.pick(np.arange(len(truth))[::-1])

    def content_hash(self):
        return "another"


@pytest.mark.parametrize("kind", POINT_KINDS)
def test_a_point_depends_on_seed_kind_image_and_target_only(dataset, kind):
    whole = sample_points(dataset, kind, seed=5)
    some = sample_points(Selection(dataset, [4, 1]), kind, seed=5)
    for image_id in some.images:
        first, second = whole.for_image(image_id), some.for_image(image_id)
        order = first.target.argsort(stable=True), second.target.argsort(stable=True)
        assert torch.equal(first.xy[order[0]], second.xy[order[1]])


def test_seed_kind_image_and_target_each_have_a_stream_of_their_own():
    names = [
        (0, "uniform", 1, 2),
        (1, "uniform", 1, 2),
        (0, "border", 1, 2),
        (0, "uniform", "1", 2),
        (0, "uniform", 1, 3),
    ]
    assert len({generator_for(*name).random() for name in (*names, names[0])}) == len(names)


@pytest.mark.parametrize("kind", ["uniform", "border", "jitter"])
def test_another_seed_gives_other_points(dataset, kind):
    files = [sample_points(dataset, kind, seed=seed) for seed in (0, 0, 1)]
    assert files[0].content_hash == files[1].content_hash != files[2].content_hash


@pytest.mark.parametrize(
    "options",
    [
        {"kind": "middle"},
        {"kind": "uniform", "n": 0},
        {"kind": "centre", "n": 10},
        {"kind": "uniform", "seed": -1},
        {"kind": "jitter", "jitter_px": 0.0},
        {"kind": "jitter", "jitter_px": float("nan")},
        {"kind": "jitter", "jitter_of": "edge"},
    ],
)
def test_a_wrong_request_is_refused(dataset, options):
    with pytest.raises(InputError, match="points of memory"):
        sample_points(dataset, **options)


def test_no_images_no_points():
    with pytest.raises(InputError, match="no images"):
        sample_points(MemoryDataset(0), "uniform")


# --- the points file ------------------------------------------------------------------------------


def same(first: PointFile, second: PointFile) -> bool:
    heads = [replace(file, images={}) for file in (first, second)]
    arrays = [
        [t for image in file.images.values() for t in vars(image.points).values()]
        for file in (first, second)
    ]
    sizes = [[(k, v.height, v.width) for k, v in file.images.items()] for file in (first, second)]
    return heads[0] == heads[1] and sizes[0] == sizes[1] and all(map(np.array_equal, *arrays))


@pytest.mark.parametrize("kind", POINT_KINDS)
def test_written_points_read_back(dataset, kind, tmp_path):
    result = sample_points(dataset, kind, 1, seed=2)
    write_points(tmp_path / "points.json", result)
    read = read_points(tmp_path / "points.json")
    assert same(result, read)
    assert read.content_hash == result.content_hash
    assert [p.name for p in tmp_path.iterdir()] == ["points.json"]


names = st.text(
    st.characters(codec="utf-8", exclude_categories=["Cs", "Cc", "Zl", "Zp"]),
    min_size=1, max_size=6,
).filter(str.strip)  # fmt: skip
ids = st.integers(-(2**60), 2**60)


@st.composite
def point_files(draw):
    classes = draw(
        st.lists(
            st.tuples(ids, names, st.booleans()),
            min_size=1,
            max_size=4,
            unique_by=(lambda c: c[0], lambda c: c[1]),
        )
    )
    from pointseg.structures import Category

    categories, images = tuple(Category(*c) for c in classes), {}
    n = draw(st.integers(1, 3))
    for image_id in draw(st.lists(st.one_of(ids, names), min_size=1, max_size=3, unique=True)):
        height, width = draw(st.integers(1, 5000)), draw(st.integers(1, 5000))
        inside = [st.floats(0, side, exclude_max=True, width=32) for side in (width, height)]
        rows = []
        for target in draw(st.lists(ids, max_size=3, unique=True)):
            label = draw(st.integers(0, len(categories) - 1))
            coordinates = draw(st.lists(st.tuples(*inside), min_size=1, max_size=n))
            rows += [(x, y, label, target) for x, y in coordinates]
        images[image_id] = ImagePoints(height, width, as_points(rows, categories))
    hashes = st.none() | names
    return PointFile(
        "manual", n, draw(st.none() | st.integers(0, 99)), draw(hashes), categories, images
    )


@laws
@given(point_files())
def test_any_points_file_survives_the_round_trip(tmp_path_factory, result):
    path = tmp_path_factory.mktemp("points") / "points.json"
    write_points(path, result)
    read = read_points(path)
    assert same(result, read) and read.content_hash == result.content_hash


@pytest.fixture
def written(dataset, tmp_path):
    path = tmp_path / "points.json"
    write_points(path, sample_points(dataset, "uniform", 2, seed=0))
    return path


def test_the_file_obeys_its_schema(dataset, tmp_path):
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads((ROOT / "pointseg/data/points.schema.json").read_text())
    assert tuple(schema["properties"]["kind"]["enum"]) == FILE_KINDS
    for kind in POINT_KINDS:
        write_points(tmp_path / "points.json", sample_points(dataset, kind))
        jsonschema.validate(json.loads((tmp_path / "points.json").read_text()), schema)


def spoil(path, change, rehash=True):
    record = json.loads(path.read_text())
    change(record)
    if rehash:
        record["content_hash"] = hash_of(record)
    path.write_text(json.dumps(record))


def first_target(record):
    return record["images"][0]["targets"][0]


FAULTS = {
    "outside": (lambda r: first_target(r)["points"][0].__setitem__(0, 32.0), "outside the image"),
    "negative": (lambda r: first_target(r)["points"][0].__setitem__(1, -0.5), "outside the image"),
    "huge": (
        lambda r: first_target(r)["points"][0].__setitem__(1, 10**400),
        "two finite numbers|outside",
    ),
    "text": (lambda r: first_target(r)["points"].__setitem__(0, ["1", 2]), "two finite numbers"),
    "three": (lambda r: first_target(r)["points"].__setitem__(0, [1, 2, 3]), "two finite numbers"),
    "many": (lambda r: first_target(r)["points"].append([1.5, 2.5]), "has 3 points"),
    "none": (lambda r: first_target(r).update(points=[]), "points: expected"),
    "class": (lambda r: first_target(r).update(category_id=999), "unknown category 999"),
    "target twice": (
        lambda r: r["images"][0]["targets"].append(first_target(r)),
        "stands twice",
    ),
    "image twice": (lambda r: r["images"].append(r["images"][0]), "stands twice"),
    "class twice": (lambda r: r["categories"].append(r["categories"][0]), "stands twice"),
    "kind": (lambda r: r.update(kind="middle"), "kind: expected one of"),
    "kind list": (lambda r: r.update(kind=[]), "kind: expected one of"),
    "jitter": (lambda r: r.update(kind="jitter"), "does not go with jitter"),
    "extreme": (lambda r: r.update(kind="extreme"), "4 points"),
    "n": (lambda r: r.update(n=True), "n: expected"),
    "seed": (lambda r: r.update(seed=-1), "seed: expected"),
    "version": (lambda r: r.update(version=2), "version: expected 1"),
    "missing": (lambda r: r.pop("source_hash"), "'source_hash' is missing"),
    "unknown": (lambda r: r.update(masks=[]), "unknown key 'masks'"),
    "no images": (lambda r: r.update(images=[]), "images: expected"),
    "size": (lambda r: r["images"][0].update(height=0), "height: expected"),
    "image id": (lambda r: r["images"][0].update(id=1.5), "id: expected"),
    "not an object": (lambda r: r["images"].__setitem__(0, 7), "expected an object"),
    "big id": (lambda r: first_target(r).update(id=2**70), "id: expected"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_one_clear_line(written, fault):
    change, cause = FAULTS[fault]
    spoil(written, change)
    with pytest.raises(InputError, match=cause) as caught:
        read_points(written)
    assert str(caught.value).startswith(str(written)) and "\n" not in str(caught.value)


def test_changed_content_is_noticed(written):
    spoil(written, lambda r: first_target(r)["points"][0].__setitem__(0, 3.25), rehash=False)
    with pytest.raises(InputError, match="content_hash"):
        read_points(written)


def test_only_clicked_points_may_come_without_a_hash(written):
    spoil(written, lambda r: r.update(content_hash=None), rehash=False)
    with pytest.raises(InputError, match="content_hash"):
        read_points(written)
    spoil(written, lambda r: r.update(kind="manual"), rehash=False)
    assert len(read_points(written))


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", '"x"', "[" * 100_000, '{"a": NaN}', "\x00", "{}" * 2]
)
def test_no_points_file_at_all(tmp_path, text):
    path = tmp_path / "points.json"
    path.write_text(text)
    with pytest.raises(InputError, match=r"points\.json"):
        read_points(path)


def test_nan_and_bytes_and_absence(written, tmp_path):
    text = written.read_text()
    written.write_text(text.replace('"points": [[', '"points": [[NaN, 1], [', 1))
    with pytest.raises(InputError, match="NaN"):
        read_points(written)
    written.write_bytes(b"\xff\xfe{}")
    for path in (written, tmp_path / "absent.json", tmp_path):
        with pytest.raises(InputError):
            read_points(path)


@laws
@given(st.data())
def test_a_cut_or_damaged_file_never_gets_through(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("points") / "points.json"
    write_points(path, sample_points(MemoryDataset(1), "uniform"))
    raw = path.read_bytes()
    at = data.draw(st.integers(0, len(raw.rstrip()) - 1))
    damaged = raw[:at] + data.draw(st.binary(max_size=3))
    assume(damaged.strip() != raw.strip())
    path.write_bytes(damaged)
    with pytest.raises(InputError):
        read_points(path)


def test_a_failed_write_leaves_nothing_behind(dataset, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    path = tmp_path / "points.json"
    path.write_text("before")
    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(InputError, match="no space left"):
        write_points(path, sample_points(dataset, "uniform"))
    assert path.read_text() == "before" and len(list(tmp_path.iterdir())) == 1
    with pytest.raises(InputError, match="cannot be written"):
        write_points(tmp_path / "absent" / "points.json", sample_points(dataset, "uniform"))


# --- other formats --------------------------------------------------------------------------------


def by_target(file: PointFile):
    return {
        image_id: sorted(
            zip(i.points.target.tolist(), i.points.label.tolist(), i.points.xy.tolist())
        )
        for image_id, i in file.images.items()
    }


@pytest.mark.parametrize(
    ("kind", "n"), [("uniform", 1), ("uniform", 10), ("border", 10), ("extreme", 4)]
)
def test_point_pngs_there_and_back(dataset, kind, n, tmp_path):
    result = sample_points(dataset, kind, n)
    point_formats.write_point_pngs(result, tmp_path / "p.json", tmp_path / "pngs")
    read = point_formats.read_point_pngs(tmp_path / "p.json", tmp_path / "pngs", "manual", seed=0)
    for image_id, rows in by_target(result).items():
        assert by_target(read)[image_id] == [
            row for at, row in enumerate(rows) if row not in rows[:at]
        ]
    assert read.categories == result.categories == CATEGORIES


def test_point_pngs_of_images_with_one_stem_are_two(dataset, tmp_path):
    whole = sample_points(dataset, "uniform")
    images = dict(zip(("a.jpg", "a.png"), whole.images.values()))
    both = replace(whole, images=images, source_hash=None)
    point_formats.write_point_pngs(both, tmp_path / "p.json", tmp_path / "pngs")
    assert by_target(point_formats.read_point_pngs(tmp_path / "p.json", tmp_path / "pngs")).keys()
    listed = json.loads((tmp_path / "p.json").read_text())["images"]
    assert [image["file_name"] for image in listed] == ["a.jpg", "a.png"]


def test_point_pngs_hold_the_points_and_nothing_else(dataset, tmp_path):
    from PIL import Image

    result = sample_points(dataset, "uniform", 1)
    point_formats.write_point_pngs(
        result, tmp_path / "p.json", tmp_path / "pngs", {i: f"{i}.jpg" for i in dataset.ids}
    )
    for image_id in dataset.ids:
        colours = np.array(Image.open(tmp_path / "pngs" / f"{image_id}.png")).astype(int)
        ids, points = colours @ [1, 256, 65536], result.for_image(image_id)
        assert np.count_nonzero(ids) == len(points)
        for (x, y), target in zip(points.xy.int().tolist(), points.target.tolist()):
            assert ids[y, x] == target
    segments = json.loads((tmp_path / "p.json").read_text())["annotations"][0]["segments_info"]
    assert all(segment["area"] == 1 and segment["bbox"][2:] == [1, 1] for segment in segments)


def test_what_a_png_cannot_hold_is_refused():
    points = as_points([(1.2, 1.2, 0, 5), (1.7, 1.7, 1, 6)], CATEGORIES)
    with pytest.raises(InputError, match="5 and 6 have a point on one pixel"):
        point_formats.id_map(ImagePoints(4, 4, points), "x.png")
    for target in (0, -1, 256**3):
        with pytest.raises(InputError, match="does not fit"):
            point_formats.id_map(
                ImagePoints(4, 4, as_points([(1, 1, 0, target)], CATEGORIES)), "x.png"
            )


@pytest.mark.parametrize(
    ("kind", "n"), [("uniform", 1), ("uniform", 10), ("extreme", 4), ("jitter", 1)]
)
def test_coco_points_there_and_back(dataset, kind, n, tmp_path):
    result = sample_points(dataset, kind, n)
    point_formats.write_coco_points(result, tmp_path / "p.json")
    read = point_formats.read_coco_points(tmp_path / "p.json", kind, 0, result.jitter)
    assert by_target(read) == by_target(result)
    annotations = json.loads((tmp_path / "p.json").read_text())["annotations"]
    assert len({a["id"] for a in annotations}) == len(annotations)
    assert not any({"bbox", "area", "segmentation"} & a.keys() for a in annotations)
    assert all(len(a["point"]) == 2 for a in annotations)


def test_a_file_as_attentionshift_reads_it(tmp_path):
    record = {
        "images": [{"id": 4, "file_name": "a.jpg", "height": 50, "width": 60}],
        "categories": [{"id": 2, "name": "cat"}],
        "annotations": [
            {"id": 11, "image_id": 4, "category_id": 2, "point": [20.25, 30], "bbox": [0, 0, 9, 9]},
            {"id": 12, "image_id": 4, "category_id": 2, "bbox": [0, 0, 9, 9]},
            {"id": 13, "image_id": 4, "category_id": 2, "point": [1, 1], "iscrowd": 1},
        ],
    }
    path = tmp_path / "gt_center.json"
    path.write_text(json.dumps(record))
    points = point_formats.read_coco_points(path).for_image(4)
    assert points.xy.tolist() == [[20.25, 30.0]] and points.target.tolist() == [11]
    for fault in ([60.0, 1], [1], "x", [float("1e400"), 2], [None, 1], 5):
        record["annotations"][0]["point"] = fault
        path.write_text(json.dumps(record))
        with pytest.raises(InputError, match=r"annotation 11|not whole JSON"):
            point_formats.read_coco_points(path)


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "images",
                    "categories",
                    "annotations",
                    "id",
                    "image_id",
                    "category_id",
                    "point",
                    "points",
                    "file_name",
                    "segments_info",
                    "height",
                    "width",
                    "name",
                ]
            ),
            inner,
            max_size=6,
        )
    ),
    max_leaves=25,
)


@laws
@given(json_values)
def test_readers_answer_any_json_with_points_or_an_input_error(tmp_path_factory, value):
    path = tmp_path_factory.getbasetemp() / "any.json"
    path.write_text(json.dumps(value))
    for read in (
        read_points,
        point_formats.read_coco_points,
        lambda p: point_formats.read_point_pngs(p, p.parent),
    ):
        try:
            assert len(read(path))
        except InputError as error:
            assert str(error).startswith(str(path))


# ------------------------------------------------------------------------------------ real images


@pytest.mark.realdata
@pytest.mark.skipif(not (DATA / "coco2017_panoptic").is_dir(), reason="needs ../shared/data")
@pytest.mark.parametrize("kind", ["uniform", "centre", "border", "extreme"])
def test_points_on_real_photographs(kind):
    layouts = pytest.importorskip("pointseg.data.layouts")
    dataset = layouts.open_dataset(DATA / "coco2017_panoptic", "val2017", "panoptic")
    result = sample_points(dataset, kind)
    for index, image_id in enumerate(dataset.ids):
        points, truth = result.for_image(image_id), dataset.truth(index)
        assert set(points.target.tolist()) == set(truth.target[~truth.is_crowd].tolist())
        assert kind == "extreme" or owners(dataset, points, index).all()
