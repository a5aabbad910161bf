"""The network of Mask2Former around transformers' model: its losses, predictions and rates."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from transformers import Mask2FormerConfig, Mask2FormerForUniversalSegmentation, SwinConfig

from pointseg.nets.vit import IMAGENET_MEAN, IMAGENET_STD
from pointseg.ops.components import tight_boxes
from pointseg.ops.processes import child, draws_of, normaliser, uniform
from pointseg.structures import Batch, Instances, Prediction, padding_mask

if TYPE_CHECKING:
    from pointseg.students.mask2former import Config, MaskTargets

Sizes = list[tuple[int, int]]  # (h, w) of each image without padding
Answers = list[dict[str, Tensor]]  # of each layer of the decoder, the last one's first
STRIDE = 32  # of the coarsest level: the canvas is a multiple of it, as in the official code
CLASSES, MASKS = "class_queries_logits", "masks_queries_logits"  # [b, q, C + 1], [b, q, h, w]
LOSS_NAMES = {"class": "loss_cross_entropy", "mask": "loss_mask", "dice": "loss_dice"}


class Network(Mask2FormerForUniversalSegmentation):
    """transformers' model as a student."""

    def __init__(self, classes: int, config: Config, weights: Mapping[str, float]):
        super().__init__(described(classes, config, weights))
        self.detections = config.detections
        mean, std = (torch.tensor(v).view(3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
        self.register_buffer("mean", mean, persistent=False)
        self.register_buffer("deviation", std, persistent=False)

    def canvas(self, images: Tensor) -> tuple[int, int]:
        """(H, W) of images [b, 3, h, w] padded to whole cells of the coarsest level."""
        h, w = images.shape[-2:]
        return -(-h // STRIDE) * STRIDE, -(-w // STRIDE) * STRIDE

    def features(self, images: Tensor, sizes: Sizes) -> Answers:
        """Class and mask logits of each layer in float32. Padding has the mean colour and is looked
        at like the rest, as in the official code."""
        h, w = self.canvas(images)
        outside = padding_mask(sizes, images)[:, None]
        pixels = ((images - self.mean) / self.deviation).masked_fill(outside, 0)
        margin = (0, w - images.shape[-1], 0, h - images.shape[-2])
        output = self(F.pad(pixels, margin), output_auxiliary_logits=True)
        last = {name: getattr(output, name) for name in (CLASSES, MASKS)}
        return [{name: logits.float() for name, logits in layer.items()}
                for layer in (last, *output.auxiliary_logits)]  # fmt: skip

    def losses(self, answers: Answers, targets: MaskTargets, batch: Batch) -> dict[str, Tensor]:
        """Of all layers, without weights. transformers' criterion takes one image at a time, so
        that its points come from the image's seed; sums over images are over the counts of the
        world."""
        counts = [min(len(each), self.config.num_queries) for each in targets.label]
        shares = [self.share_of_classes(count) for count in counts]
        objects = normaliser(sum(map(len, targets.label)), batch.images.device)
        queries = normaliser(sum(shares), batch.images.device)
        losses = dict.fromkeys(LOSS_NAMES, batch.images.new_zeros(()))
        for row, draw in enumerate(draws_of(batch)):
            one = self.losses_of(answers, row, targets, draw)
            mine = max(len(targets.label[row]), 1) / objects  # what the criterion divided by
            share = {"class": shares[row] / queries, "mask": mine, "dice": mine}
            losses = {name: losses[name] + share[name] * one[name] for name in losses}
        return losses

    def losses_of(
        self, answers: Answers, row: int, targets: MaskTargets, draw: Tensor
    ) -> dict[str, Tensor]:
        """transformers' losses of one image, summed over the layers."""
        last, *others = [{n: logits[row : row + 1] for n, logits in a.items()} for a in answers]
        known = {"mask_labels": [targets.masks[row].float()], "class_labels": [targets.label[row]]}
        device = targets.label[row].device
        with Drawn(draw), torch.autocast(device.type, enabled=False):
            losses = self.criterion(**last, **known, auxiliary_predictions=others)
        return {name: sum(value for theirs, value in losses.items() if theirs.startswith(start))
                for name, start in LOSS_NAMES.items()}  # fmt: skip

    def share_of_classes(self, objects: int) -> float:
        """Sum of the class weights of an image's queries, by which the criterion divides."""
        return objects + self.config.no_object_weight * (self.config.num_queries - objects)

    @torch.no_grad()
    def predict(self, images: Tensor, sizes: Sizes) -> list[Prediction]:
        """The last layer's answers alone."""
        last, canvas = self.features(images, sizes)[0], self.canvas(images)
        rows = enumerate(zip(last[CLASSES], last[MASKS], sizes))
        return [Prediction(row, instances=instances_of(*each, canvas, self.detections))
                for row, each in rows]  # fmt: skip

    def param_groups(
        self, lr: float, weight_decay: float, beside: Iterable[nn.Parameter] = ()
    ) -> list[dict[str, Any]]:
        """The backbone learns at a tenth; norms, embeddings and tables of positions do not shrink.
        [M2F Sec. 4.1]"""
        groups: dict[tuple[float, float], list[nn.Parameter]] = {}
        for module_name, module in self.named_modules():
            rate = 0.1 if module_name.startswith("model.pixel_level_module.encoder") else 1.0
            for name, parameter in module.named_parameters(recurse=False):
                decay = 0.0 if keeps_its_size(module, name) else weight_decay
                groups.setdefault((rate * lr, decay), []).append(parameter)
        groups.setdefault((lr, weight_decay), []).extend(beside)
        return [{"params": parameters, "lr": rate, "weight_decay": decay}
                for (rate, decay), parameters in groups.items()]  # fmt: skip


def described(classes: int, config: Config, weights: Mapping[str, float]) -> Mask2FormerConfig:
    """Our settings under transformers' names."""
    backbone = SwinConfig(
        embed_dim=config.embed, depths=list(config.depths), num_heads=list(config.heads),
        window_size=config.window, drop_path_rate=config.drop_path,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )  # fmt: skip
    return Mask2FormerConfig(
        backbone_config=backbone, num_labels=classes, num_queries=config.queries,
        feature_size=config.channels, mask_feature_size=config.channels,
        hidden_dim=config.channels, num_attention_heads=config.attention_heads,
        encoder_layers=config.pixel_layers, encoder_feedforward_dim=config.pixel_width,
        decoder_layers=config.decoder_layers + 1,  # transformers counts the queries' own answer
        dim_feedforward=config.decoder_width, train_num_points=config.points,
        class_weight=weights["class"], mask_weight=weights["mask"], dice_weight=weights["dice"],
    )  # fmt: skip


class Drawn(TorchFunctionMode):
    """Inside, `torch.rand` gives the numbers of a seed: the same ones on every device, and whatever
    was drawn before."""

    def __init__(self, draw: Tensor):
        super().__init__()
        self.draw, self.times = draw[None], 0

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function is not torch.rand:
            return function(*args, **(kwargs or {}))
        self.times += 1
        return uniform(child(self.draw, self.times), *args)[0]


def keeps_its_size(module: nn.Module, name: str) -> bool:
    """Whether weight decay leaves a parameter alone."""
    kinds = (nn.LayerNorm, nn.GroupNorm, nn.Embedding)
    return isinstance(module, kinds) or name == "relative_position_bias_table"


def instances_of(
    classes: Tensor, masks: Tensor, size: tuple[int, int], canvas: tuple[int, int], most: int
) -> Instances:
    """The likeliest pairs of a query and a class, best first: logits [q, C + 1] and [q, h, w] of an
    image of a size in its canvas. A score is the class's times the mean over the mask."""
    likely = classes.softmax(-1)[:, :-1]  # the last one is nobody's
    scores, pair = likely.flatten().topk(min(most, likely.numel()))
    query, label = pair // likely.shape[1], pair % likely.shape[1]
    large = F.interpolate(masks[query][None], canvas, mode="bilinear", align_corners=False)[0]
    logits = large[:, : size[0], : size[1]]
    filled = logits > 0
    area = filled.flatten(1).sum(1)
    sure = (logits.sigmoid() * filled).flatten(1).sum(1) / area.clamp(min=1)
    order = (scores * sure).argsort(descending=True, stable=True)
    order = order[area[order] > 0]
    shown = filled[order]
    return Instances(shown, (scores * sure)[order], label[order], tight_boxes(shown)[0])
