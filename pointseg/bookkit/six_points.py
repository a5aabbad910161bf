"""One image with six points, seven answers to which pixels they own, and the truth.

`python -m pointseg.bookkit.readme` draws it. No network was trained on points for it: the first two
rules need none, the paths of the next two run over the true class map, blurred, EPLD iterates on
features made of it, and AttentionShift looks at the backbone that is shipped with the library.
EXITS walks over the attention of the same backbone, from four clicks a thing instead of a point.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Tensor

from pointseg.bookkit import figures
from pointseg.bookkit.diagnostics.labels import maps_of_truth, one_point_each
from pointseg.bookkit.layers import features_of_truth, iterated
from pointseg.bookkit.walks import clicked, shipped_extractor, walk_of
from pointseg.data.bestiary import CATEGORIES, Scene, draw
from pointseg.nets.weights import read_backbone
from pointseg.ops.crops import paste_crops
from pointseg.ownership import NOBODY, owner
from pointseg.papers.attentionshift.method import AttentionShift
from pointseg.papers.epld.queries import targets_on_grid
from pointseg.papers.exits.retrieval import scores
from pointseg.papers.point2mask import Point2Mask
from pointseg.papers.psps import PSPS
from pointseg.structures import Batch, Points

SIDE = 128
SHOWN = 52  # of Bestiary's split val: six targets, three of them of one class
SHARP = {"attention": "point", "centred": True, "foreground": 0.6, "background": 0.4}


WALKED = "four clicks (EXITS)"
REACHED = 0.1  # share of the largest score of its crop from which a pixel is an object's


@dataclass(frozen=True)
class Case:
    """An image with a point on every target, and what is true of it."""

    scene: Scene
    image: Tensor  # [3, H, W] in 0..1
    points: Points

    def things_only(self, owners: Tensor) -> Tensor:
        """[H, W] owners as rows of points, NOBODY where a point of stuff owns."""
        stuff = ~self.points.is_thing[owners.clamp(min=0)]
        return owners.masked_fill(stuff, NOBODY)


def case_of(index: int) -> Case:
    scene = draw(0, "val", index, SIDE)
    image = torch.from_numpy(scene.image).permute(2, 0, 1) / 255
    return Case(scene, image, one_point_each(scene.truth, torch.Generator().manual_seed(0)))


def answers(case: Case) -> dict[str, Tensor]:
    """Name -> [H, W] the row of the point that owns each pixel, stuff left out."""
    return {
        "nearest point": case.things_only(owner(distance_cost(case))),
        "most similar token": case.things_only(owner(token_cost(case))),
        "cheapest path (PSPS)": path_owners(case, PSPS.build(CATEGORIES, "small")),
        "transport (Point2Mask)": path_owners(
            case, Point2Mask.build(CATEGORIES, "small", transport_from=0, solver="converged")
        ),
        "learnt distance (EPLD)": learnt_owners(case),
        "key-points (AttentionShift)": keypoint_owners(case),
        WALKED: walk_owners(case),
    }


def distance_cost(case: Case) -> Tensor:
    """[n, H, W] distance in the image."""
    y, x = torch.meshgrid(torch.arange(SIDE) + 0.5, torch.arange(SIDE) + 0.5, indexing="ij")
    return torch.linalg.vector_norm(torch.stack([x, y]) - case.points.xy[:, :, None, None], dim=1)


@torch.no_grad()
def token_cost(case: Case) -> Tensor:
    """[n, H, W] one minus the cosine with the token under the point, features of the backbone."""
    vit = read_backbone().eval()
    features = vit(case.image[None]).map().float()
    features = F.normalize(features - features.mean((2, 3), keepdim=True), dim=1)[0]
    column, row = (case.points.xy / vit.stride).long().unbind(1)
    cosine = torch.einsum("dn,dhw->nhw", features[:, row, column], features)
    return 1 - F.interpolate(cosine[None], size=(SIDE, SIDE), mode="bilinear")[0]


def path_owners(case: Case, method: PSPS | Point2Mask) -> Tensor:
    """Rows of points from a method's things, on maps made of the truth."""
    maps = maps_of_truth(case.scene.truth, len(CATEGORIES), (SIDE // 4, SIDE // 4))
    things = method.labeller.label_image(maps, case.image, case.points).label.things
    rows = torch.cat([case.points.is_thing.nonzero()[:, 0], torch.tensor([NOBODY])])
    return rows[things]


def learnt_owners(case: Case) -> Tensor:
    """Rows of points by EPLD's sixth round, on features made of the truth."""
    grid, points = (SIDE // 4, SIDE // 4), case.points
    features = features_of_truth(case.scene.truth, case.image, len(CATEGORIES), grid)
    targets = targets_on_grid([points], torch.ones(1, *grid, dtype=torch.bool), (SIDE, SIDE))
    distance = iterated(features, targets, len(CATEGORIES)).estimate.log_prob[-1].exp()
    rows = owner(1 - F.interpolate(distance, size=(SIDE, SIDE), mode="bilinear"), dim=1)[0]
    return case.things_only(table_order(points)[rows])


def table_order(points: Points) -> Tensor:
    """[n] row of the point of each target: things, then stuff. One point a target."""
    return (~points.is_thing).int().argsort(stable=True)


def keypoint_owners(case: Case) -> Tensor:
    """Rows of points from AttentionShift's pseudo masks.

    The smallest mask that holds a pixel wins.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # untrained query tokens take part in the backbone's attention
        method = AttentionShift.build(CATEGORIES, "small", **SHARP).eval()
    batch = Batch(case.image[None], [(SIDE, SIDE)], [0], points=[case.points.things()])
    masks, owners = method.pseudo_labels(batch)[0].masks, torch.full((SIDE, SIDE), NOBODY)
    rows = case.points.is_thing.nonzero()[:, 0]
    for k in masks.flatten(1).sum(1).argsort(descending=True):
        owners[masks[k]] = rows[k]
    return owners


def walk_owners(case: Case) -> Tensor:
    """Rows of points of the things whose walk of three hops has the highest score at a pixel."""
    extractor, maps = shipped_extractor(), []
    rows = case.points.is_thing.nonzero()[:, 0]
    for thing in range(len(rows)):
        walk = walk_of(case.scene, thing, extractor)
        inside = scores(walk.walked(3), "relative") * walk.seeds.inside
        grid = inside.view(1, walk.grid, walk.grid)
        maps.append(paste_crops(grid, walk.view.crops, (SIDE, SIDE))[0])
    things = owner(-torch.stack(maps), tau=-REACHED)
    return torch.where(things == NOBODY, NOBODY, rows[things.clamp(min=0)])


def figure() -> Figure:
    """The points, the answers, the truth, side by side."""
    case = case_of(SHOWN)
    answered = answers(case)
    sheet, axes = figures.multiples(["six points", *answered, "truth"], columns=5, size=1.5)
    figures.show(axes[0], case.scene.image)
    for axis, owners in zip(axes[1:], answered.values()):
        figures.owners(axis, case.scene.image, owners)
    truth = case.scene.truth
    true_owners = torch.full((SIDE, SIDE), NOBODY)
    for k, mask in enumerate(truth.masks):
        true_owners[mask] = k
    figures.owners(axes[-1], case.scene.image, case.things_only(true_owners))
    walked = axes[1 + list(answered).index(WALKED)]
    for axis in axes:
        if axis is not walked:
            figures.points(axis, case.points.xy, size=12)
    clicks = clicked(case.scene).points
    rows = case.points.is_thing.nonzero()[:, 0].repeat_interleave(clicks.shape[1])
    figures.points(walked, clicks.flatten(0, 1), labels=rows.tolist(), size=12)
    return sheet
