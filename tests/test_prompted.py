"""A segmenter of the user's own as a labeller, with a stub in its place."""

import pytest
import torch
from support.grid_targets import points_of

from pointseg.lab import recipe as recipes
from pointseg.lab.chain import Chain
from pointseg.lab.methods import method_class
from pointseg.lab.run_data import open_corpus
from pointseg.structures import Batch, Category, InputError

CATEGORIES = [Category(k, name, k < 3) for k, name in enumerate(("disc", "dog", "sky", "sea"), 1)]
STUB = "test_prompted:disc"


def disc(image, xy):
    """Logits of discs of 6 pixels about the clicks: above 0 inside, higher in the middle."""
    h, w = image.shape[-2:]
    y, x = torch.meshgrid(torch.arange(h) + 0.5, torch.arange(w) + 0.5, indexing="ij")
    away = torch.linalg.vector_norm(torch.stack([x, y]) - xy[:, :, None, None], dim=1)
    return 6 - away.amin(0)


def test_the_largest_logit_owns_and_below_zero_nobody_does():
    method = method_class("prompted").build(CATEGORIES, "smoke", segmenter=STUB)
    points = points_of((30.5, 8.5, 2, 9), (8.5, 8.5, 0, 4), (14.5, 8.5, 1, 2))
    batch = Batch(torch.rand(2, 3, 20, 40), [(20, 40), (20, 30)], [0, 1], [points, points_of()])
    label, none = method.pseudo_labels(batch)
    assert label.label.tolist() == [0, 1, 2]
    row = label.segments[8].tolist()
    assert row[8] == 1 and row[10] == 1 and row[13] == 2 and row[30] == 3 and row[22] == 0
    assert not none.segments.any() and none.segments.shape == (20, 30)


def test_its_labels_teach_a_student_though_it_never_learns(tmp_path, monkeypatch):
    """[EPLD Tab. 8] A chain of a stage of no steps and a student of full masks."""
    monkeypatch.chdir(tmp_path)
    stages = [{"method": "prompted", "config": {"segmenter": STUB}},
              {"method": "panoptic_full", "learns_from": 0}]  # fmt: skip
    recipe = recipes.make(stages=stages, scale="smoke", layout="voc-panoptic", images=3)
    chain = Chain(open_corpus(recipe), tmp_path / "stages")
    assert len(chain.labels(0)) == 3
    assert chain.model(1).exists() and chain.record()[0]["method"] == "prompted"


@pytest.mark.parametrize(
    "name, words",
    [(None, "expected 'module:function'"), ("no_such:f", "no_such"), (f"{STUB}x", "discx")],
)
def test_a_segmenter_that_is_not_there_is_one_clear_line(name, words):
    with pytest.raises(InputError, match=words):
        method_class("prompted").build(CATEGORIES, "smoke", segmenter=name)
