"""Scenes painted: ground, creatures from back to front, light."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pointseg.data.bestiary.arith import Dice, cosine, sine
from pointseg.data.bestiary.bodies import Body, build
from pointseg.data.bestiary.ground import WOOD, landscape, leaves, trunk
from pointseg.data.bestiary.looks import paint, rgb
from pointseg.data.bestiary.members import Face, Shape
from pointseg.data.bestiary.plan import Place, Plan, make_plan
from pointseg.data.bestiary.species import SPECIES

INK_CODE = "1d1a26"
INK = rgb(INK_CODE)
EYE = (
    (0, 0, 1.15, INK_CODE),
    (0, 0, 0.9, "fffdf5"),
    (0.2, 0.05, 0.58, INK_CODE),
    (0.34, -0.2, 0.22, "ffffff"),
)


@dataclass
class Canvas:
    picture: np.ndarray  # [3, h, w] float32
    owner: np.ndarray  # [h, w] int64, 0 = ground, else 1 + row
    parts: np.ndarray  # [h, w] uint8, 0 = none, else 1 + part
    stuff: np.ndarray  # [h, w] int64
    light: tuple[float, float]  # unit vector towards the light, y down

    @property
    def size(self) -> int:
        return len(self.owner)


class Frame:
    """The map from body lengths to pixels of one creature."""

    def __init__(self, place: Place, size: int) -> None:
        self.scale = place.length * size
        c, s = cosine(place.tilt) * self.scale, sine(place.tilt) * self.scale
        side = -1.0 if place.mirror else 1.0
        self.matrix = (side * c, -side * s, s, c)
        self.x, self.y, self.side = place.x * size, place.y * size, side

    def point(self, x: float, y: float) -> tuple[float, float]:
        a, b, c, d = self.matrix
        return self.x + a * x + b * y, self.y + c * x + d * y

    def capsule(self, capsule) -> tuple[float, ...]:
        ax, ay, bx, by, ra, rb = capsule
        return *self.point(ax, ay), *self.point(bx, by), ra * self.scale, rb * self.scale

    def local(self, xs: np.ndarray, ys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Body coordinates u, v [h, w] of pixel centres xs [1, w], ys [h, 1]."""
        a, b, c, d = (np.float32(k / (self.scale * self.scale)) for k in self.matrix)
        x, y = xs - np.float32(self.x), ys - np.float32(self.y)
        return a * x + c * y, b * x + d * y


def window(capsules: np.ndarray, size: int, margin: float = 1.5):
    """Rows and columns that the capsules [k, 6] can touch, or None outside the picture."""
    reach = np.maximum(capsules[:, 4], capsules[:, 5]) + margin
    low = np.minimum(capsules[:, 0:2], capsules[:, 2:4]) - reach[:, None]
    high = np.maximum(capsules[:, 0:2], capsules[:, 2:4]) + reach[:, None]
    left, top = np.maximum(np.floor(low.min(0)), 0).astype(int)
    right, bottom = np.minimum(np.ceil(high.max(0)), size).astype(int)
    if left >= right or top >= bottom:
        return None
    return slice(top, bottom), slice(left, right)


def pixel_centres(where) -> tuple[np.ndarray, np.ndarray]:
    """x [1, w] and y [h, 1] of the pixels in a window."""
    rows, columns = (
        np.arange(part.start, part.stop, dtype=np.float32) + np.float32(0.5) for part in where
    )
    return columns[None, :], rows[:, None]


def distances(
    capsules: np.ndarray, xs: np.ndarray, ys: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Signed distance and place along each capsule, both [k, h, w]."""
    ax, ay, bx, by, ra, rb = (column[:, None, None] for column in capsules.astype(np.float32).T)
    dx, dy = bx - ax, by - ay
    length2 = dx * dx + dy * dy + np.float32(1e-6)
    px, py = xs - ax, ys - ay
    t = np.clip(px * (dx / length2) + py * (dy / length2), 0.0, 1.0)
    qx, qy = px - t * dx, py - t * dy
    return np.sqrt(qx * qx + qy * qy) - (ra + t * (rb - ra)), t


def melt(distance: np.ndarray, reach: float) -> np.ndarray:
    """[h, w] smooth minimum over the capsules [k, h, w]."""
    total = distance[0]
    for other in distance[1:]:
        h = np.clip(np.float32(0.5) + (other - total) * np.float32(0.5 / reach), 0.0, 1.0)
        total = other + (total - other) * h - np.float32(reach) * h * (1.0 - h)
    return total


def along_chain(
    capsules: np.ndarray, distance: np.ndarray, t: np.ndarray, scale: float
) -> np.ndarray:
    """[h, w] way along a chain of capsules in body lengths; it starts anew where a capsule does not join."""
    steps = capsules[:, 2:4] - capsules[:, 0:2]
    lengths = np.sqrt(steps[:, 0] * steps[:, 0] + steps[:, 1] * steps[:, 1])
    starts, total = [], 0.0
    for k, length in enumerate(lengths):
        joined = (
            k > 0
            and abs(capsules[k, 0] - capsules[k - 1, 2]) + abs(capsules[k, 1] - capsules[k - 1, 3])
            < 1e-9
        )
        total = total if joined else 0.0
        starts.append(total)
        total += length
    way = (
        np.array(starts, np.float32)[:, None, None] + t * lengths.astype(np.float32)[:, None, None]
    )
    nearest = distance.argmin(0)[None]
    return np.take_along_axis(way, nearest, 0)[0] * np.float32(1.0 / scale)


def shade(distance: np.ndarray, light: tuple[float, float], depth: float) -> np.ndarray:
    """[h, w] brightness of a rounded body: towards the light bright, away from it dark, flat in the middle."""
    gx, gy = np.zeros_like(distance), np.zeros_like(distance)
    gx[:, 1:-1] = (distance[:, 2:] - distance[:, :-2]) * np.float32(0.5)
    gy[1:-1] = (distance[2:] - distance[:-2]) * np.float32(0.5)
    rim = 1.0 - np.clip(distance * np.float32(-1.0 / depth), 0.0, 1.0)
    return (gx * np.float32(light[0]) + gy * np.float32(light[1])) * rim * np.float32(
        0.3
    ) + np.float32(1.04)


def draw_shape(canvas: Canvas, frame: Frame, shape: Shape, row: int, gain: np.ndarray) -> None:
    capsules = np.array([frame.capsule(c) for c in shape.capsules])
    where = window(capsules, canvas.size)
    if where is None:
        return
    xs, ys = pixel_centres(where)
    each, t = distances(capsules, xs, ys)
    distance = melt(each, shape.blend * frame.scale) if shape.blend else each.min(0)
    u, v = frame.local(xs, ys)
    if shape.along:
        u = along_chain(capsules, each, t, frame.scale)
    colour = paint(shape.look, u, v, frame.scale, gain * np.float32(0.72 if shape.far else 1.0))
    colour *= shade(distance, canvas.light, 0.16 * frame.scale)
    ink_width = min(max(0.022 * frame.scale, 0.45), canvas.size / 100)
    line = np.clip(distance + np.float32(ink_width + 0.5), 0.0, 1.0) * np.float32(0.85)
    colour += (INK[:, None, None] - colour) * line
    put(canvas, where, distance, colour, row, shape.part)


def put(
    canvas: Canvas, where, distance: np.ndarray, colour: np.ndarray, row: int, part: int
) -> None:
    """Lays colour [3, h, w] over the window where distance [h, w] is negative, with soft edges."""
    patch = canvas.picture[:, where[0], where[1]]
    patch += (colour - patch) * np.clip(np.float32(0.5) - distance, 0.0, 1.0)
    inside = distance <= 0
    canvas.owner[where][inside] = row + 1
    canvas.parts[where][inside] = part + 1


def draw_ink(canvas: Canvas, frame: Frame, capsules: list, code: str, row: int) -> None:
    """Marks on what a creature already covers: they change its colour, not its extent."""
    marks = np.array([frame.capsule(c) for c in capsules])
    where = window(marks, canvas.size)
    if where is None:
        return
    distance = distances(marks, *pixel_centres(where))[0].min(0)
    share = np.clip(np.float32(0.5) - distance, 0.0, 1.0) * (canvas.owner[where] == row + 1)
    patch = canvas.picture[:, where[0], where[1]]
    patch += (rgb(code)[:, None, None] - patch) * share


def draw_face(canvas: Canvas, frame: Frame, face: Face, row: int) -> None:
    x, y, r = face.eye
    if frame.scale * r < 0.5:
        return
    if face.mouth:
        draw_ink(canvas, frame, face.mouth, INK_CODE, row)
    for dx, dy, size, code in EYE:
        cx, cy = x + dx * r, y + dy * r
        draw_ink(canvas, frame, [(cx, cy, cx, cy, size * r, size * r)], code, row)


def draw_shadow(canvas: Canvas, frame: Frame, body: Body) -> None:
    """A soft dark spot under the feet, on the ground only."""
    cx, cy = frame.point(*body.feet)
    rx, ry = 0.62 * frame.scale, 0.13 * frame.scale
    where = window(np.array([[cx - rx, cy, cx + rx, cy, ry, ry]]), canvas.size)
    if where is None:
        return
    xs, ys = pixel_centres(where)
    xs, ys = xs - np.float32(cx), ys - np.float32(cy)
    dark = np.clip(
        1.0 - xs * xs * np.float32(1 / (rx * rx)) - ys * ys * np.float32(1 / (ry * ry)), 0.0, 1.0
    )
    canvas.picture[:, where[0], where[1]] *= 1.0 - dark * np.float32(0.4)


def draw_creature(canvas: Canvas, place: Place, dice: Dice) -> None:
    body, frame = build(SPECIES[place.species], dice), Frame(place, canvas.size)
    gain = np.float32(dice.between(0.88, 1.1)) * np.array(
        [dice.between(0.95, 1.05) for _ in range(3)], np.float32
    )
    if SPECIES[place.species].plan in ("quadruped", "bird", "crawler"):
        draw_shadow(canvas, frame, body)
    for shape in body.shapes:
        draw_shape(canvas, frame, shape, place.row, gain)
    draw_face(canvas, frame, body.face, place.row)


def draw_tree(canvas: Canvas, plan: Plan, dice: Dice) -> None:
    x, foot, width, _ = plan.tree
    for share, colour in (
        trunk(dice, canvas.size, x, foot, width),
        leaves(dice, canvas.size, x, width),
    ):
        canvas.picture += (colour - canvas.picture) * share
        front = share >= 0.5
        canvas.owner[front], canvas.parts[front], canvas.stuff[front] = 0, 0, WOOD


def light_picture(
    picture: np.ndarray, dice: Dice, grain: Dice, light: tuple[float, float]
) -> np.ndarray:
    """[h, w, 3] uint8: warm or cool light that falls off to one side, and a little grain."""
    size = picture.shape[-1]
    warmth = dice.between(-0.05, 0.05)
    tint = np.array([1.0 + warmth, 1.0, 1.0 - warmth], np.float32) * np.float32(
        dice.between(0.88, 1.06)
    )
    across = (np.arange(size, dtype=np.float32) + np.float32(0.5)) / np.float32(size) - np.float32(
        0.5
    )
    slope = np.float32(dice.between(0.0, 0.22))
    fall = 1.0 + slope * (
        across[None, :] * np.float32(light[0]) + across[:, None] * np.float32(light[1])
    )
    lit = picture * (tint[:, None, None] * fall) + (
        grain.field(size, size) - np.float32(0.5)
    ) * np.float32(0.03)
    return np.floor(np.clip(lit, 0.0, 1.0) * 255.0 + 0.5).astype(np.uint8).transpose(1, 2, 0)


def paint_scene(seed: int, split: str, index: int, size: int) -> tuple[np.ndarray, Canvas, Plan]:
    """The picture [h, w, 3] uint8, the canvas with its label maps, and the plan it was painted from."""
    ground, cast, grain = (Dice(seed, split, index, stream) for stream in range(3))
    picture, stuff, horizon = landscape(ground, size)
    plan = make_plan(cast, horizon)
    turn = ground.between(-0.36, -0.14)
    light = (cosine(turn), sine(turn))
    canvas = Canvas(
        picture, np.zeros((size, size), np.int64), np.zeros((size, size), np.uint8), stuff, light
    )
    tree_stands = plan.tree is None
    for number, place in enumerate(plan.in_depth_order()):
        if not tree_stands and place.y > plan.tree[3]:
            draw_tree(canvas, plan, ground)
            tree_stands = True
        draw_creature(canvas, place, Dice(seed, split, index, 16 + number))
    if not tree_stands:
        draw_tree(canvas, plan, ground)
    return light_picture(canvas.picture, ground, grain, light), canvas, plan
