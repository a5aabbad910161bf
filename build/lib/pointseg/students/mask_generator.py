"""The mask generator: a class-agnostic network that turns the crop around one object into its mask.

Network, what it can be taught by a box and by colours, and its masks. MAL is this and a table of
losses; EXITS adds points.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pointseg.nets.mask_heads import ConvStem, MaskHeads
from pointseg.nets.start import starting_backbone
from pointseg.nets.vit import ViTConfig
from pointseg.ops.box_losses import dice_loss, mil_loss
from pointseg.ops.crops import (
    Crops,
    crop_images,
    crops_of,
    fixed_margins,
    paste_crops,
    random_margins,
)
from pointseg.ops.extreme_points import ClickedObjects, clicked_objects
from pointseg.ops.mean_field import mean_field
from pointseg.ops.parameter_groups import decay_groups
from pointseg.ops.processes import child, draws_of, uniform, world_mean
from pointseg.structures import Batch, Instances

LABEL_PROPERTIES = ("boxes hold their points", "labels use only the points' classes",
                    "masks lie in their boxes")  # fmt: skip


@dataclass(frozen=True)
class GeneratorConfig:
    """Sizes and habits; the defaults are the papers'."""

    vit: ViTConfig = field(default_factory=partial(ViTConfig, "vit_base_patch16_224"))  # [MAL]
    weights: str | None = None  # "shipped", a file, or none; the paper starts from an MAE [MAL]
    conv_stem: bool = True  # UNSTATED [EXITS Sec. A]: MAL's release; see ConvStem
    inner: int = 256  # channels of the heads [EXITS Sec. A]
    upscale_after: int = 2  # [EXITS Sec. A]; 3 is UNSTATED [MAL]: the release
    side: int = 512  # pixels of a crop [EXITS Sec. B]
    smallest_area: int = 2048  # of a box that is trained on; UNSTATED [MAL]: the release
    crops_per_image: int | None = None  # None: all of an image's objects
    zeta: float = 0.1  # UNSTATED [MAL]: the release, in units of ImageNet's deviations
    rounds: int = 100  # of mean field; UNSTATED [MAL]: the release
    momentum: float = 0.996  # of the teacher; UNSTATED [MAL]: the release
    level: float = 0.1  # from which a pixel belongs to a mask; UNSTATED [MAL]: the release


# DEVIATION [MAL]: small crops and a small ViT that saw Bestiary; a step takes two objects an image
SMALL = GeneratorConfig(
    vit=ViTConfig("small"), weights="shipped", conv_stem=False, inner=64, side=96,
    smallest_area=64, crops_per_image=2, rounds=30, momentum=0.98, level=0.5,
)  # fmt: skip
PHOTOS = replace(SMALL, weights=None)  # what Bestiary teaches is of no use to photographs
SMOKE = GeneratorConfig(
    vit=ViTConfig("small", dim=32, depth=2, heads=2, image_size=32), conv_stem=False, inner=8,
    side=32, smallest_area=4, crops_per_image=2, rounds=3, momentum=0.98, level=0.3,
)  # fmt: skip


class MaskGenerator(nn.Module):
    """Crops [n, 3, s, s] in 0..1 -> mask logits. It has to be told where the object is."""

    def __init__(self, config: GeneratorConfig):
        super().__init__()
        self.vit = starting_backbone(config.vit, config.weights)
        if config.conv_stem:
            self.vit.body.patch_embed.proj = ConvStem(self.vit.dim)
        self.heads = MaskHeads(self.vit.dim, config.inner, config.upscale_after)

    def forward(self, crops: Tensor) -> Tensor:
        """[n, m, m] logits on a grid four times as fine as the tokens. [EXITS Sec. A]"""
        logits = self.heads(self.vit(crops).map()).float()
        return F.interpolate(logits[:, None], scale_factor=2, mode="bilinear")[:, 0]


@dataclass(frozen=True)
class ObjectCrops:
    """What a batch shows of its objects in n crops."""

    everyone: ClickedObjects  # all that were clicked
    objects: ClickedObjects  # the n among them that have crops
    crops: Crops
    pixels: Tensor  # [n, 3, s, s] in 0..1


@dataclass(frozen=True)
class View(ObjectCrops):
    """Crops, and what student and teacher make of them."""

    prob: Tensor  # [n, m, m] the student's
    mean_prob: Tensor  # [n, m, m] mean of the student's and the teacher's, without gradient
    box: Tensor  # [n, m, m] bool


class Autolabeller(nn.Module):
    """A generator, and the teacher that is the average of its weights over the steps."""

    def __init__(self, config: GeneratorConfig):
        super().__init__()
        self.config, self.generator = config, MaskGenerator(config)
        # DEVIATION [MAL]: the release's teacher starts from weights of its own
        self.teacher = copy.deepcopy(self.generator).requires_grad_(False)

    @torch.no_grad()
    def follow(self) -> None:
        """Moves the teacher's weights toward the generator's."""
        for old, new in zip(self.teacher.parameters(), self.generator.parameters()):
            old.lerp_(new.to(old.dtype), 1 - self.config.momentum)

    def view(self, batch: Batch) -> View:
        """Crops of a training step, and their masks so far."""
        shown = training_crops(batch, self.config)
        prob = on_crops(self.generator, shown.pixels).sigmoid()
        with torch.no_grad():
            mean_prob = (prob + on_crops(self.teacher, shown.pixels).sigmoid()) / 2
        return View(**vars(shown), prob=prob, mean_prob=mean_prob,
                    box=shown.crops.box_map(prob.shape[-1]))  # fmt: skip

    def box_loss(self, view: View) -> Tensor:
        """[n] what the box says of each crop's mask."""
        return mil_loss(view.prob, view.box)

    def colour_loss(self, view: View) -> Tensor:
        """[n] Dice with what neighbours of like colour agree on; no gradient flows there. [MAL]"""
        small = F.adaptive_avg_pool2d(view.pixels, view.prob.shape[-1]) / self.generator.vit.std
        agreed = mean_field(view.mean_prob, small, view.box, self.config.zeta, self.config.rounds)
        return dice_loss(view.prob, agreed)

    @torch.no_grad()
    def masks(self, batch: Batch) -> list[Instances]:
        """Masks of the clicked objects of each image, by the generator alone. [EXITS Sec. F]"""
        objects, c = clicked_objects(batch), self.config
        crops = crops_of(objects.box, objects.image, fixed_margins(objects.box), c.side)
        pixels = crop_images(crops, batch.images, batch.sizes)
        logits = on_crops(self.generator, pixels)
        prob = logits.sigmoid() * crops.box_map(logits.shape[-1])
        masks = paste_crops(prob, crops, tuple(batch.images.shape[-2:])) >= c.level
        columns = (t.split(objects.counts) for t in (masks, objects.label, objects.box))
        return [
            Instances(mask[:, :h, :w], torch.ones(len(mask), device=mask.device), label, box)
            for mask, label, box, (h, w) in zip(*columns, batch.sizes)
        ]

    def param_groups(self, lr: float, weight_decay: float) -> list[dict]:
        """The generator's; the teacher learns from nobody."""
        return decay_groups(self.generator.parameters(), lr, weight_decay)


def training_crops(batch: Batch, config: GeneratorConfig) -> ObjectCrops:
    """Crops of a training step, drawn by the seeds of the batch's rows."""
    everyone = clicked_objects(batch)
    objects = chosen_objects(everyone, batch, config)
    margins = random_margins(uniform(child(object_draws(objects, batch), 1), 6))
    crops = crops_of(objects.box, objects.image, margins, config.side)
    return ObjectCrops(everyone, objects, crops, crop_images(crops, batch.images, batch.sizes))


def on_crops(network: Callable[[Tensor], Tensor], crops: Tensor) -> Tensor:
    """What a network makes of n crops; where there is none, a blank one keeps shapes and graph."""
    shown = crops if len(crops) else crops.new_zeros(1, *crops.shape[1:])
    return network(shown)[: len(crops)]


def chosen_objects(
    objects: ClickedObjects, batch: Batch, config: GeneratorConfig
) -> ClickedObjects:
    """Objects with boxes large enough, at most `crops_per_image` an image, drawn by its seed."""
    span = objects.box[:, 2:] - objects.box[:, :2]
    chance = uniform(object_draws(objects, batch), 1)[:, 0]
    chance = chance.masked_fill(span.prod(1) <= config.smallest_area, torch.inf)
    rank = rank_in_image(chance, objects.image)
    chosen = chance.isfinite() & (rank < (config.crops_per_image or len(objects)))
    return objects.pick(chosen.nonzero()[:, 0])


def object_draws(objects: ClickedObjects, batch: Batch) -> Tensor:
    """[n] int64: a seed an object, from its image's seed and its own target number."""
    return child(draws_of(batch)[objects.image], objects.target)


def rank_in_image(values: Tensor, image: Tensor) -> Tensor:
    """[n] number of objects of the same image with a smaller value, or the same one and before."""
    smaller = values[None] < values[:, None]
    before = (values[None] == values[:, None]).tril(-1)
    return ((smaller | before) & (image[None] == image[:, None])).sum(1)


def mean_over_world(values: Tensor) -> Tensor:
    """Mean of values [n] over the objects of all processes; 0 where there is none."""
    return values.sum() / world_mean(values.new_tensor(float(len(values)))).clamp(min=1e-9)
