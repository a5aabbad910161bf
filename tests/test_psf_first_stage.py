"""The label branch's semantic head, and the first stage that teaches it for all rows of a table.

It is taught from points alone.
"""

import pytest
import torch
from torch.nn import functional as F

from pointseg.nets.deformable_encoder import Waves, flattened
from pointseg.nets.label_heads import CellClasses
from pointseg.nets.start import load_first_stage
from pointseg.papers.panoptic_labels import semantic_head
from pointseg.papers.point2mask import Point2Mask
from pointseg.papers.point_semantics import PointSemantics
from pointseg.papers.points_alone import PointsAlone
from pointseg.papers.psps import PSPS
from pointseg.structures import Batch, Category, Classes, InputError, Points
from pointseg.students.panoptic_full import PanopticFull
from pointseg.students.panoptic_segformer.network import SMOKE
from pointseg.students.panoptic_segformer.student import PanopticStudent

CATEGORIES = [Category(1, "cat"), Category(2, "dog"), Category(3, "sky", False)]


def memory(width, padding=None):
    torch.manual_seed(0)
    maps = [torch.randn(2, width, side, side) for side in (8, 4, 2)]
    return flattened(maps, padding, Waves(8.0, 16.0))


def batch():
    torch.manual_seed(1)
    label = torch.tensor([0, 1, 2])
    points = Points(
        torch.tensor([[10.0, 50.0], [50.0, 50.0], [30.0, 4.0]]), label, label, label < 2
    )
    return Batch(torch.rand(2, 3, 64, 64), [(64, 64)] * 2, ["a", "b"], [points, points.things()])


@pytest.mark.parametrize("head, layers", [("cells", 1), ("queries", SMOKE.stuff_layers)])
def test_both_heads_answer_alike(head, layers):
    torch.manual_seed(0)
    student = PanopticStudent(Classes(2, 1), SMOKE)
    maps = semantic_head(student, head)(memory(SMOKE.width))
    assert maps.logits.shape == (layers, 2, 3, 8, 8) and maps.presence.shape == (layers, 2, 3)


def test_presence_is_the_log_mean_exp_over_the_picture_alone():
    torch.manual_seed(0)
    head = CellClasses(SMOKE.width, 3)
    padding = torch.zeros(2, 64, 64, dtype=torch.bool)
    padding[0, :, 32:] = True  # the right half of the first picture
    maps = head(memory(SMOKE.width, padding))
    logits, presence = maps.logits, maps.presence
    left = logits[0, 0, :, :, :4].flatten(1).exp().mean(1).log()
    assert torch.allclose(presence[0, 0], left, atol=1e-5)
    assert torch.allclose(presence[0, 1], logits[0, 1].flatten(1).exp().mean(1).log(), atol=1e-5)
    presence.sum().backward()
    assert head.classifier.linear.weight.grad.isfinite().all()


@pytest.mark.parametrize("method", [PSPS, Point2Mask])
def test_queries_as_in_the_official_codes_still_learn(method):
    torch.manual_seed(0)
    model = method.build(CATEGORIES, "smoke", semantic="queries")
    losses = model.losses(batch(), 5)
    sum(losses.values()).backward()
    assert all(v.isfinite() for v in losses.values())
    assert model.labeller.semantic.scale.grad.abs().sum() > 0


def test_the_first_stage_learns_from_points_alone_and_learns_their_classes():
    torch.manual_seed(0)
    model = PointSemantics.build(CATEGORIES, "smoke")
    optimizer = torch.optim.AdamW(model.param_groups(1e-2, 0.0))
    for step in range(40):
        losses = model.losses(batch(), step)
        assert set(losses) == {"point", "presence"}
        optimizer.zero_grad()
        sum(losses.values()).backward()
        optimizer.step()
    assert all(p.grad is None for p in model.student.network.location.parameters())
    features = model.student.features(batch().images, batch().sizes)
    logits, points = model.labeller.semantic(features).logits[0], batch().points[0]
    cells = (points.xy / 64 * logits.shape[-1]).long()
    at_points = logits[0][:, cells[:, 1], cells[:, 0]].T
    assert at_points.argmax(1).tolist() == [0, 1, 2]
    assert F.cross_entropy(at_points, points.label) < 0.3


@pytest.mark.parametrize("method", [PSPS, Point2Mask, PanopticFull, PointsAlone])
def test_every_row_takes_its_part_of_the_first_stage(method, tmp_path):
    torch.manual_seed(0)
    first, path = PointSemantics.build(CATEGORIES, "smoke"), tmp_path / "first.pt"
    torch.save({"weights": first.state_dict()}, path)
    model = method.build(CATEGORIES, "smoke")
    load_first_stage(model, path, model.FIRST_STAGE)
    taken = {
        name: value
        for name, value in model.state_dict().items()
        if name.startswith(model.FIRST_STAGE)
    }
    assert any(name.startswith("student.network.backbone.") for name in taken)
    assert any(name.startswith("labeller.semantic.") for name in taken) == hasattr(
        model, "labeller"
    )
    assert all(torch.equal(value, first.state_dict()[name]) for name, value in taken.items())


def test_a_head_of_queries_cannot_start_from_cells(tmp_path):
    path = tmp_path / "first.pt"
    torch.save({"weights": PSPS.build(CATEGORIES, "smoke").state_dict()}, path)
    model = PSPS.build(CATEGORIES, "smoke", semantic="queries")
    with pytest.raises(
        InputError, match=r"first\.pt: no first stage of this method, it has no labeller\.semantic"
    ):
        load_first_stage(model, path, model.FIRST_STAGE)


def test_what_learns_beside_the_student_learns_at_full_rate():
    model = Point2Mask.build(CATEGORIES, "smoke")
    groups = model.param_groups(1e-3, 0.1)
    listed = [id(p) for group in groups for p in group["params"]]
    assert sorted(listed) == sorted(id(p) for p in model.parameters() if p.requires_grad)
    beside = {id(p) for p in model.labeller.parameters()}
    assert all(group["lr"] == 1e-3 for group in groups if beside & {id(p) for p in group["params"]})
