"""Files that are not what they should be: images, records, networks, checkpoints, caches."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from random import Random

from attacks import binaries, images, runs_on_disk
from attacks.attempt import Attempt

# Shares of the attacks.
PARTS = (
    (images.attempts, 0.35),
    (runs_on_disk.attempts, 0.3),
    (binaries.networks, 0.15),
    (binaries.caches, 0.1),
    (binaries.checkpoints, 0.1),
)


def attempts(chance: Random, count: int, folder: Path) -> Iterator[Attempt]:
    warnings.simplefilter("ignore")  # Pillow's, of odd images
    for number, (part, share) in enumerate(PARTS):
        own = folder / str(number)
        own.mkdir()
        yield from part(chance, round(share * count), own)
