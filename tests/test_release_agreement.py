"""Labels beside the releases' own rule, written out again pixel by pixel from facts alone."""

import heapq
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from pointseg.nets.label_heads import ImageMaps
from pointseg.ops.colour import colour_edges
from pointseg.papers import point2mask, psps
from pointseg.structures import Classes, Points
from pointseg.students.panoptic_segformer.network import STUDENTS
from pointseg.students.panoptic_segformer.student import PanopticStudent

THINGS, STUFF, STRIDE, SIDE = 5, 2, 16, 17
SIZES = [
    (150, 203),
    (128, 128),
    (170, 121),
    (200, 152),
    (137, 190),
    (160, 96),
]  # most no whole strides


def hard_map(seed):
    """Smooth, unsure maps at an eighth of the size; things of two classes stand close together."""
    generator = torch.Generator().manual_seed(seed)
    size = SIZES[seed]
    grid = (size[0] // 8, size[1] // 8)

    def smooth(channels):
        noise = torch.randn(1, channels, 7, 8, generator=generator)
        return F.interpolate(noise, size=grid, mode="bicubic")[0]

    extent = torch.tensor([size[1], size[0]])
    xy = ((0.12 + 0.76 * torch.rand(6, 2, generator=generator)) * extent).floor() + 0.5
    xy = torch.cat([xy, torch.tensor([[4.5, 4.5]])])
    label = torch.tensor([0, 0, 0, 1, 1, 1, THINGS])
    points = Points(xy, label, torch.arange(7), label < THINGS)
    logits = 2 * smooth(THINGS + STUFF)
    rows, columns = torch.arange(grid[0])[:, None] + 0.5, torch.arange(grid[1]) + 0.5
    for at, one in zip(xy / 8, label):
        far = (columns - at[0]) ** 2 + (rows - at[1]) ** 2
        logits[one] += 5 * (-far / 18).exp()
    maps = ImageMaps(logits, F.normalize(smooth(16), dim=0), (2 * smooth(1) - 1).sigmoid())
    image = F.interpolate(torch.rand(1, 3, 9, 9, generator=generator), size=size, mode="bicubic")[0]
    return maps, image.clamp(0, 1), points


def enlarged(planes, size):
    return F.interpolate(planes[None].double(), size=size, mode="bilinear")[0].numpy()


def released_semantics(maps, points, size):
    """[C, H, W] softmax at full size of the classes with a point, squares of 17 set to 1."""
    prob = (
        F.interpolate(maps.logits[None].double(), size=size, mode="bilinear")[0].softmax(0).numpy()
    )
    present = np.isin(np.arange(len(prob)), points.label.numpy())
    prob = prob * present[:, None, None]
    for (x, y), c in zip(points.xy.long().tolist(), points.label.tolist()):
        prob[
            c, max(0, y - SIDE // 2) : y + SIDE // 2 + 1, max(0, x - SIDE // 2) : x + SIDE // 2 + 1
        ] = 1
    return prob


def cheapest(price, grid, start):
    """[h, w] by a heap of plain numbers; price(p, q) of a step between neighbours."""
    length, heap = np.full(grid, np.inf), [(0.0, start)]
    length[start] = 0
    while heap:
        far, (r, c) = heapq.heappop(heap)
        if far > length[r, c]:
            continue
        for q in [(r + dr, c + dc) for dr in (-1, 0, 1) for dc in (-1, 0, 1) if dr or dc]:
            if 0 <= q[0] < grid[0] and 0 <= q[1] < grid[1]:
                there = far + price((r, c), q)
                if there < length[q]:
                    length[q] = there
                    heapq.heappush(heap, (there, q))
    return length


def released(paper, maps, image, points, transport):
    """[H, W] thing of each pixel, -1 for stuff: the rule of the papers' official codes."""
    size = tuple(image.shape[-2:])
    grid = (size[0] // STRIDE, size[1] // STRIDE)
    fine = released_semantics(maps, points, size)
    coarse = enlarged(torch.from_numpy(fine), grid)
    feature = enlarged(maps.features, grid)
    feature /= np.linalg.norm(feature, axis=0)
    if paper is psps:
        edge = colour_edges(image, grid).double().numpy()
        hard = lambda p, q: edge[q]  # noqa: E731
    else:
        edge = enlarged(maps.boundary, grid)[0]
        hard = lambda p, q: max(edge[p], edge[q])  # noqa: E731

    def price(p, q):
        turn = max(0.0, 1 - float(feature[:, p[0], p[1]] @ feature[:, q[0], q[1]]))
        change = np.abs(coarse[:, p[0], p[1]] - coarse[:, q[0], q[1]]).sum()
        return change + 0.1 * hard(p, q) + 0.1 * turn

    def distances(xy):
        starts = [
            (min(int(y / STRIDE), grid[0] - 1), min(int(x / STRIDE), grid[1] - 1)) for x, y in xy
        ]
        return enlarged(torch.tensor(np.stack([cheapest(price, grid, s) for s in starts])), size)

    things = points.things()
    xy, label = things.xy.tolist(), things.label.numpy()
    stuff = fine.argmax(0) >= THINGS
    likelihood = fine[label] + fine[THINGS:].sum(0)
    distance = distances(xy)
    first = ((1 - distance / distance.max()) * likelihood).argmax(0)
    if paper is psps:
        return np.where(stuff, -1, first)
    if not transport:
        return np.where(stuff, -1, distance.argmin(0))
    centres = [centre(np.where(stuff, -1, first) == k, point) for k, point in enumerate(xy)]
    again = distances(centres)
    second = np.where(stuff, -1, ((1 - again / again.max()) * likelihood).argmax(0))
    units = np.array([(second == k).sum() for k in range(len(xy))], float)
    return np.where(stuff, -1, plan_rows(distance, units, (~stuff).astype(float)))


def centre(mask, point):
    """(x, y) of a mask's centre of mass where it and the point lie in the mask, else the point."""
    x, y = (int(v) for v in point)
    if not mask.any() or not mask[y, x]:
        return point
    rows, columns = np.nonzero(mask)
    middle = (columns.mean(), rows.mean())
    return middle if mask[int(middle[1]), int(middle[0])] else point


def plan_rows(cost, units, demand, epsilon=1e-3, rounds=80):
    """[H, W] row of the largest entry of the plan after the rounds, all pixels taking part."""
    flat, wanted = cost.reshape(len(cost), -1), np.log(demand.ravel() + 1e-8)
    u, v, supply = np.ones(len(cost)), np.ones(flat.shape[1]), np.log(units + 1e-8)
    for _ in range(rounds):
        v = v + epsilon * (wanted - np.logaddexp.reduce((u[:, None] + v - flat) / epsilon, axis=0))
        u = u + epsilon * (supply - np.logaddexp.reduce((u[:, None] + v - flat) / epsilon, axis=1))
    return (u[:, None] + v - flat).argmax(0).reshape(cost.shape[1:])


def ours(paper, maps, image, points, transport, pieces):
    given = {"student": STUDENTS["smoke"], "start_cell": "share", "semantic_size": "map"} | pieces
    config = replace(paper.Config(), **given)
    labeller = paper.Labeller(PanopticStudent(Classes(THINGS, STUFF), config.student), config)
    if transport:
        labeller.step.fill_(config.transport_from)
    return labeller.label_image(maps, image, points).label.things.numpy()


PIECES = {"start_cell": "stride", "semantic_size": "image"}


def agreement(paper, transport, pieces):
    """[6] share of pixels on which we and the release agree, per map."""
    rows = [hard_map(seed) for seed in range(len(SIZES))]
    return [float((ours(paper, *row, transport, pieces) == released(paper, *row, transport)).mean())
            for row in rows]  # fmt: skip


CASES = [(psps, False), (point2mask, False), (point2mask, True)]


@pytest.mark.parametrize("paper, transport", CASES)
def test_with_both_pieces_the_labels_are_the_releases(paper, transport):
    """What is left in transport: units and plan on a coarser grid than the pixels'."""
    assert min(agreement(paper, transport, PIECES)) > (0.965 if transport else 0.9985)


def test_without_either_piece_they_are_not():
    both = np.mean(agreement(psps, False, PIECES))
    for piece, rule in PIECES.items():
        assert np.mean(agreement(psps, False, {piece: rule})) < both - 0.02


if __name__ == "__main__":  # the numbers of the chapters
    for paper, transport in CASES:
        for pieces in ({}, PIECES):
            shares = [f"{100 * share:.2f}" for share in agreement(paper, transport, pieces)]
            print(paper.__name__, "transport" if transport else "nearest", pieces, *shares)
