"""A few steps of a tiny method, alone or under torchrun; the first process writes a record."""

import json
import sys
from pathlib import Path

import torch
from support import tiny_method as tiny

from pointseg.ops.processes import rank
from pointseg.training.distributed import joined
from pointseg.training.loop import fit


def main(out: Path) -> None:
    chosen = tiny.settings(steps=8, batch=4, ema=0.9)
    torch.manual_seed(0)
    method = tiny.Tiny(dropout=0.0, norm=False)
    records = list(fit(method, tiny.feed(chosen), chosen, out.parent / out.stem, device="cpu"))
    if rank() == 0:
        first = method.net[0].weight.detach().flatten().tolist()
        out.write_text(json.dumps({"losses": [r.losses["fit"] for r in records], "weights": first,
                                   "images": [r.images for r in records]}))  # fmt: skip


if __name__ == "__main__":
    torch.set_num_threads(1)
    with joined():
        main(Path(sys.argv[1]))
