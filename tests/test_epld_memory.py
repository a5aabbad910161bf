"""What a training step of EPLD keeps for its backward pass at COCO's size: counted, not computed."""

import pytest
import torch

from pointseg.papers.epld.branch import DistanceBranch
from pointseg.papers.epld.method import Config, Distance, Evidence
from pointseg.papers.epld.queries import Targets
from pointseg.structures import Batch
from pointseg.students.panoptic_segformer.network import PanopticSegFormer, architecture_of

IMAGES, TARGETS, CANVAS = 2, 40, (800, 1333)
PAPER, CLASSES = architecture_of("paper"), 133


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
    with torch.device("meta"):
        student = PanopticSegFormer(80, 53, PAPER)
        gb, memory = kept_gb(lambda: student.encode(torch.empty(IMAGES, 3, *CANVAS)))
    return student, gb, memory


def branch_gb(memory, targets=TARGETS, layers=6):
    """Of the distance branch and its losses."""
    with torch.device("meta"):
        config = Config(layers=layers)
        branch = DistanceBranch(PAPER.width, PAPER.heads, CLASSES, False, config)
        labeller, grid = Distance(branch, 80, config), memory.shapes[0]
        label, rows = torch.zeros(IMAGES, targets, dtype=torch.int64), (IMAGES, targets)
        points = torch.zeros(*rows, *grid, dtype=torch.bool)
        inside = torch.ones(IMAGES, *grid, dtype=torch.bool)
        table = Targets(label, torch.ones(rows).bool(), torch.ones(rows).bool(), points, inside)
        batch = Batch(torch.empty(IMAGES, 3, *CANVAS), [CANVAS] * IMAGES, [0, 1])
        work = lambda: labeller.losses(Evidence(table, branch(memory, table)), None, batch)  # noqa: E731
        return kept_gb(work)[0]


def test_the_distance_branch_keeps_two_gigabytes_for_forty_targets(encoded):
    assert branch_gb(encoded[2]) < 2.2


def test_it_grows_with_targets_times_layers(encoded):
    """Each layer keeps the same for each target; what is left are its keys."""
    memory = encoded[2]
    at = lambda n, layers: branch_gb(memory, n, layers)  # noqa: E731
    of_a_target = [(at(n + 20, k) - at(n, k)) / k for n, k in ((20, 6), (40, 6), (20, 3))]
    assert max(of_a_target) == pytest.approx(min(of_a_target), rel=0.02)


def test_a_step_on_two_images_fits_24_gigabytes(encoded):
    """In float32, with gradients and both moments of AdamW."""
    student, encoding, memory = encoded
    with torch.device("meta"):
        looking, seen = kept_gb(lambda: student(memory))
        chosen = torch.zeros(IMAGES, TARGETS, dtype=torch.int64)
        masks = kept_gb(lambda: student.thing_masks(seen, chosen))[0]
    weights = 4 * 4 * sum(p.numel() for p in student.parameters()) / 2**30
    assert encoding + branch_gb(memory) + looking + masks + weights < 21
