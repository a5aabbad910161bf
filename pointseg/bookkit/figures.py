"""One vocabulary for every picture of the book.

Colour-blind safe, readable on light and dark pages.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from IPython import get_ipython
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from pointseg.data.masks import inner_border

LARGEST_FIGURE = 150_000  # bytes
# Okabe and Ito's eight colours without black, then the same lightened:
# neighbours in the list stay apart for everyone.
COLOURS = np.array(
    [(230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66),
     (0, 114, 178), (213, 94, 0), (204, 121, 167)]
) / 255.0  # fmt: skip
HEAT = "viridis"
# Of a channel: 96 colours are then chosen in a fifth of the time, and no worse.
LEVELS = [round(round(v / 255 * 31) / 31 * 255) for v in range(256)]
PICTURE = 1.9  # inches a picture takes in a row of small multiples


def colour(i: int) -> np.ndarray:
    """RGB of the i-th thing; after one round of the palette the colours come back lighter."""
    base = COLOURS[i % len(COLOURS)]
    return base + (1 - base) * 0.45 * (i // len(COLOURS) % 2)


def as_picture(image: Tensor | np.ndarray) -> np.ndarray:
    """[3, h, w] or [h, w, 3], bytes or floats, to [h, w, 3] float in 0..1."""
    array = (
        image.detach().float().cpu().numpy()
        if isinstance(image, Tensor)
        else np.asarray(image, dtype=np.float32)
    )
    if array.shape[0] == 3 and array.shape[-1] != 3:
        array = array.transpose(1, 2, 0)
    return np.clip(array / 255.0 if array.max() > 1.5 else array, 0, 1)


def literal(text: str) -> str:
    """The text for a label of matplotlib, which would read what stands between dollars as TeX."""
    return text.replace("$", r"\$")


def multiples(
    titles: Sequence[str], columns: int = 6, size: float = PICTURE
) -> tuple[Figure, list[Axes]]:
    """A grid of empty square pictures with their titles."""
    columns = min(columns, len(titles))
    rows = -(-len(titles) // columns)
    extent = (size * columns, (size + 0.25) * rows)
    figure, axes = plt.subplots(rows, columns, figsize=extent, squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for axis, title in zip(axes.flat, titles):
        axis.set_title(title, fontsize=_readable(title, size, columns), y=1.0)  # not sought
    figure.tight_layout(pad=0.4)
    return figure, list(axes.flat)[: len(titles)]


def _readable(title: str, size: float, columns: int) -> float:
    """A type size that is as large on the page in a wide figure as in a narrow one, where the
    title then fits over its picture."""
    fits = 72 * size / (0.55 * max(len(title), 1))
    return max(8.0, min(8 * size * columns / 7.2, fits))


def show(axis: Axes, image, dim: float = 0.0) -> None:
    """The picture itself, `dim` of the way towards grey so that what lies over it is seen."""
    picture = as_picture(image)
    axis.imshow(picture * (1 - dim) + 0.5 * dim, extent=(0, picture.shape[1], picture.shape[0], 0))


def masks(
    axis: Axes, image, mask: Tensor | np.ndarray, labels: Sequence[int] | None = None, alpha=0.55
) -> None:
    """Masks [n, h, w] laid over the picture, each with a line around it."""
    picture = as_picture(image).copy()
    for i, one in enumerate(np.asarray(mask, dtype=bool)):
        tint = colour(i if labels is None else int(labels[i]))
        picture[one] = (1 - alpha) * picture[one] + alpha * tint
        picture[inner_border(one)] = tint * 0.6
    show(axis, picture)


def heat(axis: Axes, image, values: Tensor | np.ndarray, alpha: float = 0.65) -> None:
    """A map [h', w'] of any grid over the dimmed picture.

    Its own smallest and largest value span the colours.
    """
    picture = as_picture(image)
    array = np.asarray(
        values.detach().float().cpu() if isinstance(values, Tensor) else values, dtype=np.float32
    )
    show(axis, picture, dim=0.5)
    extent = (0, picture.shape[1], picture.shape[0], 0)
    axis.imshow(array, cmap=HEAT, alpha=alpha, extent=extent, interpolation="nearest")


def owners(axis: Axes, image, owner: Tensor | np.ndarray, alpha: float = 0.7) -> None:
    """A part map [h', w'] of indices, -1 = nobody's, in colours."""
    picture, index = as_picture(image), np.asarray(owner)
    layer = np.zeros((*index.shape, 4))
    for k in np.unique(index[index >= 0]):
        layer[index == k] = (*colour(int(k)), alpha)
    show(axis, picture, dim=0.3)
    axis.imshow(layer, extent=(0, picture.shape[1], picture.shape[0], 0), interpolation="nearest")


def points(
    axis: Axes, xy, labels: Sequence[int] | None = None, marker: str = "o", size: float = 30
) -> None:
    """Points [m, 2] with a white rim, so that they are seen on any ground."""
    xy = np.asarray(xy, dtype=np.float32).reshape(-1, 2)
    tint = [colour(i if labels is None else int(labels[i])) for i in range(len(xy))]
    axis.scatter(
        *xy.T, c=tint or None, marker=marker, s=size, edgecolors="white", linewidths=1.0, zorder=3
    )


def png(figure: Figure) -> bytes:
    """A figure as a PNG of at most 150 kB, of fewer colours and then pixels where it was larger."""
    data = rendered(figure)
    picture, share = Image.open(io.BytesIO(data)).convert("RGB"), 1.0
    while len(data) > LARGEST_FIGURE:
        data = _reduced(picture, share)
        share = smaller(share, len(data), LARGEST_FIGURE)
    return data


def rendered(figure: Figure) -> bytes:
    """A figure as a PNG of whatever size; it is closed."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, bbox_inches="tight")
    plt.close(figure)
    return buffer.getvalue()


def smaller(share: float, size: int, limit: int) -> float:
    """The share of a picture's sides to try next, where a PNG of `share` has `size` bytes."""
    return share * min(0.85, (limit / size) ** 0.5)


def _reduced(picture: Image.Image, share: float) -> bytes:
    """A PNG of a share of a picture's sides, in 96 colours."""
    buffer = io.BytesIO()
    size = [max(1, round(share * side)) for side in picture.size]
    smaller = picture.resize(size, Image.Resampling.LANCZOS)
    smaller.point(LEVELS * 3).quantize(96).save(buffer, format="png", optimize=True)
    return buffer.getvalue()


def save(figure: Figure, path: str | Path) -> Path:
    """Writes a figure as such a PNG."""
    path, data = Path(path), png(figure)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def compact() -> None:
    """From here on a notebook shows its figures as such PNGs.

    Called after `%matplotlib inline`, which sets its own. Outside a notebook there is nothing to
    show and nothing happens.
    """
    if shell := get_ipython():
        shell.display_formatter.formatters["image/png"].for_type(Figure, png)
