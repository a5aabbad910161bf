"""Mask2Former as transformers has it, taught by full masks or by labels: the second stage of EXITS.

[M2F]: Cheng et al., Masked-attention Mask Transformer for Universal Image Segmentation, CVPR 2022.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

from torch import Tensor, nn

from pointseg.papers.method import StudentAlone
from pointseg.structures import Answer, Batch, Category, Classes, InputError, Loss, Training
from pointseg.students.mask_rcnn_full import learnable_truths, padded


@dataclass(frozen=True)
class Config:
    """Defaults are Mask2Former's with a Swin-S. [M2F Sec. 4.1; EXITS Tab. a5]"""

    embed: int = 96  # channels of the backbone's first stage, twice as many in each later one
    depths: tuple[int, ...] = (2, 2, 18, 2)  # blocks of its stages
    heads: tuple[int, ...] = (3, 6, 12, 24)
    window: int = 7
    drop_path: float = 0.3  # UNSTATED [M2F Sec. 4.1]: official code
    channels: int = 256  # of the pixel decoder, the queries and the mask features
    attention_heads: int = 8
    pixel_layers: int = 6
    pixel_width: int = 1024
    decoder_layers: int = 9
    decoder_width: int = 2048
    queries: int = 100
    points: int = 12544  # of each mask that losses look at, 112 x 112
    detections: int = 100


@dataclass(frozen=True)
class MaskTargets:
    """The objects of each image on the canvas that the network sees."""

    masks: list[Tensor]  # [m, H, W] bool each
    label: list[Tensor]  # [m] int64 each


class Mask2Former(StudentAlone):
    """images and masks -> instances. Its network needs the extra `mask2former`."""

    KEY: ClassVar[str] = "M2F"
    TASK: ClassVar[str] = "instances"
    SUPERVISION: ClassVar[str] = "masks"
    CONFIGS: ClassVar[dict[str, Config]] = {
        "paper": Config(),
        "smoke": Config(
            embed=16, depths=(1, 1, 1, 1), heads=(1, 1, 2, 2), window=4, drop_path=0.0, channels=32,
            attention_heads=2, pixel_layers=1, pixel_width=32, decoder_layers=2, decoder_width=32,
            queries=10, points=64, detections=10,
        ),
    }  # fmt: skip
    # [M2F Sec. 4.1]; every layer of the decoder counts. They are the weights of the matching, too
    LOSSES: ClassVar[dict[str, Loss]] = {"class": Loss(2.0), "mask": Loss(5.0), "dice": Loss(5.0)}
    FIRST_STAGE: ClassVar[tuple[str, ...]] = ("student.model.pixel_level_module.encoder",)
    ANSWER: ClassVar[Answer] = Answer("ground truth", "-", "-", "-", "masks", "Mask2Former")
    TRAINING: ClassVar[dict[str, Training]] = {
        "smoke": Training(lr=1e-3, steps=4, batch=2),
        # DEVIATION [M2F Sec. 4.1]: images as all methods have them at scale paper, shorter sides of
        # 480 to 800 pixels, not jittered by 0.1 to 2 and cut to 1024; weights start at random
        # unless a file with the backbone's is what `starts_from` names
        # clip: UNSTATED [M2F Sec. 4.1]: official code
        "paper": Training(
            lr=1e-4, weight_decay=0.05, schedule="step", milestones=(0.9, 0.95), warmup=0.0,
            clip=0.01, epochs=50, batch=16,
        ),
    }  # fmt: skip

    @classmethod
    def build(cls, categories: Sequence[Category], scale: str, **overrides) -> Self:
        if scale not in cls.CONFIGS:
            there = " and ".join(cls.CONFIGS)
            raise InputError(f"mask2former: has no settings for scale {scale}, only for {there}")
        return super().build(categories, scale, **overrides)

    def __init__(self, classes: Classes, config: Config):
        super().__init__()
        self.config, self.classes = config, classes.things
        weights = {name: loss.weight for name, loss in self.LOSSES.items()}
        self.student = network_class()(classes.things, config, weights)

    def targets(self, batch: Batch) -> MaskTargets:
        """Objects that show at least one pixel and are no crowd."""
        truths = learnable_truths(batch, self.classes)
        canvas = self.student.canvas(batch.images)
        return MaskTargets([padded(truth.masks, canvas) for truth in truths],
                           [truth.label for truth in truths])  # fmt: skip


def network_class() -> type[nn.Module]:
    """The network: it stands on transformers, which takes seconds to import and may be absent."""
    try:
        from pointseg.students.mask2former_network import Network
    except ImportError as error:
        cause = f"transformers is absent or of another version ({error})"
        raise InputError(f"mask2former: {cause}; pip install 'pointseg[mask2former]'") from None
    return Network
