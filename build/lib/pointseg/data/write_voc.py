"""One scene in the layouts of VOC 2012 and SBD."""

from __future__ import annotations

import io
from pathlib import Path
from xml.sax.saxutils import escape

import numpy as np
import scipy.io
import scipy.sparse
from PIL import Image

from pointseg.data.bestiary.draw import THINGS, Scene
from pointseg.data.masks import box_of, inner_border
from pointseg.structures import IGNORE, Truth

VOC = Path("VOCdevkit/VOC2012")
SBD = Path("SBD/dataset")
MAT_HEADER = b"MATLAB 5.0 MAT-file, written by pointseg"


def voc_palette() -> list[int]:
    """The VOC colour map: the bits of an index, three by three, fill R, G, B from the top bit
    down."""
    index = np.arange(256)
    channels = [sum(((index >> (3 * k + c)) & 1) << (7 - k) for k in range(8)) for c in range(3)]
    return np.stack(channels, 1).ravel().tolist()


PALETTE = voc_palette()


def palette_png(labels: np.ndarray) -> bytes:
    image = Image.fromarray(labels.astype(np.uint8))
    image.putpalette(PALETTE)
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


def voc_maps(truth: Truth) -> tuple[np.ndarray, np.ndarray, list[int]]:
    """Object and class map [h, w] uint8 (0 background, 255 void and crowds) and the label of each
    object."""
    objects = np.zeros(truth.void.shape, np.uint8)
    classes = np.zeros(truth.void.shape, np.uint8)
    labels = []
    for mask, label, crowd in zip(truth.masks, truth.label.tolist(), truth.is_crowd.tolist()):
        if label >= len(THINGS):
            continue
        if not crowd:
            labels.append(label)
        objects[mask] = IGNORE if crowd else len(labels)
        classes[mask] = IGNORE if crowd else label + 1
    objects[truth.void] = IGNORE
    classes[truth.void] = IGNORE
    return objects, classes, labels


def object_xml(name: str, mask: np.ndarray) -> str:
    h, w = mask.shape
    box = [side + 1 for side in box_of(mask)]  # VOC counts pixels from 1
    truncated = int(box[0] == 1 or box[1] == 1 or box[2] == w or box[3] == h)
    sides = "".join(
        f"\t\t\t<{side}>{value}</{side}>\n"
        for side, value in zip(("xmin", "ymin", "xmax", "ymax"), box)
    )
    return (
        f"\t<object>\n\t\t<name>{escape(name)}</name>\n\t\t<pose>Unspecified</pose>\n"
        f"\t\t<truncated>{truncated}</truncated>\n\t\t<difficult>0</difficult>\n"
        f"\t\t<bndbox>\n{sides}\t\t</bndbox>\n\t</object>\n"
    )


def annotation_xml(name: str, objects: np.ndarray, labels: list[int]) -> str:
    h, w = objects.shape
    body = "".join(
        object_xml(THINGS[label].name, objects == k + 1) for k, label in enumerate(labels)
    )
    return (
        f"<annotation>\n\t<folder>VOC2012</folder>\n\t<filename>{name}.jpg</filename>\n"
        "\t<source>\n\t\t<database>Bestiary</database>\n\t\t<annotation>Bestiary</annotation>\n"
        "\t\t<image>drawn</image>\n\t</source>\n"
        f"\t<size>\n\t\t<width>{w}</width>\n\t\t<height>{h}</height>\n\t\t<depth>3</depth>\n"
        "\t</size>\n"
        f"\t<segmented>1</segmented>\n{body}</annotation>\n"
    )


def cells(masks: list[np.ndarray]) -> np.ndarray:
    """[n, 1] object array of sparse borders, MATLAB's cell array."""
    out = np.empty((len(masks), 1), object)
    for k, mask in enumerate(masks):
        out[k, 0] = scipy.sparse.csc_matrix(inner_border(mask).astype(np.float64))
    return out


def write_sbd(folder: Path, name: str, truth: Truth) -> None:
    """inst and cls .mat files; SBD knows no void, so such pixels are background."""
    objects, classes, labels = voc_maps(truth)
    objects[objects == IGNORE], classes[classes == IGNORE] = 0, 0
    inst = {
        "Segmentation": objects,
        "Boundaries": cells([objects == k + 1 for k in range(len(labels))]),
        "Categories": np.array(labels, np.uint8)[:, None] + np.uint8(1),
    }
    present = np.unique(classes[classes > 0])
    every = range(1, len(THINGS) + 1)
    cls = {
        "Segmentation": classes,
        "Boundaries": cells([classes == k for k in every]),
        "CategoriesPresent": present[:, None],
    }
    for kind, field, content in (("inst", "GTinst", inst), ("cls", "GTcls", cls)):
        (folder / SBD / kind / f"{name}.mat").write_bytes(mat_file({field: content}))


def mat_file(content: dict) -> bytes:
    """A MATLAB 5 file that depends on its content alone: scipy writes the hour into the header."""
    stream = io.BytesIO()
    scipy.io.savemat(stream, content, do_compression=True)
    return MAT_HEADER.ljust(116) + stream.getvalue()[116:]


def write_voc(folder: Path, name: str, scene: Scene, jpeg: bytes) -> Truth:
    """All VOC and SBD files of one image; the truth that VOC tells."""
    truth = scene.arrays(border=True)
    objects, classes, labels = voc_maps(truth)
    (folder / VOC / "JPEGImages" / f"{name}.jpg").write_bytes(jpeg)
    (folder / VOC / "SegmentationObject" / f"{name}.png").write_bytes(palette_png(objects))
    (folder / VOC / "SegmentationClass" / f"{name}.png").write_bytes(palette_png(classes))
    (folder / VOC / "Annotations" / f"{name}.xml").write_text(annotation_xml(name, objects, labels))
    write_sbd(folder, name, scene.arrays(border=False))
    return truth


def write_voc_lists(folder: Path, names: dict[str, list[str]]) -> None:
    """ImageSets/Segmentation, SBD's own lists, and the class names in the order of their
    indices."""
    lists = folder / VOC / "ImageSets" / "Segmentation"
    known = {**names, "trainval": sorted(names["train"] + names["val"])}
    for split, ids in known.items():
        if ids:
            (lists / f"{split}.txt").write_text("".join(f"{name}\n" for name in ids))
    for split in ("train", "val"):
        (folder / SBD / f"{split}.txt").write_text("".join(f"{name}\n" for name in names[split]))
    (folder / VOC / "labels.txt").write_text("".join(f"{c.name}\n" for c in THINGS))


def voc_folders() -> list[Path]:
    voc = (
        "JPEGImages SegmentationClass SegmentationObject Annotations ImageSets/Segmentation".split()
    )
    return [VOC / name for name in voc] + [SBD / "inst", SBD / "cls"]
