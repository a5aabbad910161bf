"""The extractor's warm-up: the stage before EXITS. [EXITS Sec. E]"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from pointseg.ops.box_losses import mil_loss
from pointseg.ops.extreme_points import EXTREME
from pointseg.ops.parameter_groups import decay_groups
from pointseg.papers.exits.extractor import Extractor
from pointseg.papers.exits.losses import point_loss
from pointseg.papers.exits.method import CONFIGS, Config
from pointseg.papers.exits.retrieval import Retrieved
from pointseg.papers.method import Configured, weighted
from pointseg.structures import Batch, Classes, Loss, Training
from pointseg.students.mask_generator import mean_over_world, on_crops, training_crops


class SimilarityWarmup(Configured):
    """The extractor's warm-up: its tokens learn to tell seeds from what lies outside the box.

    UNSTATED [EXITS Sec. E]: the text says that warm-up sharpens foreground against background, not
    from what. Crops and clicks are all that a class-agnostic method has.
    """

    KEY: ClassVar[str] = "EXITS"
    TASK: ClassVar[str] = "instances"
    SUPERVISION: ClassVar[str] = "points"
    SCORES: ClassVar[tuple[str, ...]] = ()
    FIRST_STAGE: ClassVar[tuple[str, ...]] = ("extractor",)
    POINTS: ClassVar[Mapping[str, Any]] = EXTREME
    CONFIGS: ClassVar[dict[str, Config]] = CONFIGS
    TRAINING: ClassVar[dict[str, Training]] = {
        "smoke": Training(lr=1e-3, steps=4, batch=2),
        "small": Training(lr=5e-4, steps=300, batch=12),
        "photos": Training(lr=5e-4, steps=500, batch=12),
        # epochs: [EXITS Tab. a3]; UNSTATED [EXITS Sec. E]: the rest, as the generator's
        "paper": Training(lr=4.8e-5, weight_decay=5e-4, betas=(0.9, 0.9), epochs=8, batch=32),
    }
    LOSSES: ClassVar[Mapping[str, Loss]] = {"seed": Loss(1.0), "mil": Loss(1.0)}

    def __init__(self, classes: Classes, config: Config):
        """`classes` play no part, as in EXITS."""
        super().__init__()
        self.config = config
        self.extractor = Extractor(config.walk, config.generator.side)
        self.classifier = nn.Linear(self.extractor.vit.dim, 1)

    def losses(self, batch: Batch, step: int) -> dict[str, Tensor]:
        view, grid = training_crops(batch, self.config.generator), self.extractor.grid
        prob, seeds = on_crops(self.prob, view.pixels), self.extractor.seeds(view)
        nothing = torch.zeros_like(seeds.inside)
        terms = {
            "seed": point_loss(prob, seeds, Retrieved(nothing, nothing)),
            "mil": mil_loss(prob.unflatten(1, (grid, grid)), view.crops.box_map(grid)),
        }
        return weighted({k: mean_over_world(v) for k, v in terms.items()}, self.LOSSES)

    def prob(self, pixels: Tensor) -> Tensor:
        """[n, N] foreground probability of each token."""
        return self.classifier(self.extractor.vit(pixels).tokens.float()).sigmoid()[..., 0]

    def param_groups(self, lr: float, weight_decay: float) -> list[dict]:
        return decay_groups(self.parameters(), lr, weight_decay)
