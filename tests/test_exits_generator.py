"""The generator's heads: Eq. a1 by hand, and parameter counts that equal the paper's."""

import timm
import torch
from torch import nn

from pointseg.nets.mask_heads import ConvStem, MaskHeads


def count(module):
    return sum(p.numel() for p in module.parameters())


def test_a_logit_is_the_inner_product_of_pixel_and_prototype():
    """[EXITS Eq. a1] one pixel at a time."""
    heads, features = MaskHeads(6, 4).double(), torch.rand(2, 6, 3, 5).double()
    logits, pixels = heads(features), heads.pixels(features)
    prototype = heads.prototype(features.mean((2, 3)))
    assert logits.shape == (2, 6, 10)
    for n, y, x in ((0, 0, 0), (1, 5, 9), (1, 2, 7)):
        assert torch.allclose(logits[n, y, x], pixels[n, :, y, x] @ prototype[n])


def test_the_place_of_the_upscaling_is_a_choice_without_parameters():
    two, three = MaskHeads(6, 4, 2), MaskHeads(6, 4, 3)
    three.load_state_dict(two.state_dict())
    features = torch.rand(1, 6, 4, 4)
    assert two(features).shape == three(features).shape
    assert not torch.allclose(two(features), three(features))


def test_the_stem_makes_patches_of_sixteen():
    assert ConvStem(16)(torch.rand(1, 3, 64, 32)).shape == (1, 16, 4, 2)


def test_parameters_at_paper_size_are_the_papers():
    """Generator 93 M, extractor 86 M [EXITS Tab. a5], counted without a weight in memory."""
    with torch.device("meta"):
        extractor = timm.create_model("vit_base_patch16_224", num_classes=0)
        linear = count(extractor.patch_embed)
        generator = nn.ModuleList([extractor, ConvStem(768), MaskHeads(768, 256)])
    assert count(extractor) == 85_798_656
    assert count(generator) - linear == 93_090_400
