"""Every switch of AttentionShift's tables; the defaults are the paper's full method."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

from pointseg.nets.timm_backbone import IMAGENET, IMAGENET_NETWORK
from pointseg.students.mask_rcnn import CONFIGS as STUDENTS
from pointseg.students.mask_rcnn import MaskRCNNConfig


def with_queries(student: MaskRCNNConfig, queries: int) -> MaskRCNNConfig:
    return replace(student, backbone=replace(student.backbone, queries=queries))


@dataclass(frozen=True)
class Config:
    """Of labeller and student. "official code" names a value or a rule that the paper lacks."""

    student: MaskRCNNConfig = field(
        default_factory=lambda: with_queries(STUDENTS["paper"], 100)  # [AS Sec. 5.1]
    )
    # DEVIATION [AS Sec. 3.1]: "frozen" compares features of a pretrained network, see frozen.py
    features: Literal["vit", "frozen"] = "vit"
    frozen_network: str = IMAGENET_NETWORK
    frozen_weights: str | None = IMAGENET  # or "timm", a file, None
    # token querying
    depths: int = 7  # UNSTATED [AS Sec. 3.1]: roll-outs offered to the MIL head, official code
    depth: int | None = None  # None: the MIL head chooses (official code); d: always d + 1 blocks
    attention: Literal["rollout", "point"] = "rollout"  # "point": cosine with the labelled token
    place_weight: float = 10.0  # UNSTATED [AS Sec. 3.1]: of the L1 in matching, official code
    warmup: bool = False  # DEVIATION [AS Sec. 3.1]: two losses of token classes
    centred: bool = False  # DEVIATION [AS Eq. 1]: features less their mean over the image
    # instance attention map
    instance_map: Literal["released", "printed", "none"] = "released"  # "none": A^S [AS Tab. 3]
    foreground: float = 0.2  # UNSTATED [AS Sec. 3.1]: official code
    background: float = 0.1  # UNSTATED [AS Sec. 3.1]: official code
    refine_rounds: int = 0  # not in the paper; 2 in the official code
    refine_share: float = 0.9  # official code
    compete: bool = False  # not in the paper; instances compete for tokens in the official code
    # key-point shift
    shift: bool = True  # [AS Tab. 3]
    keypoints: int = 20  # UNSTATED [AS Sec. 3.2]: K of the official code
    iterations: int = 10  # [AS Sec. 3.2], [AS Tab. 4]
    drawn_by: Literal["foreground", "box"] = "foreground"  # [AS Eq. 3]; "box": official code
    alpha: float = 1.0  # [AS Tab. 4]
    owner: Literal["share", "cosine", "softmax"] = "share"  # [AS Eq. 2]; "softmax": official code
    bandwidth_floor: float = 1e-10  # UNSTATED [AS Eq. 6]: official code
    seed_threshold: float = 0.35  # UNSTATED [AS Sec. 3.2]: "high confidence area", official code
    # key-point filtering
    filtering: bool = True  # [AS Tab. 3]
    filter_threshold: float = 0.85  # T_f [AS Tab. 5]
    merge_threshold: float = 0.85  # T_m [AS Tab. 5]
    keypoints_as_points: bool = False  # DEVIATION [AS Sec. 3.2]: off in the official config
    # pseudo boxes
    box_threshold: float = 0.35  # UNSTATED [AS Sec. 4]: official code's level for a high map
    box_rule: Literal["tight", "centre"] = "tight"  # "centre": official code, for centre points
    # masks
    background_points: int = 10  # UNSTATED [AS Sec. 4]: official code draws 10 pixels a box
    background_rule: Literal["low", "released"] = "low"  # [AS Sec. 4]; "released": official code
    background_level: float = 0.1  # UNSTATED [AS Sec. 4]: A^I below this is background
    background_share: float = 0.8  # official code: of the largest value of its map in the box


CONFIGS = {
    "paper": Config(),
    # DEVIATION [AS Sec. 5.1]: a small ViT with a convolutional stem, light heads and a warm-up from
    # the points' own classes; few images teach a plain ViT-S nothing that key-points could live on
    "small": Config(student=STUDENTS["small"], depths=4, warmup=True),
    # a likeness is high on more of an image than an attention is
    "photos": Config(student=STUDENTS["photos"], features="frozen", foreground=0.6, background=0.4),
    "smoke": Config(student=STUDENTS["smoke"], warmup=True, keypoints=6, iterations=3),
}
