"""Seconds of one image's pseudo label at 600 x 800, and how often it agrees with a full-resolution solve.

One thread, 8 points, 21 classes, synthetic smooth maps. Prints one JSON line. See the cost chapter.
"""

from __future__ import annotations

import json
import time

import torch
import torch.nn.functional as F

from pointseg.methods import point2mask, psps
from pointseg.ops.paths import shortest_paths
from pointseg.ops.point_labels import ImageMaps, semantic_map
from pointseg.ops.semantic_losses import dilated_points
from pointseg.ops.transport import cheapest_supplier, converged_potentials, shares, sinkhorn
from pointseg.structures import Category, Points

SIZE, CLASSES, THINGS, POINTS = (600, 800), 21, 20, 8
ROUNDS = 80


def scene(seed: int) -> tuple[ImageMaps, torch.Tensor, Points]:
    """Blobs of three thing classes on a ground, with a noisy boundary map; 8 points on things, one on the ground."""
    generator = torch.Generator().manual_seed(seed)
    h, w = SIZE[0] // 8, SIZE[1] // 8
    noise = lambda c, g: torch.randn(1, c, h // g + 2, w // g + 2, generator=generator)  # noqa: E731
    smooth = lambda x: F.interpolate(x, size=(h, w), mode="bicubic", align_corners=True)[0]  # noqa: E731
    logits = torch.full((CLASSES, h, w), -4.0)
    logits[[2, 7, 11, 20]] = 3 * smooth(noise(4, 12))
    maps = ImageMaps(logits + 0.2 * smooth(noise(CLASSES, 2)), F.normalize(smooth(noise(128, 16)), dim=0),
                     (2 * smooth(noise(1, 4)) - 2).sigmoid())  # fmt: skip
    owner = logits.argmax(0)
    cells, labels = [], []
    for k in range(POINTS):
        mine = (owner == (2, 7, 11)[k % 3]).flatten().nonzero()[:, 0]
        cells.append(mine[torch.randint(len(mine), (1,), generator=generator)])
        labels.append((2, 7, 11)[k % 3])
    ground = (owner == 20).flatten().nonzero()[:, 0]
    cell = torch.cat([*cells, ground[:1]])
    xy = torch.stack([cell % w, cell // w], -1) * 8.0 + 4
    label = torch.tensor([*labels, 20])
    image = smooth(noise(3, 6))[None].sigmoid()
    image = F.interpolate(image, size=SIZE, mode="bilinear")[0]
    return maps, image, Points(xy, label, torch.arange(POINTS + 1), label < THINGS)


def seconds(call, repeats: int = 5) -> float:
    """Least process time of a call."""
    times = []
    for _ in range(repeats):
        start = time.process_time()
        call()
        times.append(time.process_time() - start)
    return min(times)


def full_resolution(model: point2mask.Point2Mask, maps: ImageMaps, points: Points) -> tuple[torch.Tensor, torch.Tensor]:
    """(owner [H, W], seconds of the solve): costs enlarged first, counted and solved over every pixel."""
    size, things, c = SIZE, points.things(), model.config
    grown = dilated_points([points], (1, *maps.logits.shape[-2:]), c.point_side, size)[0]
    semantic = semantic_map(maps.logits, points, grown, THINGS)
    fine = semantic.enlarged(size)
    coarse = semantic.enlarged((size[0] // c.path_stride, size[1] // c.path_stride))
    grid = coarse.prob.shape[-2:]
    features = F.normalize(point2mask.resized(maps.features, grid), dim=0)
    prices = point2mask.pixel_to_point_cost(coarse.prob, point2mask.resized(maps.boundary, grid), features, c)
    distance, first = point2mask.target_distances(prices, things, size)
    wide, stuff = point2mask.resized(distance, size), fine.stuff()
    likelihood = fine.likelihood(things.label[first])
    before = torch.where(stuff, -1, point2mask.likely_nearest(wide, likelihood))
    centres = point2mask.centroids(before, things, first, size)
    again = point2mask.resized(shortest_paths(prices, point2mask.grid_cells(centres, size, grid)), size)
    units = point2mask.likely_nearest(again, likelihood)[~stuff].bincount(minlength=len(distance)).float()
    cost = wide[:, ~stuff]
    start = time.process_time()
    demand = cost.new_ones(cost.shape[1])
    u = (
        sinkhorn(cost, units, demand, c.epsilon, ROUNDS)
        if c.solver == "sinkhorn"
        else converged_potentials(cost, units, demand)
    )
    return torch.where(stuff, -1, cheapest_supplier(wide, u)), time.process_time() - start


def measured(seeds: range) -> dict[str, float]:
    categories = [Category(k + 1, f"class {k}", k < THINGS) for k in range(CLASSES)]
    out: dict[str, list[float]] = {}
    for seed in seeds:
        maps, image, points = scene(seed)
        weak = psps.PSPS.build(categories, "smoke", path_stride=16, point_side=17.0)
        out.setdefault("psps seconds", []).append(
            seconds(lambda w=weak, m=maps, i=image, p=points: w.label_image(m, i, p))
        )
        for solver in ("sinkhorn", "converged"):
            model = point2mask.Point2Mask.build(categories, "smoke", path_stride=16, point_side=17.0, solver=solver,
                                                transport_from=0)  # fmt: skip
            label = model.label_image(maps, image, points).label.things
            whole, solve = full_resolution(model, maps, points)
            out.setdefault(f"point2mask {solver} seconds", []).append(
                seconds(lambda p2m=model, m=maps, i=image, p=points: p2m.label_image(m, i, p)))  # fmt: skip
            out.setdefault(f"full-resolution {solver} solve seconds", []).append(solve)
            out.setdefault(f"agreement {solver} percent", []).append(100 * float((label == whole).float().mean()))
    return {name: (min if name.startswith("agreement") else max)(values) for name, values in out.items()}


def gap_of_rounds(seed: int, rounds: tuple[int, ...] = (40, 60, 80, 100, 120)) -> dict[str, float]:
    """Largest error of a supply, as a part of all mass, after so many rounds at epsilon 1e-3. [P2M-S Tab. A2]"""
    generator = torch.Generator().manual_seed(seed)
    cost = torch.rand(8, 37 * 50, generator=generator)
    demand = torch.ones(cost.shape[1])
    units = torch.tensor([0.3, 0.2, 0.1, 0.1, 0.1, 0.1, 0.05, 0.05]) * cost.shape[1]
    gaps = {}
    for t in rounds:
        part = shares(cost, sinkhorn(cost, units, demand, 1e-3, t), 1e-3)
        gaps[f"gap after {t} rounds"] = float((part.sum(1) - units).abs().max() / cost.shape[1])
    return gaps


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(json.dumps(measured(range(2)) | gap_of_rounds(0), indent=1))
