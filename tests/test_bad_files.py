"""Foreign files that are broken or hostile: one line that names file and cause, and never another
exception."""

import copy
import json
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from support import small_datasets as small

from pointseg.data.files import inside, read_json
from pointseg.data.images import MAX_PIXELS, read_image, read_segment_ids, read_size
from pointseg.data.layouts import open_dataset
from pointseg.structures import InputError


def read_all(root, layout="auto"):
    """Everything a trainer would read of a split."""
    dataset = open_dataset(root, "train", layout)
    for i in range(len(dataset)):
        dataset.image(i)
        dataset.truth(i)
    dataset.content_hash()
    return dataset


def refused(call, *args, names, cause):
    with pytest.raises(InputError) as caught:
        call(*args)
    text = str(caught.value)
    assert "\n" not in text and names in text and cause in text, text


# --- images ---------------------------------------------------------------------------------------


def png_header(path, w, h):
    """A PNG that claims w x h pixels and holds next to none."""
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", w, h, 8, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(b"\0" * 9)),
        (b"IEND", b""),
    ]
    body = b"".join(
        struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d)) for n, d in chunks
    )
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)


@pytest.mark.parametrize("w, h", [(10_000, 10_000), (20_000, 20_000), (60_000, 60_000)])
def test_a_decompression_bomb_is_refused(tmp_path, w, h):
    assert w * h > MAX_PIXELS
    png_header(tmp_path / "bomb.png", w, h)
    for read in (read_image, read_size):
        refused(read, tmp_path / "bomb.png", names="bomb.png", cause="decompression bomb")


@pytest.mark.parametrize("suffix", ["jpg", "png", "bmp", "webp", "tif", "gif"])
def test_a_truncated_image_is_refused(tmp_path, suffix):
    path = tmp_path / f"cut.{suffix}"
    small.photo(path, h=60, w=80)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    refused(read_image, path, names=path.name, cause="")


@pytest.mark.parametrize(
    "content, cause",
    [(b"", "empty"), (b"%!PS-Adobe-3.0 EPSF", "is not an image"), (b"\0" * 99, "is not")],
)
def test_what_is_no_image_is_refused(tmp_path, content, cause):
    (tmp_path / "x.png").write_bytes(content)
    refused(read_image, tmp_path / "x.png", names="x.png", cause=cause)


def test_missing_images_and_folders_are_refused(tmp_path):
    refused(read_image, tmp_path / "none.png", names="none.png", cause="no such file")
    refused(read_image, tmp_path, names=str(tmp_path), cause="is not a file")
    refused(read_image, tmp_path / ("n" * 5000), names="nnn", cause="too long")


def test_sixteen_bits_are_not_silently_cut(tmp_path):
    Image.fromarray(np.full((4, 4), 1000, np.uint16)).save(tmp_path / "deep.png")
    refused(read_image, tmp_path / "deep.png", names="deep.png", cause="8 bits")


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK"])
def test_every_usual_mode_becomes_rgb(tmp_path, mode):
    suffix = "jpg" if mode == "CMYK" else "png"
    Image.new("RGB", (6, 5), "white").convert(mode).save(tmp_path / f"x.{suffix}")
    image = read_image(tmp_path / f"x.{suffix}")
    assert image.shape == (5, 6, 3) and image.dtype == np.uint8 and image.min() == 255


@given(
    st.binary(max_size=400),
    st.integers(0, 300),
    st.sampled_from(["PNG", "JPEG", "GIF", "TIFF", "WEBP", "BMP"]),
)
@settings(max_examples=80, deadline=None)
def test_corrupted_images_never_raise_anything_else(tmp_path_factory, noise, at, kind):
    path = tmp_path_factory.getbasetemp() / f"noise.{kind}"
    small.photo(path, format=kind)
    whole = path.read_bytes()
    path.write_bytes(whole[:at] + noise + whole[at + len(noise) :])
    for read in (read_image, read_size, read_segment_ids):
        try:
            read(path)
        except InputError as fault:
            assert "\n" not in str(fault)


# --- names that leave their folder ----------------------------------------------------------------

LEAVING = [
    "../secret.png",
    "a/../../secret.png",
    "/etc/passwd",
    "C:\\secret.png",
    "..\\secret.png",
    "\\\\host\\x.png",
]


@pytest.mark.parametrize("name", LEAVING)
def test_a_file_name_that_leaves_the_folder_is_refused(tmp_path, name):
    small.photo(tmp_path / "secret.png")
    data = small.coco_data()
    data["images"][0]["file_name"] = name
    small.coco(tmp_path / "set", data)
    refused(
        read_all,
        tmp_path / "set",
        names="instances_train2017.json: images[0]",
        cause="leaves the folder",
    )
    data = small.panoptic_data()
    data["annotations"][0]["file_name"] = name
    small.panoptic(tmp_path / "pan", data)
    refused(
        read_all,
        tmp_path / "pan",
        names="panoptic_train2017.json: annotations[0]",
        cause="leaves the folder",
    )
    with pytest.raises(InputError):
        inside(tmp_path / "set", name)


@pytest.mark.parametrize("name", ["../a", "/a", "a/b", "a\0b"])
def test_a_voc_id_that_leaves_the_folder_is_refused(tmp_path, name):
    small.voc(tmp_path, ["a"])
    (tmp_path / "VOCdevkit/VOC2012/ImageSets/Segmentation/train.txt").write_text(f"{name}\n")
    refused(
        read_all, tmp_path, names="train.txt", cause="name" if "\0" in name else "leaves the folder"
    )


def test_a_symbolic_link_out_of_the_folder_is_refused(tmp_path):
    small.photo(tmp_path / "secret.png")
    small.coco(tmp_path / "set")
    link = tmp_path / "set" / "train2017" / "1.png"
    link.unlink()
    link.symlink_to(tmp_path / "secret.png")
    refused(read_all, tmp_path / "set", names="1.png", cause="symbolic link leads out")
    link.unlink()
    link.symlink_to("2.png")  # a link that stays is as good as a file
    assert read_all(tmp_path / "set").image(0).shape == (small.H, small.W, 3)
    link.unlink()
    link.symlink_to("1.png")
    refused(read_all, tmp_path / "set", names="1.png", cause="")


def test_a_linked_image_folder_is_fine(tmp_path):
    small.coco(tmp_path / "elsewhere")
    small.write_json(
        tmp_path / "set" / "annotations" / "instances_train2017.json", small.coco_data()
    )
    (tmp_path / "set" / "train2017").symlink_to(tmp_path / "elsewhere" / "train2017")
    assert len(read_all(tmp_path / "set")) == 2


# --- JSON -----------------------------------------------------------------------------------------


def edited(edit):
    data = small.coco_data()
    edit(data)
    return data


BAD_INSTANCES = {
    "duplicate image": (
        lambda d: d["images"].append(dict(d["images"][0])),
        "images[2]: duplicate id 1",
    ),
    "duplicate annotation": (
        lambda d: d["annotations"].append(dict(d["annotations"][0])),
        "duplicate id 11",
    ),
    "duplicate category": (
        lambda d: d["categories"].append(dict(d["categories"][0])),
        "duplicate id 5",
    ),
    "unknown category": (
        lambda d: d["annotations"][0].update(category_id=77),
        "unknown category 77",
    ),
    "unknown image": (lambda d: d["annotations"][0].update(image_id=77), "unknown image id 77"),
    "empty": (lambda d: d.update(images=[], annotations=[]), "has no images"),
    "no list": (lambda d: d.pop("annotations"), "has no list 'annotations'"),
    "size": (lambda d: d["images"][0].update(height=0), "image size"),
    "bomb size": (lambda d: d["images"][0].update(height=10**6, width=10**6), "pixels"),
    "other size than the file": (
        lambda d: d["images"][1].update(height=11),
        "12x10, the annotations say 12x11",
    ),
    "short polygon": (
        lambda d: d["annotations"][0].update(segmentation=[[1, 2, 3, 4]]),
        "three corners",
    ),
    "far polygon": (
        lambda d: d["annotations"][0].update(segmentation=[[1, 2, 3, 4, 5, 1e12]]),
        "far outside",
    ),
    "infinite polygon": (
        lambda d: d["annotations"][0].update(segmentation=[[1, 2, 3, 4, 5, 10**400]]),
        "far outside",
    ),
    "no mask": (lambda d: d["annotations"][0].pop("segmentation"), "has no segmentation"),
    "empty mask": (lambda d: d["annotations"][0].update(segmentation=[]), "empty segmentation"),
    "mask size": (
        lambda d: d["annotations"][1]["segmentation"].update(size=[3, 4]),
        "another size",
    ),
    "short runs": (
        lambda d: d["annotations"][2]["segmentation"].update(counts=[5, 5]),
        "do not fill",
    ),
    "corrupt runs": (
        lambda d: d["annotations"][1]["segmentation"].update(counts="~~~"),
        "corrupt run lengths",
    ),
}


@pytest.mark.parametrize("case", BAD_INSTANCES)
def test_bad_instances_are_refused(tmp_path, case):
    edit, cause = BAD_INSTANCES[case]
    small.coco(tmp_path, edited(edit))
    names = {"empty": str(tmp_path), "other size than the file": "2.png"}.get(
        case, "instances_train2017.json"
    )
    refused(read_all, tmp_path, names=names, cause=cause)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity"])
def test_numbers_that_are_none_are_refused(tmp_path, number):
    text = json.dumps(small.coco_data()).replace('"area": 24', f'"area": {number}')
    small.coco(tmp_path, text)
    refused(read_all, tmp_path, names="instances_train2017.json", cause=number)


def test_a_number_that_overflows_is_refused(tmp_path):
    small.coco(tmp_path, json.dumps(small.coco_data()).replace("[[3, 2,", "[[1e999, 2,"))
    refused(read_all, tmp_path, names="instances_train2017.json", cause="far outside")


@pytest.mark.parametrize(
    "content", ["", "   ", "{", '{"a": [1, 2', "\xff", "[" * 100_000, "9" * 5000, "nan"]
)
def test_text_that_is_no_json_is_refused(tmp_path, content):
    (tmp_path / "x.json").write_bytes(content.encode("latin-1"))
    refused(read_json, tmp_path / "x.json", names="x.json", cause="")


def test_truncated_annotations_are_refused(tmp_path):
    file = small.coco(tmp_path)
    whole = file.read_text()
    for end in range(0, len(whole), 23):
        file.write_text(whole[:end])
        refused(read_all, tmp_path, names=file.name, cause="")


def test_panoptic_ids_must_agree(tmp_path):
    extra = np.where(small.BOX, 70000, np.where(small.CORNER, 999, 0))
    small.panoptic(tmp_path / "a", ids=extra)
    refused(
        read_all,
        tmp_path / "a",
        names="1.png",
        cause="segment 300 is in panoptic_train2017.json and not in the PNG",
    )
    data = small.panoptic_data()
    data["annotations"][0]["segments_info"].pop()
    small.panoptic(tmp_path / "b", data)
    refused(read_all, tmp_path / "b", names="1.png", cause="segment 300 is in the PNG and not in")


def test_a_panoptic_mask_of_another_size_is_refused(tmp_path):
    small.panoptic(tmp_path, ids=np.full((4, 6), 300))
    refused(read_all, tmp_path, names="1.png", cause="mask is 6x4, its image 12x10")


@pytest.mark.parametrize("ids", [[0], [-4], [2**24], [300, 300], ["x"], [None]])
def test_bad_segment_ids_are_refused(tmp_path, ids):
    data = small.panoptic_data()
    data["annotations"][0]["segments_info"] = [{"id": k, "category_id": 5} for k in ids]
    small.panoptic(tmp_path, data)
    refused(read_all, tmp_path, names="panoptic_train2017.json: annotations[0]", cause="segment id")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)


def replaced(data, picks, value):
    """A copy of `data` with one value, found by walking down `picks`, replaced."""
    data = copy.deepcopy(data)
    place = data
    for depth, pick in enumerate(picks):
        keys = sorted(place) if isinstance(place, dict) else range(len(place))
        if not len(keys):
            break
        key = keys[pick % len(keys)]
        if depth == len(picks) - 1 or not isinstance(place[key], dict | list):
            place[key] = value
            break
        place = place[key]
    return data


@given(
    st.sampled_from(["coco", "panoptic"]),
    st.lists(st.integers(0, 9), min_size=1, max_size=6),
    json_values,
)
@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_corrupted_json_loads_or_is_refused(tmp_path_factory, layout, picks, value):
    root = tmp_path_factory.getbasetemp() / f"corrupted {layout}"
    write, data = (
        (small.coco, small.coco_data())
        if layout == "coco"
        else (small.panoptic, small.panoptic_data())
    )
    write(root, json.dumps(replaced(data, picks, value)))
    try:
        read_all(root, layout)
    except InputError as fault:
        assert "\n" not in str(fault)


# --- VOC and SBD ----------------------------------------------------------------------------------


def test_bad_voc_masks_are_refused(tmp_path):
    folder = small.voc(tmp_path, ["a"])
    mask = folder / "SegmentationClass" / "a.png"
    for values, cause in [
        (np.zeros((3, 3)), "mask is 3x3, its image 12x10"),
        (small.voc_values(8, 33), "object 2 of unknown category 33"),
        (small.voc_values(8, 0), "object 2 without any class pixel"),
    ]:
        small.index_png(mask, values)
        refused(read_all, tmp_path, names="SegmentationClass/a.png", cause=cause)
    small.photo(mask)
    refused(read_all, tmp_path, names="SegmentationClass/a.png", cause="is a RGB image")
    mask.write_bytes(mask.read_bytes()[:40])
    refused(read_all, tmp_path, names="SegmentationClass/a.png", cause="")
    mask.unlink()
    refused(read_all, tmp_path, names="SegmentationClass/a.png", cause="no such file")


@pytest.mark.parametrize(
    "text, cause", [("", "has no images"), ("a\na\n", "duplicate id 'a'"), ("\xff", "UTF-8")]
)
def test_bad_voc_lists_are_refused(tmp_path, text, cause):
    lists = small.voc(tmp_path, ["a"]) / "ImageSets" / "Segmentation" / "train.txt"
    lists.write_bytes(text.encode("latin-1"))
    refused(read_all, tmp_path, names="VOC2012", cause=cause)


@pytest.mark.parametrize("names", ["", "cat\ncat\n", "\n".join(map(str, range(300)))])
def test_bad_class_names_are_refused(tmp_path, names):
    (small.voc(tmp_path, ["a"]) / "classes.txt").write_text(names)
    refused(read_all, tmp_path, names="classes.txt", cause="different names")


def test_bad_sbd_files_are_refused(tmp_path):
    folder = small.voc(tmp_path, ["a"])
    small.voc(tmp_path, ["c"], "val")
    small.photo(folder / "JPEGImages" / "s.jpg")
    for objects, categories, cause in [
        (np.zeros((3, 3)), [], "mask is 3x3"),
        (2 * small.BOX, [4], "object 2 has no entry"),
        (small.BOX, [0], "unknown category"),
        (small.BOX, [21], "of unknown category 21"),
    ]:
        file = small.sbd(tmp_path, "s", np.asarray(objects), categories)
        assert read_refusal(tmp_path, "s.mat") and cause in read_refusal(tmp_path, "s.mat")
    for content in (b"", b"MATLAB", pickle_bytes(), file.read_bytes()[:150]):
        file.write_bytes(content)
        assert "is not an SBD instance file" in read_refusal(tmp_path, "s.mat")
    assert not Path("unpickled").exists()


def pickle_bytes():
    """A pickle that would make a folder if it were ever loaded."""
    return b"cos\nmkdir\n(S'unpickled'\ntR."


def read_refusal(root, name):
    dataset = open_dataset(root, "train_aug", "voc")
    with pytest.raises(InputError, match=name) as caught:
        dataset.truth(dataset.ids.index("s"))
    return str(caught.value)


# --- opening --------------------------------------------------------------------------------------


@pytest.mark.parametrize("split", ["../train", "", "/etc", "a/b", "t*", "nothing"])
def test_bad_splits_are_refused(tmp_path, split):
    small.coco(tmp_path)
    with pytest.raises(InputError, match="split"):
        open_dataset(tmp_path, split)


def test_bad_roots_and_layouts_are_refused(tmp_path):
    refused(open_dataset, tmp_path / "none", "train", names="none", cause="is not a folder")
    refused(
        open_dataset, tmp_path, "train", "vok", names=str(tmp_path), cause="unknown layout 'vok'"
    )
    refused(open_dataset, tmp_path, "train", names=str(tmp_path), cause="no split 'train'")


def test_two_files_for_one_split_are_refused(tmp_path):
    small.coco(tmp_path)
    small.write_json(tmp_path / "annotations" / "instances_train2014.json", small.coco_data())
    refused(
        open_dataset,
        tmp_path,
        "train",
        names="instances_train2014.json and instances",
        cause="both fit",
    )
    assert len(open_dataset(tmp_path, "train2017")) == 2


def test_a_missing_folder_of_panoptic_masks_is_refused(tmp_path):
    small.write_json(tmp_path / "panoptic_train2017.json", small.panoptic_data())
    refused(open_dataset, tmp_path, "train", names="panoptic_train2017", cause="PNGs is missing")
