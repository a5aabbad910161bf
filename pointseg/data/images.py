"""Images and mask PNGs as arrays, with every check that a foreign file needs."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from pointseg.data.files import cause_of
from pointseg.structures import InputError

FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "TIFF", "PPM", "GIF")  # none runs a program to be read
SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".gif")
MAX_PIXELS = Image.MAX_IMAGE_PIXELS or 89_478_485  # Pillow's limit against decompression bombs
MOST_MASKED = 2**30  # pixels of all masks of one image together, a byte each
DEEP_MODES = ("I", "F")  # 16 and 32 bit grey: no honest way to 8 bits without a choice by the user


def read_image(path: Path, upright: bool = False) -> np.ndarray:
    """uint8[h, w, 3] RGB. `upright` turns the image as its EXIF tag says (not for masks made on raw
    pixels)."""
    with _opened(path) as image:
        if image.mode.split(";")[0] in DEEP_MODES:
            depth = f"holds more than 8 bits a channel ({image.mode})"
            raise InputError(f"{path}: {depth}; save it as 8 bits")
        turned = ImageOps.exif_transpose(image) if upright else image
        flat = turned.convert("RGBA") if "transparency" in turned.info else turned
        return np.array(flat.convert("RGB"))


def read_size(path: Path, upright: bool = False) -> tuple[int, int]:
    """(h, w) from the header alone."""
    with _opened(path) as image:
        w, h = image.size
        quarter_turned = upright and image.getexif().get(0x0112, 1) >= 5
        return (w, h) if quarter_turned else (h, w)


def is_turned(path: Path) -> bool:
    """Whether the image's EXIF tag says that its pixels are not upright."""
    with _opened(path) as image:
        return image.getexif().get(0x0112, 1) != 1


def written_names(names: Sequence[str]) -> list[str]:
    """What the files made of each image are called: the stem of its name, or the whole name where
    another image has the same stem, so that none is written over."""
    stems = [Path(name).stem for name in names]
    shared = Counter(stem.casefold() for stem in stems)
    written = [n if shared[s.casefold()] > 1 else s for n, s in zip(names, stems)]
    return written if len({*written}) == len(names) else list(names)


def read_index_mask(path: Path, size: tuple[int, int] | None = None) -> np.ndarray:
    """uint8[h, w]: the palette indices or grey values of a mask PNG."""
    return _read_mask(path, ("P", "L"), size)


def read_segment_ids(path: Path, size: tuple[int, int] | None = None) -> np.ndarray:
    """int32[h, w]: the ids R + 256 G + 65536 B of a COCO panoptic PNG."""
    colours = _read_mask(path, ("RGB", "RGBA"), size, "RGBA")
    return (colours.view("<u4")[..., 0] & 0xFFFFFF).astype(np.int32)


def segment_colours(ids: np.ndarray) -> np.ndarray:
    """uint8[h, w, 3]: the colours of ids in a COCO panoptic PNG, what read_segment_ids reads
    back."""
    as_bytes = np.ascontiguousarray(ids, "<u4").view(np.uint8)
    return np.ascontiguousarray(as_bytes.reshape(*ids.shape, 4)[..., :3])


def _read_mask(
    path: Path, modes: tuple[str, ...], size: tuple[int, int] | None, form: str | None = None
) -> np.ndarray:
    with _opened(path) as image:
        if image.mode not in modes:
            wanted = " or ".join(modes)
            raise InputError(f"{path}: is a {image.mode} image, a mask here is {wanted}")
        mask = np.array(image.convert(form) if form else image)
    if size is not None and mask.shape[:2] != tuple(size):
        raise InputError(f"{path}: mask is {named(mask.shape)}, its image {named(size)}")
    return mask


def named(size: tuple[int, ...]) -> str:
    """(h, w, ...) as people say it: width x height."""
    return f"{size[1]}x{size[0]}"


def refuse_masks(where: Path | str, count: int, size: tuple[int, int]) -> None:
    """Refuses more masks of one image than anybody could hold."""
    if count * size[0] * size[1] > MOST_MASKED:
        cause = f"{count} masks of {named(size)} pixels, at most {MOST_MASKED} pixels are read"
        raise InputError(f"{where}: {cause}")


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """The opened image; whatever Pillow throws at a broken file becomes one line."""
    _refuse_absent(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=FORMATS) as image:
                yield image
    except InputError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        cause = f"more than {MAX_PIXELS} pixels, refused as a decompression bomb"
        raise InputError(f"{path}: {cause}") from None
    except Image.UnidentifiedImageError:
        raise InputError(f"{path}: is not an image ({', '.join(FORMATS)})") from None
    except Exception as error:  # Pillow's decoders raise nearly anything on corrupt bytes
        raise InputError(f"{path}: corrupt or truncated image ({_first_line(error)})") from None


def _refuse_absent(path: Path) -> None:
    try:
        size = path.stat().st_size
    except (OSError, ValueError) as error:
        cause = cause_of(error) if isinstance(error, OSError) else "is not a file name"
        raise InputError(f"{path}: {cause}") from None
    if not path.is_file():
        raise InputError(f"{path}: is not a file")
    if not size:
        raise InputError(f"{path}: is empty (0 bytes)")


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:80]
