"""Which processes still work in a folder."""

import os
from pathlib import Path


def leftovers(place: Path) -> list[int]:
    """Numbers of all processes but this one whose folder lies there."""
    working = []
    for link in Path("/proc").glob("[0-9]*/cwd"):
        try:
            if link.resolve().is_relative_to(place.resolve()):
                working.append(int(link.parent.name))
        except OSError:  # it has ended, or is another's
            continue
    return [number for number in working if number != os.getpid()]
