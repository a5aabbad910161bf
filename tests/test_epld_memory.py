"""What a training step of EPLD keeps for its backward pass at COCO's size: counted."""

import pytest
import torch

from pointseg.papers.epld.method import EPLD, Evidence
from pointseg.papers.epld.queries import Targets
from pointseg.structures import Batch, Category

IMAGES, TARGETS, CANVAS = 2, 40, (800, 1333)
COCO = [Category(k, f"class {k}", k < 80) for k in range(133)]


def built(**choices):
    return EPLD.build(COCO, "paper", student={"weights": None}, **choices)


def kept_gb(work):
    """(GiB of the storages that autograd keeps, what the work returned)."""
    kept = {}

    def pack(x):
        kept[x.untyped_storage()._cdata] = x.untyped_storage()
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        made = work()
    return sum(storage.nbytes() for storage in kept.values()) / 2**30, made


@pytest.fixture(scope="module")
def encoded():
    """(the method, GiB of its encoder, memory)"""
    with torch.device("meta"):
        method = built()
        network, images = method.student.network, torch.empty(IMAGES, 3, *CANVAS)
        return method, *kept_gb(lambda: network.encode(images))


def branch_gb(memory, targets=TARGETS, layers=6):
    """Of the distance branch and its losses."""
    with torch.device("meta"):
        labeller, grid = built(layers=layers).labeller, memory.shapes[0]
        label, rows = torch.zeros(IMAGES, targets, dtype=torch.int64), (IMAGES, targets)
        points = torch.zeros(*rows, *grid, dtype=torch.bool)
        inside = torch.ones(IMAGES, *grid, dtype=torch.bool)
        table = Targets(label, torch.ones(rows).bool(), torch.ones(rows).bool(), points, inside)
        batch = Batch(torch.empty(IMAGES, 3, *CANVAS), [CANVAS] * IMAGES, [0, 1])

        def work():
            evidence = Evidence(table, labeller.branch(memory, table))
            return labeller.losses(evidence, None, batch)

        return kept_gb(work)[0]


def test_the_distance_branch_keeps_less_than_a_gigabyte_for_forty_targets(encoded):
    assert branch_gb(encoded[2]) < 0.8


def test_it_grows_with_targets_times_layers(encoded):
    """Each layer keeps the same for each target."""
    memory = encoded[2]
    at = lambda n, layers: branch_gb(memory, n, layers)  # noqa: E731
    of_a_target = [(at(n + 20, k) - at(n, k)) / k for n, k in ((20, 6), (40, 6), (20, 3))]
    assert max(of_a_target) == pytest.approx(min(of_a_target), rel=0.02)


def test_a_step_on_two_images_fits_24_gigabytes(encoded):
    """In float32, with gradients and both moments of AdamW."""
    method, encoding, memory = encoded
    network = method.student.network
    with torch.device("meta"):
        looking, outputs = kept_gb(lambda: network(memory))
        chosen = torch.zeros(IMAGES, TARGETS, dtype=torch.int64)
        masks = kept_gb(lambda: network.thing_masks(outputs, chosen))[0]
    weights = 4 * 4 * sum(p.numel() for p in method.parameters()) / 2**30
    assert encoding + branch_gb(memory) + looking + masks + weights < 20
