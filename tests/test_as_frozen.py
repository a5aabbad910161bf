"""AttentionShift on frozen features of a pretrained network: tokens, and the label path on them."""

import pytest
import torch

from pointseg.lab.key_points import path_scores
from pointseg.papers.attentionshift.frozen import LEVELS, STRIDE, FrozenTokens, grid_of
from pointseg.papers.attentionshift.method import AttentionShift
from pointseg.papers.attentionshift.tokens import token_at
from pointseg.structures import Batch, Category, Points

NETWORK = "tf_efficientnet_lite0"
CATEGORIES = [Category(1, "cat"), Category(2, "dog")]
SIZES = [(64, 72), (50, 41)]


@pytest.fixture(scope="module")
def tokens():
    torch.manual_seed(0)
    return FrozenTokens(NETWORK, weights=None)


@pytest.fixture(scope="module")
def method():
    torch.manual_seed(0)
    chosen = {"features": "frozen", "frozen_weights": None, "foreground": 0.6, "background": 0.4}
    return AttentionShift.build(CATEGORIES, "smoke", **chosen)


def batch():
    torch.manual_seed(1)
    images = torch.zeros(2, 3, 64, 72)
    for image, (h, w) in zip(images, SIZES):
        image[:, :h, :w] = torch.rand(3, h, w)
    xy = [[[10.5, 9.5], [60.5, 40.5]], [[30.5, 44.5]]]
    points = [Points(torch.tensor(each), torch.arange(len(each)), torch.arange(len(each)) + 1,
                     torch.ones(len(each), dtype=torch.bool)) for each in xy]  # fmt: skip
    return Batch(images, SIZES, ["a", "b"], points)


def test_tokens_of_an_image_do_not_depend_on_its_neighbours(tokens):
    both = batch()
    together = tokens(both.images, SIZES)
    for row, image, (h, w) in zip(together, both.images, SIZES):
        alone = tokens(image[None, :, :h, :w], [(h, w)])[0]
        rows, columns = grid_of((h, w))
        torch.testing.assert_close(row[:rows, :columns], alone)
        assert not row[rows:].any() and not row[:, columns:].any()


def test_every_stride_has_its_share_of_a_token_s_length(tokens):
    values = tokens(batch().images[:1], SIZES[:1])[0]
    parts = values.split(tokens.backbone.channels, -1)
    assert STRIDE == min(LEVELS) and len(parts) == len(LEVELS)
    for part, length in zip(parts, LEVELS.values()):
        torch.testing.assert_close(part.norm(dim=-1), torch.full(part.shape[:2], length))


def test_nothing_of_it_learns(method):
    method.train()
    labeller = method.labeller
    assert not any(p.requires_grad for p in labeller.parameters())
    assert not any(module.training for module in labeller.tokens.modules())
    assert set(method.losses(batch(), 0)) == {"rpn_class", "rpn_box", "class", "box", "mask"}


def test_the_labelled_token_is_most_like_itself(method):
    evidence = method.explain(batch())[0]
    objects, likeness = evidence.objects, evidence.attention
    at = token_at(objects.xy, objects.grid, objects.stride)
    assert torch.equal(likeness.argmax(1), at)
    assert likeness.min() == 0 and likeness.max() == 1
    assert not likeness[~objects.valid].any()


def test_labels_have_a_row_an_object_whose_box_holds_its_point(method):
    marked = batch()
    for labelled, points, size in zip(method.eval().pseudo_labels(marked), marked.points, SIZES):
        assert labelled.masks.shape == (len(points), *size)
        assert torch.equal(labelled.label, points.label)
        low, high = labelled.boxes[:, :2], labelled.boxes[:, 2:]
        assert ((points.xy >= low) & (points.xy <= high)).all()
        assert labelled.masks.flatten(1).any(1).all()


def test_the_path_of_key_points_is_kept_on_request(method):
    _, labels = method.explain(batch())
    turns = method.config.iterations + 1
    assert len(labels.keypoints.turns) == turns


def test_scores_of_the_path_on_images_that_end_inside_a_token(method):
    """What lies beyond an image counts as ground: as if its canvas ended where the token does."""
    cut = Batch(batch().images[..., :61, :70], [(61, 70), (50, 41)], ["a", "b"], batch().points)
    evidence, labels = method.explain(cut)
    masks = torch.zeros(3, 61, 70, dtype=torch.bool)
    masks[:, 4:30, 5:65] = True
    whole = torch.nn.functional.pad(masks, (0, 2, 0, 3))
    ours, padded = (path_scores(labels, evidence.tokens, each, None) for each in (masks, whole))
    assert all(torch.equal(values, padded[name]) for name, values in ours.items())
