"""Every method at the size of its paper, on a device that holds shapes and no numbers."""

import pytest
import torch

from pointseg.lab.methods import METHODS, method_class
from pointseg.nets.weights import to_be_replaced
from pointseg.structures import Category

CATEGORIES = [Category(k + 1, f"class {k}", k < 80) for k in range(133)]  # as many as COCO has
IMAGE, SIZE = (1, 3, 800, 1333), [(800, 1333)]
VIT_S, VIT_B = (12 * (12 * width**2 + 13 * width) for width in (384, 768))  # blocks, by hand
RESNET_50 = 25_557_032 - 2_049_000  # of ImageNet, without its classifier


def built(name):
    with torch.device("meta"), to_be_replaced():
        return method_class(name).build(CATEGORIES, "paper")


def size_of(module):
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize("name", ["token_querying", "attentionshift", "mask_rcnn"])
def test_a_vit_s_reads_a_whole_image_in_tokens_of_sixteen(name):
    student = built(name).student
    assert size_of(student.vit.blocks) == VIT_S
    with torch.device("meta"):
        output = student.features(torch.empty(IMAGE), SIZE, trace=False).output
    assert output.grid == (50, 84)


@pytest.mark.parametrize("name", ["mal", "exits"])
def test_a_vit_b_makes_masks_of_a_quarter_of_a_crop_and_has_a_teacher(name):
    auto = built(name).auto
    assert size_of(auto.generator.vit.blocks) == VIT_B
    assert size_of(auto.teacher) == size_of(auto.generator)
    with torch.device("meta"):
        tokens = auto.generator.encoded(torch.empty(2, 3, 512, 512))
        assert auto.generator.decoded(tokens).shape == (2, 128, 128)
    assert tokens.shape == (2, 768, 32, 32)


@pytest.mark.parametrize(
    "name", [name for name in METHODS if method_class(name).TASK == "panoptic"]
)
def test_a_panoptic_method_stands_on_a_resnet_50(name):
    assert size_of(built(name).student.network.backbone) == RESNET_50
