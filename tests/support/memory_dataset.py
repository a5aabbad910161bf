"""A data set in memory with the loaders' interface.

Rectangles and ellipses, two thing and two stuff classes.
"""

import hashlib
from dataclasses import replace

import numpy as np
import torch

from pointseg.structures import Category, Truth

CATEGORIES = (
    Category(3, "box"),
    Category(7, "ball"),
    Category(40, "ground", is_thing=False),
    Category(41, "sky", is_thing=False),
)


class MemoryDataset:
    """`count` images of different sizes, each with things, stuff, a crowd and a void strip."""

    root, split, layout = "memory", "train", "memory"
    categories = CATEGORIES

    def __init__(self, count: int = 4, size: int = 32, seed: int = 0):
        self.ids = [f"picture {i}" if i % 2 else i for i in range(count)]
        self.scenes = [
            scene(np.random.default_rng([seed, i]), size + 2 * i, size + i) for i in range(count)
        ]

    def __len__(self):
        return len(self.ids)

    def size(self, i):
        return self.scenes[i][0].shape[:2]

    def image(self, i):
        return self.scenes[i][0].copy()

    def truth(self, i):
        return self.scenes[i][1]

    def arrays(self, i):
        truth = self.truth(i)
        return replace(truth, **{name: value.numpy() for name, value in vars(truth).items()})

    def content_hash(self):
        return hashlib.sha256(repr(self.ids).encode()).hexdigest()


def scene(rng, height, width):
    """(image, truth): horizon, three things of which one is a crowd, a void strip on the left."""
    y, x = np.mgrid[:height, :width]
    owner = np.where(y < height // 3, 4, 3)
    for instance in range(3):
        middle, radius = rng.random(2) * (width, height), 4 + rng.random(2) * 5
        away = np.abs((np.stack([x, y], -1) - middle) / radius)
        owner[(away.max(-1) < 1) if instance % 2 else (np.square(away).sum(-1) < 1)] = instance
    owner[:, 0] = 9
    image = (rng.random((6, 3)) * 200)[np.minimum(owner, 5)] + rng.random((height, width, 3)) * 50
    kept = [row for row in range(5) if (owner == row).any()]
    label = torch.tensor([(1, 0, 1, 2, 3)[row] for row in kept])
    truth = Truth(
        masks=torch.from_numpy(np.stack([owner == row for row in kept])),
        label=label,
        target=torch.tensor([100 + 7 * row for row in kept]),
        is_thing=label < 2,
        is_crowd=torch.tensor([row == 2 for row in kept]),
        void=torch.from_numpy(owner == 9),
        parts=torch.from_numpy((owner < 3).astype(np.uint8)),
    )
    return image.astype(np.uint8), truth
