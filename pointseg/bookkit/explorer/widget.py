"""The explorer in JupyterLab: the same module with a kernel behind it, any ViT, any picture."""

from __future__ import annotations

import base64
import binascii
import io
import math
from functools import partial
from pathlib import Path
from typing import Any

import anywidget
import numpy as np
import torch
import traitlets
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from pointseg.bookkit.explorer.bundle import make_bundle, run
from pointseg.bookkit.explorer.module import module_text, style_text
from pointseg.bookkit.explorer.state import STATE
from pointseg.data.images import FORMATS, read_image
from pointseg.data.point_file import MANUAL, ImagePoints, PointFile, write_points
from pointseg.lab.models import load_model
from pointseg.nets.attention import attention_rows, rollout_rows
from pointseg.nets.vit import TokenViT
from pointseg.nets.weights import SHIPPED, load_backbone, read_backbone
from pointseg.structures import Category, InputError, Points, Truth

# Pixels; larger pictures are shrunk, or their tokens would be too many to move by hand.
LARGEST_SIDE = 512
# Numbers of queries and keys that a message may hold; above, maps are asked for point by point.
MOST_SENT = 800_000


def _limit(value: float, _widget: Any) -> float | None:
    return None if math.isinf(value) else value  # JSON knows no infinity


def _unlimited(value: float | None, _widget: Any) -> float:
    return math.inf if value is None else value


# What a reader sets, beside the picture and the point.
SETTINGS = {
    **dict.fromkeys(("layer", "head", "depth", "keypoints", "rounds", "step"), traitlets.Int),
    **dict.fromkeys(
        ("foreground", "background", "seed_threshold", "box_threshold", "filter_threshold",
         "merge_threshold", "opacity"), traitlets.Float,
    ),
    **dict.fromkeys(("show_paths", "show_box", "show_truth"), traitlets.Bool),
    "stage": traitlets.Unicode,
    "map_kind": partial(traitlets.Enum, ["rollout", "attention", "similarity"]),
    "instance_map": partial(traitlets.Enum, ["released", "printed", "none"]),
}  # fmt: skip
Settings = type(
    "Settings",
    (anywidget.AnyWidget,),
    {name: kind(STATE[name]).tag(sync=True) for name, kind in SETTINGS.items()},
)


class KeyPointExplorer(Settings):
    """Click a point, move what follows. Every setting and every answer is a trait.

    `images`: paths or arrays uint8 [h, w, 3]; `truths`: what is true of them, where known.
    """

    _esm = module_text()
    _css = style_text()

    picture = traitlets.Int(STATE["picture"]).tag(sync=True)
    point = traitlets.List(traitlets.Float(), STATE["point"], minlen=2, maxlen=2).tag(sync=True)
    alpha = traitlets.Float(STATE["alpha"]).tag(sync=True, to_json=_limit, from_json=_unlimited)

    # answers, written by the page
    key_points = traitlets.List().tag(sync=True)  # [[x, y], ...] after filtering and merging
    box = traitlets.List().tag(sync=True)  # [x0, y0, x1, y1]
    mask = traitlets.List().tag(sync=True)  # one number 0 or 1 a token, row by row
    score = traitlets.Dict().tag(sync=True)  # object, iou, part_recall
    kept = traitlets.List().tag(sync=True)  # by the reader: {"picture", "point", "name"}

    # what the page needs to know
    entries = traitlets.List().tag(sync=True)
    presets = traitlets.List().tag(sync=True)
    bundle = traitlets.Dict().tag(sync=True)
    upload = traitlets.Unicode().tag(sync=True)
    links = traitlets.Bool(False).tag(sync=True)
    preset = traitlets.Unicode().tag(sync=True)

    def __init__(
        self,
        images: list[str | Path | np.ndarray],
        backbone: TokenViT | str | Path = SHIPPED,
        truths: list[Truth] | None = None,
        categories: tuple[Category, ...] = (),
        **settings: Any,
    ):
        self.vit = _network(backbone)
        self.categories = tuple(categories)
        whole = [_readable(each) for each in images]
        self.sizes = [each.shape[:2] for each in whole]  # before they were shrunk
        self.names = [each.name if (each := _path(p)) else None for p in images]
        self.images = [_shrunk(Image.fromarray(each)) for each in whole]
        self.truths: list[Truth | None] = list(truths or [None] * len(self.images))
        titles = [
            each.stem if (each := _path(p)) else f"picture {i + 1}" for i, p in enumerate(images)
        ]
        entries = [_entry(*pair) for pair in zip(titles, self.images)]
        settings = {"point": entries[0]["start"]} | settings
        super().__init__(entries=entries, bundle=self._bundle(0, titles[0]), **settings)
        self.observe(self._open, "picture")
        self.observe(self._take_upload, "upload")
        self.on_msg(self._send_rows)

    @property
    def mask_array(self) -> np.ndarray:
        """[h, w] bool over the token grid."""
        return np.array(self.mask, dtype=bool).reshape(self.bundle["grid"])

    def save_points(self, path: str | Path) -> None:
        """The kept points as a points file, in the pixels of the image files and under their names;
        a name that no category has starts a new one."""
        names = [c.name for c in self.categories]
        names += sorted({each["name"] or "object" for each in self.kept} - set(names))
        new = [Category(i, name) for i, name in enumerate(names, 1)][len(self.categories) :]
        categories = (*self.categories, *new)
        if not self.kept:
            raise InputError(f"{path}: no point is kept yet")
        images = {}
        for row in sorted({each["picture"] for each in self.kept}):
            name = self.names[row] or self.entries[row]["title"]
            images[name] = self._points_of(row, names, categories)
        write_points(path, PointFile(MANUAL, 1, None, None, categories, images))

    def _points_of(self, row: int, names: list[str], categories: tuple) -> ImagePoints:
        (h, w), image = self.sizes[row], self.images[row]
        mine = [each for each in self.kept if each["picture"] == row]
        scale = (w / image.shape[1], h / image.shape[0])
        return ImagePoints(h, w, _points(mine, names, categories, scale))

    def _bundle(self, row: int, title: str) -> dict[str, Any]:
        image = self.images[row]
        tokens = math.prod(-(-side // self.vit.stride) for side in image.shape[:2])
        light = 2 * tokens * self.vit.dim * self.vit.depth <= MOST_SENT
        return make_bundle(
            self.vit, image, title, self.truths[row], self.categories, attention=light
        )

    def _open(self, _change: Any) -> None:
        row = min(max(self.picture, 0), len(self.images) - 1)
        self.bundle = self._bundle(row, self.entries[row]["title"])

    def _take_upload(self, change: Any) -> None:
        try:
            whole = _from_url(change["new"])
        except InputError as error:
            self.send({"kind": "refused", "text": str(error)})
        else:
            self._add(whole)

    def _add(self, whole: Image.Image) -> None:
        """One more picture at the end of the list, and the one that is shown."""
        image = _shrunk(whole)
        self.images.append(image)
        self.sizes.append((whole.height, whole.width))
        self.names.append(None)
        self.truths.append(None)
        entry = _entry(f"own picture {len(self.images)}", image)
        self.entries = [*self.entries, entry]
        self.point = entry["start"]
        self.picture = len(self.images) - 1

    def _send_rows(self, _widget: Any, content: dict[str, Any], _buffers: Any) -> None:
        """Maps of one token, for pictures whose queries and keys are too many to send."""
        if content.get("kind") == "rows" and content.get("picture") == self.picture:
            rows = self.rows(int(content["token"]))
            self.send(
                {"kind": "rows", "token": content["token"], "values": rows.flatten().tolist()}
            )

    @torch.no_grad()
    def rows(self, token: int) -> Tensor:
        """[blocks * (heads + 1) + blocks, N] maps.

        Each block's heads and their mean, then roll-outs of growing depth.
        """
        outputs = run(self.vit, self.images[self.picture])
        row = torch.tensor([outputs.trace.prefix + token])
        blocks = [
            attention_rows(self.vit, outputs.trace, b, row)[0, :, 0] for b in range(self.vit.depth)
        ]
        every = [torch.cat([heads, heads.mean(0, keepdim=True)]) for heads in blocks]
        rolled = rollout_rows(self.vit, outputs.trace, row)[:, 0, 0]
        return torch.cat([*every, rolled])[:, outputs.trace.patches]


def _network(backbone: TokenViT | str | Path) -> TokenViT:
    """A network, one of our files, a run's model, or a timm name.

    By a name a network is random, or has timm's weights: "timm:NAME".
    """
    if isinstance(backbone, TokenViT):
        return backbone
    path = Path(backbone)
    if path.suffix == ".pt":
        return _trained(path)
    if path.suffix == ".safetensors" or path.exists():
        return read_backbone(path)
    return _of_timm(str(backbone))


def _of_timm(text: str) -> TokenViT:
    name = text.removeprefix("timm:")
    vit = TokenViT(name.split(".")[0])
    if name != text:
        load_backbone(vit, name)
    return vit


def _trained(model: Path) -> TokenViT:
    """The ViT of a method that a run has trained."""
    method, recipe, _ = load_model(model)
    vit = getattr(getattr(method, "student", None), "vit", None)
    if not isinstance(vit, TokenViT):
        raise InputError(f"{model}: {recipe.stage.method} has no ViT to look into")
    return vit


def _path(picture: str | Path | np.ndarray) -> Path | None:
    return Path(picture) if isinstance(picture, str | Path) else None


def _entry(title: str, image: np.ndarray) -> dict[str, Any]:
    """A picture as the page lists it; the point starts in its middle."""
    return {"title": title, "start": [image.shape[1] // 2 + 0.5, image.shape[0] // 2 + 0.5]}


def _readable(picture: str | Path | np.ndarray) -> np.ndarray:
    path = _path(picture)
    return picture if path is None else read_image(path, upright=True)


def _shrunk(image: Image.Image) -> np.ndarray:
    image = image.copy()
    image.thumbnail((LARGEST_SIDE, LARGEST_SIDE), Image.Resampling.LANCZOS)
    return np.array(image.convert("RGB"))  # a copy, since torch wants to write


def _from_url(url: str) -> Image.Image:
    """A picture given as a data URL."""
    try:
        content = base64.b64decode(url.partition(",")[2], validate=True)
        return Image.open(io.BytesIO(content), formats=FORMATS).convert("RGB")
    except (
        binascii.Error,
        UnidentifiedImageError,
        OSError,
        ValueError,
        Image.DecompressionBombError,
    ):
        raise InputError("own picture: this file is no picture that can be read") from None


def _points(
    kept: list[dict], names: list[str], categories: tuple[Category, ...], scale: tuple[float, float]
) -> Points:
    """Kept points, each for an object of its own; times the scale (x, y) pixels of the file."""
    label = torch.tensor([names.index(each["name"] or "object") for each in kept])
    things = torch.tensor([categories[i].is_thing for i in label.tolist()])
    xy = torch.tensor([each["point"] for each in kept], dtype=torch.float32) * torch.tensor(scale)
    return Points(xy, label, torch.arange(1, len(kept) + 1), things)
