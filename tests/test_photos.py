"""Scale photos: its splits of photographs, the sizes of its images, and a step of training."""

import shutil
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest
import torch
from PIL import Image

from pointseg.bookkit import photographs as photographs_shown
from pointseg.data.layouts import open_dataset
from pointseg.data.photo_splits import PHOTO_SPLITS, photo_ids
from pointseg.lab import recipe as recipes
from pointseg.lab import run_data
from pointseg.lab.experiment import experiment
from pointseg.lab.methods import METHODS, method_class
from pointseg.lab.run_data import open_corpus
from pointseg.lab.run_record import Run
from pointseg.nets import timm_backbone
from pointseg.structures import Category, InputError

VOC = Path(__file__).parents[2] / "shared/data/VOC2012_320/VOCdevkit/VOC2012"
PENN_FUDAN = Path(__file__).parents[2] / "shared/data/PennFudan_320"
NO_WEIGHTS = {"weights": None}
photographs = pytest.mark.skipif(not VOC.is_dir(), reason="no photographs beside the project")


def voc_folder(root, lists, masks=True):
    """A folder in VOC's layout with grey images of every id that its lists name."""
    segmentation = root / "ImageSets" / "Segmentation"
    for folder in (segmentation, *(root / f for f in ("JPEGImages", "SegmentationClass",
                                                      "SegmentationObject"))):  # fmt: skip
        folder.mkdir(parents=True)
    for name, ids in lists.items():
        (segmentation / f"{name}.txt").write_text("\n".join(ids) + "\n")
    for image_id in dict.fromkeys(i for ids in lists.values() for i in ids):
        Image.new("RGB", (40, 30), "grey").save(root / "JPEGImages" / f"{image_id}.jpg")
        for folder in ("SegmentationClass", "SegmentationObject") if masks else ():
            mask = Image.new("P", (40, 30))
            mask.paste(1, (5, 5, 30, 25))
            mask.save(root / folder / f"{image_id}.png")
    return root


def opened(root):
    return {split: open_dataset(root, split, "voc").ids for split in PHOTO_SPLITS}


def test_a_root_s_own_lists_are_cut_into_three(tmp_path):
    pool, judged = [f"a{k:03}" for k in range(60)], ["v1", "v2"]
    ids = opened(voc_folder(tmp_path / "own", {"train_plus": pool, "val_eval": judged}))
    assert ids["photos_val"] == judged
    assert sorted(ids["photos_train"] + ids["photos_tune"]) == pool
    assert 0 < len(ids["photos_tune"]) < 20


def test_one_list_alone_is_cut_by_names(tmp_path):
    """As Penn-Fudan's; a photograph's split does not change when others come or go."""
    pool = [f"ped{k:03}" for k in range(80)]
    ids = opened(voc_folder(tmp_path / "one", {"trainval": pool}))
    assert sorted(name for part in ids.values() for name in part) == pool
    assert all(len(part) >= 5 for part in ids.values())
    fewer = {split: photo_ids(pool[:40], None, split) for split in PHOTO_SPLITS}
    assert all(set(fewer[split]) == set(ids[split]) & set(pool[:40]) for split in PHOTO_SPLITS)


def test_the_official_download_gets_the_package_s_lists(tmp_path):
    """Of which every photograph must be there, and SBD's masks where VOC has none."""
    root = voc_folder(tmp_path / "VOC2012", {"train": ["2007_000032"], "val": ["2007_000061"]})
    with pytest.raises(InputError, match=r"photograph 2007_0\d+ is absent; this is not all of VOC"):
        open_dataset(root, "photos_val", "voc")
    names = photo_lists_of_the_package()
    assert (len(names["train_plus"]), len(names["val_eval"])) == (2067, 526)
    assert not set(names["train_plus"]) & set(names["val_eval"])
    for name in names["val_eval"] + names["train_plus"]:
        (root / "JPEGImages" / f"{name}.jpg").touch()
    with pytest.raises(InputError, match=r"needs SBD's dataset/inst beside the VOC folder"):
        open_dataset(root, "photos_train", "voc")
    (tmp_path / "SBD" / "dataset" / "inst").mkdir(parents=True)
    ids = opened(root)
    assert ids["photos_val"] == names["val_eval"]
    assert len(ids["photos_train"]) + len(ids["photos_tune"]) == 2067


def photo_lists_of_the_package():
    import pointseg.data.photo_splits as splits

    return {path.stem: path.read_text().split() for path in splits.LISTS.glob("*.txt")}


def test_photographs_that_are_absent_are_named_in_one_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"data: VOCdevkit/VOC2012 is not a folder; give one as"):
        open_corpus(recipes.make("psps", scale="photos"))
    shutil.rmtree(voc_folder(tmp_path / "VOC", {"trainval": ["a"]}) / "ImageSets")
    with pytest.raises(InputError, match=r"no split 'photos_train' in layout 'voc-panoptic'"):
        open_corpus(recipes.make("psps", scale="photos", data=str(tmp_path / "VOC")))


def test_images_come_at_the_scale_s_size(tmp_path):
    root = voc_folder(tmp_path / "VOC", {"trainval": [f"ped{k:03}" for k in range(30)]})
    for image in (root / "JPEGImages").iterdir():
        Image.new("RGB", (640, 480)).save(image)
        for folder in ("SegmentationClass", "SegmentationObject"):
            mask = root / folder / f"{image.stem}.png"
            Image.open(mask).resize((640, 480)).save(mask)
    for method, size in (("psps", (120, 160)), ("attentionshift", (240, 320))):
        corpus = open_corpus(recipes.make(method, scale="photos", data=str(root)))
        assert corpus.marked()[0].size == corpus.unmarked()[0].size == size
        assert corpus.train.split == "photos_train" and corpus.scored.split == "photos_val"


@pytest.mark.parametrize("name", METHODS)
def test_every_method_has_settings_for_photographs(name):
    cls, chosen = method_class(name), recipes.make(name, scale="photos")
    assert "photos" in cls.CONFIGS
    if name not in ("point_semantics", "token_querying"):
        assert "photos" in cls.TRAINING
    assert chosen.stage.training.steps >= 500


def test_the_backbone_learns_at_a_tenth_and_its_norms_not_at_all():
    cls = method_class("psps")
    method = cls.build(
        [Category(1, "cat"), Category(0, "background", False)], "photos", student=NO_WEIGHTS
    )
    network = method.student.network
    groups = method.param_groups(1.0, 0.0)
    rate = {id(p): group["lr"] for group in groups for p in group["params"]}
    norms = {id(p) for m in network.backbone.modules() if isinstance(m, torch.nn.BatchNorm2d)
             for p in m.parameters()}  # fmt: skip
    learnt = [p for p in network.backbone.parameters() if p.requires_grad]
    assert learnt and all(rate[id(p)] == 0.1 for p in learnt)
    assert not norms & set(rate)
    assert all(rate[id(p)] == 1.0 for p in network.stuff_queries.parameters())


@photographs
def test_photographs_and_penn_fudan_are_read_as_they_lie():
    counts = {split: len(ids) for split, ids in opened(VOC).items()}
    assert counts == {"photos_train": 1773, "photos_tune": 294, "photos_val": 526}
    persons = open_dataset(PENN_FUDAN, "photos_val", "voc-panoptic")
    truth = persons.truth(0)
    names = {persons.categories[label].name for label in truth.label.tolist()}
    assert names == {"person", "background"} and not truth.void.any()
    assert len(persons) + len(open_dataset(PENN_FUDAN, "photos_train", "voc")) < 136


@photographs
def test_psps_trains_on_photographs_for_two_steps(tmp_path, monkeypatch):
    """What `pointseg train psps --scale photos -p data=FOLDER` does inside its notebook."""
    monkeypatch.setattr(run_data, "cache", lambda: tmp_path / "data")
    chosen = recipes.make(
        "psps",
        scale="photos",
        data=str(VOC),
        images=4,
        scored_images=2,
        training={"steps": 2, "batch": 2},
        config={"student": NO_WEIGHTS},
    )
    metrics = experiment(chosen, Run(tmp_path / "s0"))
    assert {"PQ", "PQ_th", "PQ_st"} <= set(metrics["val"]) and "labels" in metrics
    assert metrics["stages"][0]["steps"] == 2


def test_a_page_without_the_package_says_what_is_missing(monkeypatch):
    def absent(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr(timm_backbone, "distribution", absent)
    labeller, cause = photographs_shown.frozen_labeller()
    assert labeller is None and "pip install 'pointseg[photos]'" in cause


def test_photographs_of_pages_have_a_licence_and_a_click_inside():
    pytest.importorskip("skimage")
    for each in photographs_shown.PHOTOGRAPHS:
        marked = each.marked()
        (h, w), [[x, y]] = marked.sizes[0], marked.points[0].xy.tolist()
        assert max(h, w) == 320 and 0 <= x < w and 0 <= y < h and each.licence
        assert marked.images.shape == (1, 3, h, w) and 0 <= marked.images.min()


def test_principal_colours_follow_the_strongest_direction():
    """Tokens that differ along one direction most: its colour is a ramp, upwards or downwards."""
    torch.manual_seed(0)
    ramp = torch.linspace(-1, 1, 40)
    tokens = 0.01 * torch.randn(1, 40, 8) + ramp[None, :, None] * torch.eye(8)[0]
    red = torch.from_numpy(photographs_shown.principal_colours(tokens)[0, :, 0])
    assert abs(float(torch.corrcoef(torch.stack([red, ramp]))[0, 1])) > 0.99
