"""The loaders against pycocotools, the PNGs and hand-made datasets."""

import contextlib
import io
import pickle
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from support import small_datasets as small

from pointseg.data.bestiary import CATEGORIES, THINGS, draw, make
from pointseg.data.images import read_image, read_segment_ids, read_size
from pointseg.data.layouts import open_dataset, splits_of
from pointseg.data.voc import BACKGROUND_TARGET, PASCAL, read_sbd, train_aug_ids
from pointseg.metrics.rle import decoded
from pointseg.structures import Category, InputError


def referee(file: Path) -> COCO:
    with contextlib.redirect_stdout(io.StringIO()):
        return COCO(str(file))


# --- by hand --------------------------------------------------------------------------------------


def test_coco_by_hand(tmp_path):
    small.coco(tmp_path)
    dataset = open_dataset(tmp_path, "train")
    assert (dataset.layout, dataset.ids, len(dataset)) == ("coco", [1, 2], 2)
    assert dataset.categories == (Category(5, "cat"), Category(9, "dog"))
    truth = dataset.truth(0)
    assert truth.masks[0].equal(torch.from_numpy(small.BOX))
    assert truth.masks[1].equal(torch.from_numpy(small.CORNER))
    assert truth.masks[2].equal(torch.from_numpy(small.CORNER[::-1].copy()))
    assert truth.label.tolist() == [0, 1, 1]
    assert truth.target.tolist() == [11, 12, 13]
    assert truth.is_crowd.tolist() == [False, False, True]
    assert not truth.void.any() and truth.parts is None
    assert dataset.image(0).shape == (small.H, small.W, 3) and dataset.image(0).dtype == np.uint8


def test_an_image_without_any_object_has_an_empty_truth(tmp_path):
    small.coco(tmp_path)
    truth = open_dataset(tmp_path, "train").truth(1)
    assert len(truth) == 0
    assert truth.masks.shape == (0, small.H, small.W) and truth.masks.dtype == torch.bool
    assert truth.label.dtype == truth.target.dtype == torch.int64


def test_panoptic_by_hand(tmp_path):
    small.panoptic(tmp_path)
    dataset = open_dataset(tmp_path, "train")
    assert dataset.categories == (
        Category(5, "cat"),
        Category(2, "grass", is_thing=False),
    )  # things first
    truth = dataset.truth(0)
    assert truth.target.tolist() == [70000, 300]
    assert truth.label.tolist() == [0, 1]
    assert truth.is_thing.tolist() == [True, False]
    assert truth.masks.numpy().tolist() == [small.BOX.tolist(), small.CORNER.tolist()]
    assert truth.void.equal(~truth.masks.any(0))


def test_voc_by_hand(tmp_path):
    small.voc(tmp_path)
    dataset = open_dataset(tmp_path, "train")
    assert [c.name for c in dataset.categories] == sorted(PASCAL) and len(PASCAL) == 20
    truth = dataset.truth(0)
    assert truth.target.tolist() == [1, 2]
    assert [dataset.categories[k].name for k in truth.label] == ["cat", "dog"]
    assert truth.masks.numpy().tolist() == [small.BOX.tolist(), small.CORNER.tolist()]
    assert truth.void[0].all() and not truth.void[1:].any()


def test_voc_panoptic_gives_the_background_to_a_stuff_class(tmp_path):
    small.voc(tmp_path)
    dataset = open_dataset(tmp_path, "train", "voc-panoptic")
    truth = dataset.truth(0)
    assert dataset.categories[-1] == Category(0, "background", is_thing=False)
    assert truth.target.tolist() == [1, 2, BACKGROUND_TARGET]
    assert (truth.masks.sum(0) + truth.void == 1).all()  # a partition of the image


def test_voc_takes_class_names_from_the_side_file(tmp_path):
    (small.voc(tmp_path) / "classes.txt").write_text("\n".join(f"beast {k}" for k in range(1, 13)))
    truth = (dataset := open_dataset(tmp_path, "train")).truth(0)
    assert [dataset.categories[k].name for k in truth.label] == ["beast 8", "beast 12"]


def test_train_aug_takes_sbd_where_voc_has_no_mask(tmp_path):
    folder = small.voc(tmp_path, ["a"])
    small.voc(tmp_path, ["c"], "val")
    small.photo(folder / "JPEGImages" / "s.jpg")
    small.sbd(tmp_path, "s", small.BOX + 2 * small.CORNER, [3, 20])
    small.sbd(tmp_path, "c", small.BOX, [1])  # in VOC's val, so not in train_aug
    dataset = open_dataset(tmp_path, "train_aug")
    assert dataset.ids == ["a", "s"]
    assert [dataset.categories[k].name for k in dataset.truth(1).label] == ["bird", "tvmonitor"]
    assert dataset.truth(0).void.any() and not dataset.truth(1).void.any()  # SBD has no void


def test_a_folder_has_images_and_no_truth(tmp_path):
    small.photo(tmp_path / "one.png", seed=1)
    small.photo(tmp_path / "two.jpg", h=9, w=20)
    dataset = open_dataset(tmp_path, "whatever")
    assert (dataset.layout, dataset.ids, dataset.size(1)) == (
        "folder",
        ["one.png", "two.jpg"],
        (9, 20),
    )
    assert not dataset.has_truth
    with pytest.raises(InputError, match="no ground truth"):
        dataset.truth(0)


def test_a_folder_turns_images_upright(tmp_path):
    tag = Image.Exif()
    tag[0x0112] = 6  # the camera was turned by a quarter
    small.photo(tmp_path / "one.jpg", exif=tag)
    dataset = open_dataset(tmp_path, "all")
    assert dataset.size(0) == dataset.image(0).shape[:2] == (small.W, small.H)
    assert (
        read_size(tmp_path / "one.jpg")
        == read_image(tmp_path / "one.jpg").shape[:2]
        == (small.H, small.W)
    )


def test_layouts_are_told_apart(tmp_path):
    small.coco(tmp_path)
    small.panoptic(tmp_path)
    small.voc(tmp_path)
    assert splits_of(tmp_path) == {"panoptic": ["train"], "coco": ["train"], "voc": ["train"]}
    assert open_dataset(tmp_path, "train").layout == "panoptic"
    for layout in ("panoptic", "coco", "voc"):
        assert open_dataset(tmp_path, "train", layout).layout == layout
    with pytest.raises(InputError, match=r"no split .tran.*found panoptic train"):
        open_dataset(tmp_path, "tran")


@pytest.mark.parametrize("json_name", ["instances_train.json", "train.json", "nuclei_train.json"])
@pytest.mark.parametrize("folder", ["train", "images", "images/train2017", "images"])
def test_any_naming_of_a_coco_folder_opens(tmp_path, json_name, folder):
    small.write_json(tmp_path / json_name, small.coco_data())
    for k in (1, 2):
        small.photo(tmp_path / folder / f"{k}.png")
    dataset = open_dataset(tmp_path, "train")
    assert dataset.path(0) == tmp_path / folder / "1.png"
    assert len(dataset.truth(0)) == 3


def test_datasets_travel_to_workers(tmp_path):
    small.coco(tmp_path)
    dataset = open_dataset(tmp_path, "train")
    copy = pickle.loads(pickle.dumps(dataset))
    assert copy.truth(0).masks.equal(dataset.truth(0).masks)


def test_the_content_hash_follows_the_content_and_not_the_place(tmp_path):
    for name in ("a", "b"):
        small.coco(tmp_path / name)
    data = small.coco_data()
    data["annotations"].pop()
    small.coco(tmp_path / "c", data)
    a, b, c = (open_dataset(tmp_path / name, "train").content_hash() for name in "abc")
    assert a == b != c
    folder = small.voc(tmp_path)
    before = open_dataset(tmp_path, "train", "voc").content_hash()
    assert before != open_dataset(tmp_path, "train", "voc-panoptic").content_hash()
    small.index_png(folder / "SegmentationObject" / "a.png", small.voc_values(1, 3))
    assert before != open_dataset(tmp_path, "train", "voc").content_hash()


# --- run lengths ----------------------------------------------------------------------------------

masks = st.tuples(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**32 - 1)).map(
    lambda t: np.random.default_rng(t[2]).random(t[:2]) < np.random.default_rng(t[2] + 1).random()
)


@given(masks)
def test_run_lengths_round_trip(mask):
    assert (decoded(small.compressed(mask), *mask.shape) == mask).all()
    assert (decoded(small.runs(mask), *mask.shape) == mask).all()


def test_long_runs_survive_compression():
    mask = np.zeros((3000, 2000), bool)
    mask[1500:, 700:1400] = True
    assert (decoded(small.compressed(mask), *mask.shape) == mask).all()


@given(
    st.text(st.characters(codec="ascii"), max_size=12) | st.lists(st.integers(-3, 30), max_size=6)
)
@settings(max_examples=300)
def test_foreign_run_lengths_are_refused_or_fill_the_image(counts):
    try:
        mask = decoded({"size": [4, 5], "counts": counts}, 4, 5)
    except ValueError:
        return
    again = coco_mask.decode(coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8)))
    assert mask.shape == (4, 5) and (again == mask).all()


# --- the embedded benchmark -----------------------------------------------------------------------

SEED, SIZE = 11, 64


@pytest.fixture(scope="module")
def bestiary(tmp_path_factory):
    out = tmp_path_factory.mktemp("benchmark") / "bestiary"
    make(out, "all", images=6, size=SIZE, seed=SEED, val=2, pretrain=2, progress=False)
    return out


@pytest.mark.parametrize("layout", ["panoptic", "coco", "voc"])
@pytest.mark.parametrize("split", ["train", "val"])
def test_bestiary_comes_back_as_it_was_drawn(bestiary, layout, split):
    dataset = open_dataset(bestiary, split, layout)
    assert [c.name for c in dataset.categories] == [
        c.name for c in (CATEGORIES if layout == "panoptic" else THINGS)
    ]
    for i in range(len(dataset)):
        scene = draw(SEED, split, i, SIZE)
        drawn = scene.truth_with(border=True) if layout == "voc" else scene.truth
        kept = drawn.pick(kept_rows(drawn, layout))
        truth = dataset.truth(i)
        assert truth.masks.equal(kept.masks)
        assert truth.label.tolist() == kept.label.tolist()
        assert truth.is_crowd.tolist() == kept.is_crowd.tolist()
        assert truth.parts.equal(drawn.parts)
        if layout != "coco":
            crowds = (
                drawn.masks[drawn.is_crowd].any(0)
                if layout == "voc"
                else torch.zeros_like(drawn.void)
            )
            assert truth.void.equal(drawn.void | crowds)
        assert np.abs(dataset.image(i).astype(int) - scene.image).mean() < 10  # JPEG


def kept_rows(drawn, layout):
    """Which rows a layout can hold: instances know no stuff, VOC moreover makes crowds void."""
    if layout == "panoptic":
        return torch.ones_like(drawn.is_thing)
    return drawn.is_thing & ~drawn.is_crowd if layout == "voc" else drawn.is_thing


def test_bestiary_sbd_equals_its_pngs_but_for_the_border(bestiary):
    dataset = open_dataset(bestiary, "train", "voc")
    for i, name in enumerate(dataset.ids):
        objects, classes = read_sbd(
            bestiary / "SBD" / "dataset" / "inst" / f"{name}.mat", dataset.size(i)
        )
        known = dataset.masks(i)[0] != 255
        assert (objects[known] == dataset.masks(i)[0][known]).all()
        assert (classes[known] == dataset.masks(i)[1][known]).all()


def test_bestiary_pretraining_images_have_no_truth(bestiary):
    for layout in ("auto", "folder"):
        dataset = open_dataset(bestiary, "pretrain", layout)
        assert len(dataset) == 2 and not dataset.has_truth
        assert dataset.image(0).shape == (SIZE, SIZE, 3)


# --- real photographs -----------------------------------------------------------------------------


@pytest.mark.realdata
@pytest.mark.parametrize("split, images, objects", [("train", 106, 950), ("val", 74, 629)])
def test_coco_instances_equal_pycocotools(shared_data, split, images, objects):
    root = shared_data / "coco2017_instances"
    dataset = open_dataset(root, split)
    api = referee(root / "annotations" / f"instances_{split}2017.json")
    assert dataset.ids == list(api.imgs) and len(dataset) == images
    total = 0
    for i, image_id in enumerate(dataset.ids):
        entries, truth = api.imgToAnns[image_id], dataset.truth(i)
        total += len(truth)
        assert truth.target.tolist() == [e["id"] for e in entries]
        assert [dataset.categories[k].id for k in truth.label] == [
            e["category_id"] for e in entries
        ]
        assert truth.is_crowd.tolist() == [bool(e["iscrowd"]) for e in entries]
        for mask, entry in zip(truth.masks.numpy(), entries):
            assert (mask == api.annToMask(entry)).all()
    assert total == objects
    assert all(dataset.image(i).shape[:2] == dataset.size(i) for i in range(0, images, 9))


@pytest.mark.realdata
@pytest.mark.parametrize("split, images", [("train", 29), ("val", 33)])
def test_coco_panoptic_equals_the_pngs(shared_data, split, images):
    root = shared_data / "coco2017_panoptic"
    dataset = open_dataset(root, split)
    assert (dataset.layout, len(dataset), len(dataset.categories)) == ("panoptic", images, 133)
    assert sum(c.is_thing for c in dataset.categories) == 80
    for i in range(images):
        truth, file = (
            dataset.truth(i),
            root / "annotations" / f"panoptic_{split}2017" / dataset.entry(i)["file_name"],
        )
        areas = {s["id"]: s["area"] for s in dataset.entry(i)["segments_info"]}
        assert dict(zip(truth.target.tolist(), truth.masks.sum((1, 2)).tolist())) == areas
        assert (truth.masks.sum(0) + truth.void == 1).all()
        if i % 5 == 0:
            r, g, b = np.asarray(Image.open(file)).astype(int).transpose(2, 0, 1)
            ids = (truth.masks.numpy() * truth.target.numpy()[:, None, None]).sum(0)
            assert (read_segment_ids(file) == ids).all() and (ids == r + 256 * g + 65536 * b).all()


@pytest.mark.realdata
def test_instances_cut_from_panoptic_are_its_things(shared_data):
    root = shared_data / "coco2017_panoptic"
    things, segments = open_dataset(root, "val", "coco"), open_dataset(root, "val", "panoptic")
    row_of = {image_id: i for i, image_id in enumerate(things.ids)}
    for i in range(0, len(segments), 4):
        whole = segments.truth(i)
        cut = things.truth(row_of[segments.ids[i]])
        assert cut.masks.equal(whole.masks[whole.is_thing])


@pytest.mark.realdata
@pytest.mark.parametrize("split, images", [("train", 14), ("val", 10), ("trainval", 24)])
def test_voc_equals_the_pngs_and_the_xml(shared_data, split, images):
    root = shared_data / "VOCdevkit" / "VOC2012"
    dataset = open_dataset(root, split)
    assert len(dataset) == images
    for i, name in enumerate(dataset.ids):
        truth = dataset.truth(i)
        objects = np.asarray(Image.open(root / "SegmentationObject" / f"{name}.png"))
        assert truth.target.tolist() == [k for k in np.unique(objects) if k not in (0, 255)]
        for k, mask in zip(truth.target.tolist(), truth.masks.numpy()):
            assert (mask == (objects == k)).all()
        assert (truth.void.numpy() == (objects == 255)).all()
        named = [
            e.findtext("name")
            for e in ElementTree.parse(root / "Annotations" / f"{name}.xml").iter("object")
        ]
        assert Counter(dataset.categories[k].name for k in truth.label.tolist()) == Counter(named)


@pytest.mark.realdata
def test_voc_has_62_objects_and_sbd_the_same(shared_data):
    dataset = open_dataset(shared_data, "trainval", "voc")
    assert sum(len(dataset.truth(i)) for i in range(len(dataset))) == 62
    files = sorted((shared_data / "SBD_layout_derived" / "dataset" / "inst").glob("*.mat"))
    assert [file.stem for file in files] == sorted(dataset.ids) and len(files) == 24
    for file in files:
        i = dataset.ids.index(file.stem)
        for sbd, voc in zip(read_sbd(file, dataset.size(i)), dataset.masks(i)):
            assert (sbd == np.where(voc == 255, 0, voc)).all()


@pytest.mark.realdata
def test_train_aug_is_the_official_list(shared_data):
    lists = {
        path.stem: path.read_text().split()
        for path in (shared_data / "voc_split_lists").glob("*.txt")
    }
    train, val = lists["voc2012_seg_train_1464"], lists["voc2012_seg_val_1449"]
    merged = train_aug_ids(train, val, lists["sbd_train_8498"] + lists["sbd_val_2857"])
    assert (len(train), len(val), len(merged)) == (1464, 1449, 10582)
    assert merged == sorted(lists["voc2012_sbd_train_aug_10582"])


@pytest.mark.realdata
def test_all_605_nuclei_images(shared_data):
    result = Counter()
    for folder in ("dsb2018_coco", "dsb2018_full"):
        for split in ("train", "val"):
            dataset = open_dataset(shared_data / folder, split)
            api = referee(shared_data / folder / "annotations" / f"instances_{split}.json")
            result["images"] += len(dataset)
            result["nuclei"] += sum(map(len, dataset.index.annotations.values()))
            for i in range(0, len(dataset), 40):
                entries, truth = api.imgToAnns[dataset.ids[i]], dataset.truth(i)
                assert truth.masks.sum((1, 2)).tolist() == [e["area"] for e in entries]
                assert (truth.masks[0].numpy() == api.annToMask(entries[0])).all()
                assert dataset.image(i).shape[:2] == dataset.size(i)
    assert result == {"images": 605, "nuclei": 2489 + 23928}
