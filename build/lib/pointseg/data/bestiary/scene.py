"""Scenes painted: ground, creatures from back to front, light."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from pointseg.data.bestiary.arith import Stream, cosine, noise, ramp, sine
from pointseg.data.bestiary.bodies import Body, build
from pointseg.data.bestiary.disguise import STUFF_OF, borrow, decoy, recolour
from pointseg.data.bestiary.edition import Edition, Light, upto
from pointseg.data.bestiary.ground import WOOD, landscape, leaves, trunk
from pointseg.data.bestiary.individual import Limber, individual
from pointseg.data.bestiary.looks import paint, rgb
from pointseg.data.bestiary.members import Face, Shape
from pointseg.data.bestiary.plan import Decoy, Placement, Plan, make_plan
from pointseg.data.bestiary.species import SPECIES

INK_CODE = "1d1a26"
INK = rgb(INK_CODE)
FAR = np.float32(1e6)  # pixels
GROUND_SHAPE = -1  # owner of what is drawn of the ground, until it is done
EYE = (
    (0, 0, 1.15, INK_CODE),
    (0, 0, 0.9, "fffdf5"),
    (0.2, 0.05, 0.58, INK_CODE),
    (0.34, -0.2, 0.22, "ffffff"),
)


@dataclass
class Canvas:
    image: np.ndarray  # [3, h, w] float32
    owner: np.ndarray  # [h, w] int64, 0 = ground, else 1 + row
    parts: np.ndarray  # [h, w] uint8, 0 = none, else 1 + part
    stuff: np.ndarray  # [h, w] int64
    light: tuple[float, float]  # unit vector towards the light, y down
    relief: float = 0.3
    ink: str = "parts"  # where it runs: around parts, the outline, nowhere
    reach: np.ndarray = field(init=False)  # [h, w] float32 distance to the shapes of one creature

    def __post_init__(self) -> None:
        self.reach = np.full(self.owner.shape, FAR, np.float32)

    @property
    def size(self) -> int:
        return len(self.owner)


class Frame:
    """The map from body lengths to pixels of one creature."""

    def __init__(self, place: Placement, size: int) -> None:
        self.scale = place.length * size
        c, s = cosine(place.tilt) * self.scale, sine(place.tilt) * self.scale
        side = -1.0 if place.mirror else 1.0
        self.matrix = (side * c, -side * s, s, c)
        self.x, self.y, self.place = place.x * size, place.y * size, place

    def point(self, x: float, y: float) -> tuple[float, float]:
        a, b, c, d = self.matrix
        x = x * self.place.squash + y * self.place.shear
        return self.x + a * x + b * y, self.y + c * x + d * y

    def capsule(self, capsule) -> tuple[float, ...]:
        ax, ay, bx, by, ra, rb = capsule
        return *self.point(ax, ay), *self.point(bx, by), ra * self.scale, rb * self.scale

    def local(self, xs: np.ndarray, ys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Body coordinates u, v [h, w] of pixel centres xs [1, w], ys [h, 1]."""
        a, b, c, d = (np.float32(k / (self.scale * self.scale)) for k in self.matrix)
        x, y = xs - np.float32(self.x), ys - np.float32(self.y)
        return a * x + c * y, b * x + d * y


def window(capsules, size: int, margin: float = 1.5):
    """Rows and columns that the capsules [k, 6] can touch, or None outside the image."""
    left = top = math.inf
    right = bottom = -math.inf
    for ax, ay, bx, by, ra, rb in capsules:
        reach = max(ra, rb) + margin
        left, right = min(left, min(ax, bx) - reach), max(right, max(ax, bx) + reach)
        top, bottom = min(top, min(ay, by) - reach), max(bottom, max(ay, by) + reach)
    left, top = max(math.floor(left), 0), max(math.floor(top), 0)
    right, bottom = min(math.ceil(right), size), min(math.ceil(bottom), size)
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
    """Signed distance to and position along each capsule, both [k, h, w]."""
    ax, ay, bx, by, ra, rb = (column[:, None, None] for column in capsules.astype(np.float32).T)
    dx, dy = bx - ax, by - ay
    length2 = dx * dx + dy * dy + np.float32(1e-6)
    px, py = xs - ax, ys - ay
    t = px * (dx / length2) + py * (dy / length2)
    np.clip(t, 0.0, 1.0, out=t)
    square = squared(px, t * dx)
    square += squared(py, t * dy)
    distance = np.sqrt(square, out=square)
    distance -= ra + t * (rb - ra)
    return distance, t


def squared(whole: np.ndarray, part: np.ndarray) -> np.ndarray:
    """(whole - part)^2; the part is overwritten."""
    rest = np.subtract(whole, part, out=part)
    rest *= rest
    return rest


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
    """[h, w] way along a chain of capsules in body lengths, from 0 where one does not join."""
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


def shade(distance: np.ndarray, light: tuple[float, float], depth: float, relief: float):
    """[h, w] brightness of a rounded body: bright towards the light, flat in the middle."""
    gx, gy = np.zeros_like(distance), np.zeros_like(distance)
    gx[:, 1:-1] = (distance[:, 2:] - distance[:, :-2]) * np.float32(0.5)
    gy[1:-1] = (distance[2:] - distance[:-2]) * np.float32(0.5)
    rim = 1.0 - np.clip(distance * np.float32(-1.0 / depth), 0.0, 1.0)
    slope = gx * np.float32(light[0]) + gy * np.float32(light[1])
    return slope * rim * np.float32(relief) + np.float32(1.04)


def draw_shape(canvas: Canvas, frame: Frame, shape: Shape, owner: int, gain: np.ndarray):
    """The window that was drawn on, None where the shape lies outside the image."""
    capsules = [frame.capsule(c) for c in shape.capsules]
    where = window(capsules, canvas.size)
    if where is None:
        return None
    capsules = np.array(capsules)
    xs, ys = pixel_centres(where)
    each, t = distances(capsules, xs, ys)
    distance = melt(each, shape.blend * frame.scale) if shape.blend else each.min(0)
    u, v = frame.local(xs, ys)
    if shape.along:
        u = along_chain(capsules, each, t, frame.scale)
    colour = paint(shape.look, u, v, frame.scale, gain * np.float32(0.72 if shape.far else 1.0))
    colour *= shade(distance, canvas.light, 0.16 * frame.scale, canvas.relief)
    if canvas.ink == "parts":
        colour += (INK[:, None, None] - colour) * ink_line(canvas, frame, distance)
    np.minimum(canvas.reach[where], distance, out=canvas.reach[where])
    put(canvas, where, distance, colour, owner, shape.part)
    return where


def ink_line(canvas: Canvas, frame: Frame, distance: np.ndarray) -> np.ndarray:
    """[h, w] share of ink along the edge where distance [h, w] is zero, on its inner side."""
    width = min(max(0.022 * frame.scale, 0.45), canvas.size / 100)
    return np.clip(distance + np.float32(width + 0.5), 0.0, 1.0) * np.float32(0.85)


def draw_outline(canvas: Canvas, frame: Frame, windows: list) -> None:
    """Ink on the outer border of all that was drawn in these windows, where the image has it."""
    if not windows:
        return
    sides = [(rows.start, rows.stop, cols.start, cols.stop) for rows, cols in windows]
    tops, bottoms, lefts, rights = zip(*sides)
    where = slice(min(tops), max(bottoms)), slice(min(lefts), max(rights))
    reach, patch = canvas.reach[where], canvas.image[:, where[0], where[1]]
    if canvas.ink == "outline":
        share = ink_line(canvas, frame, reach) * np.clip(np.float32(0.5) - reach, 0.0, 1.0)
        patch += (INK[:, None, None] - patch) * share
    reach[:] = FAR


def put(canvas: Canvas, where, distance, colour: np.ndarray, owner: int, part: int | None) -> None:
    """Lays colour [3, h, w] over the window where distance [h, w] is negative, with soft edges;
    the colour is overwritten."""
    patch = canvas.image[:, where[0], where[1]]
    colour -= patch
    colour *= np.clip(np.float32(0.5) - distance, 0.0, 1.0)
    patch += colour
    inside = distance <= 0
    canvas.owner[where][inside] = owner
    canvas.parts[where][inside] = 0 if part is None else part + 1


def draw_ink(canvas: Canvas, frame: Frame, capsules: list, code: str, row: int) -> None:
    """Marks on what a creature already covers: they change its colour, not its extent."""
    marks = [frame.capsule(c) for c in capsules]
    where = window(marks, canvas.size)
    if where is None:
        return
    distance = distances(np.array(marks), *pixel_centres(where))[0].min(0)
    share = np.clip(np.float32(0.5) - distance, 0.0, 1.0) * (canvas.owner[where] == row + 1)
    patch = canvas.image[:, where[0], where[1]]
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
    where = window([(cx - rx, cy, cx + rx, cy, ry, ry)], canvas.size)
    if where is None:
        return
    xs, ys = pixel_centres(where)
    xs, ys = xs - np.float32(cx), ys - np.float32(cy)
    dark = np.clip(
        1.0 - xs * xs * np.float32(1 / (rx * rx)) - ys * ys * np.float32(1 / (ry * ry)), 0.0, 1.0
    )
    canvas.image[:, where[0], where[1]] *= 1.0 - dark * np.float32(0.4)


def draw_creature(canvas: Canvas, place: Placement, rng: Stream, looks: Stream, edition) -> None:
    body, frame = build(SPECIES[place.species], rng), Frame(place, canvas.size)
    gain = np.float32(rng.uniform(0.88, 1.1)) * np.array(
        [rng.uniform(0.95, 1.05) for _ in range(3)], np.float32
    )
    if edition.individual:
        body = individual(body, looks, edition.individual)
    if SPECIES[place.species].plan in ("quadruped", "bird", "crawler"):
        draw_shadow(canvas, frame, body)
    draw_body(canvas, frame, body, place.row + 1, gain)
    draw_face(canvas, frame, body.face, place.row)


def draw_body(canvas: Canvas, frame: Frame, body: Body, owner: int, gain: np.ndarray) -> None:
    windows = [draw_shape(canvas, frame, shape, owner, gain) for shape in body.shapes]
    draw_outline(canvas, frame, [where for where in windows if where])


def draw_decoy(canvas: Canvas, plan: Decoy, rng: Stream, edition: Edition) -> None:
    """A rock or plant; the ground owns it."""
    body = decoy(plan.kind, rng, edition.individual)
    frame = Frame(Placement(0, plan.x, plan.y, plan.length, rng.chance(0.5), 0.0, 0), canvas.size)
    draw_shadow(canvas, frame, body)
    draw_body(canvas, frame, body, GROUND_SHAPE, np.ones(3, np.float32))
    covered = canvas.owner == GROUND_SHAPE
    canvas.stuff[covered], canvas.owner[covered] = STUFF_OF[plan.kind], 0


def draw_tree(canvas: Canvas, plan: Plan, rng: Stream) -> None:
    x, foot, width, _ = plan.tree
    for share, colour in (
        trunk(rng, canvas.size, x, foot, width),
        leaves(rng, canvas.size, x, width),
    ):
        canvas.image += (colour - canvas.image) * share
        front = share >= 0.5
        canvas.owner[front], canvas.parts[front], canvas.stuff[front] = 0, 0, WOOD


def light_image(
    image: np.ndarray, rng: Stream, grain: Stream, towards: tuple[float, float], light: Light
) -> np.ndarray:
    """[h, w, 3] uint8: warm or cool light that falls off to one side, and a little grain."""
    size = image.shape[-1]
    warmth = rng.uniform(-light.warmth, light.warmth)
    tint = np.array([1.0 + warmth, 1.0, 1.0 - warmth], np.float32)
    tint *= np.float32(rng.uniform(*light.exposure))
    across = (np.arange(size, dtype=np.float32) + np.float32(0.5)) / np.float32(size)
    across -= np.float32(0.5)
    slope = np.float32(rng.uniform(*light.slope))
    fall = 1.0 + slope * (
        across[None, :] * np.float32(towards[0]) + across[:, None] * np.float32(towards[1])
    )
    lit = tint[:, None, None] * fall
    lit *= image
    if light.dapple:
        lit = weather(lit, grain, light)
    lit += (grain.field(size, size) - np.float32(0.5)) * np.float32(light.grain)
    np.clip(lit, 0.0, 1.0, out=lit)
    lit *= 255.0
    lit += 0.5
    return np.floor(lit, out=lit).astype(np.uint8).transpose(1, 2, 0)


def weather(image: np.ndarray, rng: Stream, light: Light) -> np.ndarray:
    """Image [3, h, w] under the shadows of leaves and a thin mist, in place."""
    size = image.shape[-1]
    crowns = noise(rng, size, 6, 6) * np.float32(0.65) + noise(rng, size, 15, 15) * np.float32(0.35)
    leaves = ramp(crowns, 0.46, 0.58)
    image *= 1.0 - leaves * np.float32(rng.uniform(0.0, light.dapple))
    mist = np.array([rng.uniform(0.35, 0.9) for _ in range(3)], np.float32)[:, None, None]
    share = np.float32(rng.uniform(0.0, light.haze))
    image *= np.float32(1.0) - share
    image += mist * share
    return image


def paint_ground(ground: Stream, options: Stream, size: int, edition: Edition):
    """Image [3, h, w], stuff label [h, w] and the height of the horizon."""
    if edition.disguise is None:
        return landscape(ground, size)
    image, stuff, horizon = landscape(ground, size, recolour(options, edition.disguise))
    borrow(image, options, edition.disguise, edition.individual)
    return image, stuff, horizon


def paint_scene(
    seed: int, split: str, index: int, size: int, edition: Edition
) -> tuple[np.ndarray, Canvas, Plan]:
    """The image [h, w, 3] uint8, the canvas with its label maps, and the plan of the scene."""
    key = (seed, split, index)
    ground, cast, grain, options = (Stream(*key, stream) for stream in range(4))
    image, stuff, horizon = paint_ground(ground, options, size, edition)
    plan = make_plan(cast, horizon, edition)
    turn = ground.uniform(*edition.light.turn)
    light = (cosine(turn), sine(turn))
    owner, parts = np.zeros((size, size), np.int64), np.zeros((size, size), np.uint8)
    relief, ink = options.uniform(*edition.light.relief), upto(edition.ink, options.random())
    canvas = Canvas(image, owner, parts, stuff, light, relief, ink)
    draw_cast(canvas, plan, ground, key, edition)
    return light_image(canvas.image, ground, grain, light, edition.light), canvas, plan


def draw_cast(canvas: Canvas, plan: Plan, ground: Stream, key: tuple, edition: Edition) -> None:
    """Creatures, decoys and the tree, from back to front."""
    tree_stands = plan.tree is None
    for number, place in enumerate(plan.in_depth_order()):
        if not tree_stands and place.y > plan.tree[3]:
            draw_tree(canvas, plan, ground)
            tree_stands = True
        if isinstance(place, Decoy):
            draw_decoy(canvas, place, Stream(*key, 16 + number), edition)
        else:
            draw_creature(canvas, place, *streams(key, number, place, edition), edition)
    if not tree_stands:
        draw_tree(canvas, plan, ground)


def streams(key: tuple, number: int, place: Placement, edition: Edition):
    """What draws a creature's pose, and what draws its looks: its own stream or its herd's."""
    ways = edition.individual
    if ways is None:
        pose = Stream(*key, 16 + number)
        return pose, pose
    pose, looks = Limber(ways.pose, *key, 16 + number), Stream(*key, 48 + number)
    return pose, Stream(*key, 96) if place.kin is not None and looks.chance(ways.kin) else looks
