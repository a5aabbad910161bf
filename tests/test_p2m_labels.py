"""Point2Mask from maps to labels: stages, unit numbers, transport, and losses.

[P2M Eq. 3], [P2M-S Eq. 1-7]
"""

import dataclasses

import numpy as np
import pytest
import torch

from pointseg.bookkit.diagnostics import labels as label_study
from pointseg.nets.label_heads import ImageMaps
from pointseg.ops.paths import nearest_of_each, shortest_paths, undirected_steps
from pointseg.ops.point_labels import (
    LabelledImage,
    SemanticMap,
    likely_nearest,
    semantic_map,
)
from pointseg.ops.semantic_losses import PseudoLabel, dilated_points
from pointseg.ops.transport import shares
from pointseg.papers.panoptic_labels import PanopticLabels
from pointseg.papers.path_labels import PathEvidence
from pointseg.papers.point2mask import CONFIGS, Point2Mask, centroids, transported, unit_numbers
from pointseg.papers.psps import PSPS
from pointseg.structures import IGNORE, Batch, Category, Points, Truth

CATEGORIES = [Category(1, "cat"), Category(2, "dog"), Category(3, "sky", False)]


def points_of(*rows):
    """Rows (x, y, label, target); label 2 is stuff."""
    xy = torch.tensor([row[:2] for row in rows]).float().reshape(-1, 2)
    label, target = (torch.tensor([row[k] for row in rows], dtype=torch.long) for k in (2, 3))
    return Points(xy, label, target, label < 2)


def flat_maps(regions, boundary=None, h=16, w=16):
    """Confident logits [3, h, w] from class ids [h, w], no instance feature, boundary if given."""
    logits = 20.0 * torch.nn.functional.one_hot(regions, 3).permute(2, 0, 1)
    features = torch.zeros(4, h, w)
    features[0] = 1
    return ImageMaps(
        logits.float(), features, torch.zeros(1, h, w) if boundary is None else boundary
    )


def two_cats():
    """Sky above, one cat region below, a learnt boundary at column 9 of 16, points beside it."""
    regions = torch.full((16, 16), 2)
    regions[6:] = 0
    boundary = torch.zeros(1, 16, 16)
    boundary[:, :, 9] = 1
    return flat_maps(regions, boundary), points_of((8, 60, 0, 1), (60, 60, 0, 2), (30, 4, 2, 3))


def method(**overrides):
    return Point2Mask.build(CATEGORIES, "smoke", **overrides).eval()


def test_stage_a_gives_each_cat_its_side_of_the_boundary_and_the_sky_to_stuff():
    maps, points = two_cats()
    label = method().labeller.label_image(maps, torch.rand(3, 64, 64), points).label
    assert (label.things[32:, :34] == 0).all() and (label.things[32:, 44:] == 1).all()
    assert (label.things[:20] == -1).all() and (label.stuff[:20] == 2).all()
    assert (label.stuff[32:] == IGNORE).all()


def test_eq03_beta_zero_removes_the_boundary_and_ties_go_to_the_first():
    """Without the boundary the whole cat region is free to cross. [P2M Eq. 3]

    Both cats are equally near everywhere.
    """
    maps, points = two_cats()
    label = method(beta=0.0).labeller.label_image(maps, torch.rand(3, 64, 64), points).label
    assert (label.things[40:, :56] == 0).all()


@pytest.mark.parametrize("seed", range(20))
def test_the_likely_nearest_target_equals_a_pixel_by_pixel_search(seed):
    """argmax_i (1 - D_i / max D) (P of i's class or of any stuff), written down literally."""
    draw = np.random.default_rng(seed)
    classes, label = (
        torch.tensor([0, 3, 4, 7, 9]),
        torch.tensor(draw.choice([0, 3, 4], size=draw.integers(1, 6))),
    )
    semantic = SemanticMap(
        torch.tensor(draw.dirichlet(np.ones(5), (6, 7))).permute(2, 0, 1), classes, things=5
    )
    distance = torch.tensor(draw.random((len(label), 6, 7)))
    owners = likely_nearest(distance, *semantic.likelihood(label))
    column = {int(c): k for k, c in enumerate(classes)}
    for r, c in np.ndindex(6, 7):
        prob = semantic.prob[:, r, c].tolist()
        fits = [prob[column[int(k)]] + prob[3] + prob[4] for k in label]
        scores = [
            (1 - float(d) / float(distance.max())) * fit for d, fit in zip(distance[:, r, c], fits)
        ]
        assert owners[r, c] == int(np.argmax(scores))


def test_stuff_is_asked_for_only_where_the_map_is_sure():
    prob = torch.tensor([[[0.2, 0.3, 0.9]], [[0.6, 0.4, 0.1]]])
    semantic = SemanticMap(prob, torch.tensor([1, 2]), things=2)
    assert semantic.stuff().tolist() == [[True, True, False]]
    assert semantic.stuff_target().tolist() == [[2, IGNORE, IGNORE]]


def test_points_in_one_cell_both_keep_a_pixel():
    maps, _ = two_cats()
    points = points_of((8.2, 60.2, 0, 1), (9.7, 61.5, 1, 2), (30, 4, 2, 3))
    labelled = method().labeller.label_image(maps, torch.rand(3, 64, 64), points)
    assert labelled.label.things[60, 8] == 0 and labelled.label.things[61, 9] == 1
    assert labelled.thing_label.tolist() == [0, 1]
    target = PanopticLabels([labelled], (64, 64), 2).targets(None).images[0]
    assert (target.things.flatten(1).sum(1) > 0).all() and (target.boxes[:, 2:] > 0).all()


@pytest.mark.parametrize("rows", [[(30, 4, 2, 3)], [(8, 60, 0, 1)], []])
def test_images_without_things_without_stuff_or_without_any_point(rows):
    maps, _ = two_cats()
    if rows:
        labelled = method().labeller.label_image(maps, torch.rand(3, 64, 64), points_of(*rows))
        assert labelled.as_panoptic().segments.shape == (64, 64)
    batch = Batch(
        torch.rand(2, 3, 64, 64), [(64, 64)] * 2, ["a", "b"], [points_of(*rows), two_cats()[1]]
    )
    losses = method(transport_from=0).losses(batch, 5)
    assert all(torch.isfinite(v) for v in losses.values())


def grid_problem(seed, n=4, h=12, w=14):
    generator = torch.Generator().manual_seed(seed)
    plane = torch.nn.functional.avg_pool2d(
        torch.rand(1, 3, h + 2, w + 2, generator=generator), 3, 1
    )[0]
    prices = undirected_steps((lambda a, b: (a - b).abs().sum(0) + 0.01, plane, 1.0))
    cells = torch.randperm(h * w, generator=generator)[:n]
    xy = torch.stack([cells % w, cells // w], -1) * 4.0 + 2
    points = Points(xy, torch.zeros(n).long(), torch.arange(n), torch.ones(n).bool())
    return prices, cells, points, torch.rand(h, w, generator=generator) > 0.7, (4 * h, 4 * w)


def test_centroids_move_inside_their_mask_and_stay_where_the_middle_is_outside():
    owner = torch.full((8, 8), -1)
    owner[1:4, 1:4] = 0
    owner[0, 4:], owner[:4, 7] = 1, 1  # an angle: its middle is outside
    owner[6:, :] = 2
    points = points_of(
        (2.5, 1.5, 0, 1), (4.5, 0.5, 0, 2), (1.5, 1.5, 0, 3)
    )  # the third lies in the first's mask
    moved = centroids(owner, points, torch.arange(3), (8, 8))
    assert moved.tolist() == [[2.5, 2.5], [4.5, 0.5], [1.5, 1.5]]


def test_unit_numbers_count_the_cells_nearest_to_the_centroids():
    prices, cells, points, stuff, size = grid_problem(0)
    distance, likelihood = shortest_paths(prices, cells), torch.ones(1, *stuff.shape)
    semantic = SemanticMap(torch.stack([(~stuff).float(), stuff.float()]), torch.tensor([0, 2]), 2)
    paths = PathEvidence(size, semantic, prices, points, distance, torch.arange(4))
    units = unit_numbers(paths, semantic, CONFIGS["smoke"])
    assert units.sum() == (~stuff).sum()
    before = torch.where(stuff, -1, likely_nearest(distance, likelihood, torch.zeros(4).long()))
    centres = centroids(before, points, torch.arange(4), size)
    again = shortest_paths(
        prices, (centres[:, 1] // 4).long() * stuff.shape[1] + (centres[:, 0] // 4).long()
    )
    nearest = again.argmin(0)[~stuff]
    assert units.tolist() == nearest.bincount(minlength=4).tolist()


def test_stage_a_needs_no_solver():
    """[P2M-S Eq. 1]: transport whose supplies are the nearest counts is the nearest assignment."""
    prices, cells, _, stuff, _ = grid_problem(1)
    distance = shortest_paths(prices, cells)
    nearest = distance.argmin(0)
    units = nearest[~stuff].bincount(minlength=4).float()
    for solver in ("sinkhorn", "converged"):
        u = transported(
            distance,
            units,
            (~stuff).to(distance),
            dataclasses.replace(CONFIGS["smoke"], solver=solver),
        )
        label = (distance - u[:, None, None]).argmin(0)
        assert (label == nearest)[~stuff].float().mean() > 0.97


def test_converged_transport_meets_the_unit_numbers_on_paths():
    prices, cells, _, stuff, _ = grid_problem(2)
    distance = shortest_paths(prices, cells).double()
    units = torch.tensor([0.4, 0.3, 0.2, 0.1], dtype=torch.float64)
    u = transported(
        distance,
        units,
        (~stuff).to(distance),
        dataclasses.replace(CONFIGS["smoke"], solver="converged"),
    )
    carried = shares(distance[:, ~stuff], u, 1e-3).sum(1)
    assert (
        carried / carried.sum() - units
    ).abs().max() < 0.01  # whole branches of paths are ties, so a plan may split them


def test_ten_points_of_a_target_act_as_one():
    prices, cells, _, _, _ = grid_problem(3)
    lengths = shortest_paths(prices, cells)
    merged, first = nearest_of_each(lengths, torch.tensor([9, 4, 9, 4]))
    torch.testing.assert_close(
        merged, torch.stack([lengths[[0, 2]].amin(0), lengths[[1, 3]].amin(0)])
    )
    assert first.tolist() == [0, 1]


def test_semantic_map_knows_only_classes_with_a_point_and_is_sure_at_points():
    points = points_of((8, 60, 0, 1), (30, 4, 2, 3))
    grown = dilated_points([points], (1, 16, 16), 5.0, (64, 64))[0]
    certain = grown == torch.tensor([0, 2])[:, None, None]
    semantic = semantic_map(torch.rand(3, 16, 16), torch.tensor([0, 2]), certain, 2)
    assert semantic.classes.tolist() == [0, 2] and semantic.prob.shape == (2, 16, 16)
    assert semantic.prob[0, 15, 2] == 1 and semantic.prob[1, 1, 7] == 1
    assert (semantic.prob.sum(0) < 1).any()  # what an absent class holds is given to nobody
    sure = semantic.stuff_target()
    assert set(sure.unique().tolist()) <= {2, IGNORE}


def test_labels_on_grids_and_maps_agree_with_pixels():
    things = torch.full((8, 12), -1)
    things[2:6, 2:6] = 0
    stuff = torch.where(things < 0, 2, IGNORE)
    labelled = LabelledImage.of(PseudoLabel(things, stuff), points_of((3, 3, 1, 7), (10, 1, 2, 8)))
    beside = LabelledImage.void((8, 16), points_of((1, 1, 0, 3), (6, 5, 0, 4)))
    labels = PanopticLabels([beside, labelled], (8, 16), 2)
    coarse = labels.on_grid((4, 8))
    cells = coarse.things[1]
    assert cells[1:3, 1:3].tolist() == [[0, 0], [0, 0]] and (cells[:, 6:] == -1).all()
    assert (coarse.stuff[1, :, 6:] == IGNORE).all()
    panoptic = labelled.as_panoptic()
    assert panoptic.label.tolist() == [1, 2]
    np.testing.assert_array_equal(panoptic.segments == 1, things == 0)
    bare, marked = labels.point_masks((4, 8))
    assert marked.owner.tolist() == [0, 1]
    assert marked.masks.flatten(1)[marked.owner, marked.cells].all()
    assert marked.masks[0].tolist() == (cells == 0).tolist()
    assert bare.masks.flatten(1).nonzero().tolist() == [[0, 0], [1, 19]]
    first, target = labels.targets(None).images
    assert first.known.all() and first.things.flatten(1).sum(1).tolist() == [1, 1]
    assert not target.known[:, 12:].any() and set(target.stuff.unique().tolist()) == {0, IGNORE}


@pytest.mark.parametrize("paper", [PSPS, Point2Mask])
def test_images_of_many_sizes_are_labelled_as_each_alone(paper):
    torch.manual_seed(0)
    model = paper.build(CATEGORIES, "smoke").eval()
    if paper is Point2Mask:
        model.labeller.step.fill_(10)
    sizes = [(64, 64), (48, 64), (64, 64), (64, 64)]
    points = [two_cats()[1], points_of((9, 40, 1, 5), (50, 30, 0, 6), (30, 4, 2, 3)), points_of(),
              points_of((20, 50, 1, 1), (40, 20, 2, 9), (50, 60, 0, 4))]  # fmt: skip
    batch = Batch(torch.rand(4, 3, 64, 64), sizes, list("abcd"), points)
    with torch.no_grad():
        evidence = model.labeller.evidence(model.student.features(batch.images, sizes), batch)
    assert evidence.images[2] is None
    for row in (0, 1, 3):
        (h, w), paths = sizes[row], evidence.images[row]
        given = (
            evidence.maps.of_image(row, (h, w), (64, 64)),
            batch.images[row, :, :h, :w],
            points[row],
        )
        single = model.labeller.paths(*given)
        torch.testing.assert_close(paths.prices, single.prices)
        torch.testing.assert_close(paths.distance, single.distance)


def test_warm_up_and_stages_follow_the_step_and_survive_a_resume():
    torch.manual_seed(0)
    model = Point2Mask.build(CATEGORIES, "smoke", warmup_steps=10, transport_from=7)
    batch = Batch(torch.rand(1, 3, 64, 64), [(64, 64)], ["a"], [two_cats()[1]])
    first, later = model.losses(batch, 0), model.losses(batch, 10)
    for name in (name for name, loss in Point2Mask.LOSSES.items() if loss.ramped):
        assert first[name] == 0 and later[name] > 0, name
    assert first["location_class"] > 0 and first["point"] > 0
    fresh = Point2Mask.build(CATEGORIES, "smoke")
    fresh.load_state_dict(model.state_dict())
    assert fresh.labeller.step == 10
    sum(later.values()).backward()
    stopped = model.labeller.boundary[0].weight.grad
    assert stopped is not None and stopped.abs().sum() > 0


def test_maps_of_the_truth_lead_back_to_it():
    label, none = torch.tensor([0, 0, 2]), torch.zeros(3, dtype=torch.bool)
    truth = Truth(
        torch.zeros(3, 64, 64).bool(),
        label,
        torch.arange(3),
        label < 2,
        none,
        torch.zeros(64, 64).bool(),
    )
    truth.masks[0, 20:44, 8:32], truth.masks[1, 20:44, 32:56] = True, True
    truth.masks[2] = ~truth.masks[:2].any(0)
    points = label_study.one_point_each(truth, torch.Generator().manual_seed(0))
    assert truth.masks[torch.arange(3), points.xy[:, 1].long(), points.xy[:, 0].long()].all()
    maps = label_study.maps_of_truth(truth, 3, (32, 32), radius=0)
    predicted = method().labeller.label_image(maps, torch.rand(3, 64, 64), points).label
    assert label_study.accuracy(predicted, truth) > 80
    exact = PseudoLabel(torch.where(truth.masks[2], -1, truth.masks[1].long()), predicted.stuff)
    assert label_study.accuracy(exact, truth) == 100
    assert label_study.has_touching_likes(truth) and not label_study.has_touching_likes(
        truth.pick(truth.label > 0)
    )


def test_rounds_only_come_nearer_to_the_optimum():
    cost = torch.rand(3, 200, generator=torch.Generator().manual_seed(0))
    errors = label_study.rounds_study(cost, torch.tensor([120.0, 50, 30]), (20, 80, 400))
    assert errors[20][0] > errors[80][0] > errors[400][0]
