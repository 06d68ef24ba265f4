"""What an auto-tuning has decided, in a folder: from it an interrupted one goes on.

    autotune.json   what was asked for, and every attempt that has ended
    model.npz       the numbers of the last network, once it is trained to the end: NumPy arrays by
                    their type and name, as float32:params/head/bias

A network that was being trained when the process ended is trained anew, from its first epoch: its
optimizer is the user's own, and nothing is known of it here. Nothing in either file is executed.
"""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from cbundles.autotuning.tuned import Attempt
from cbundles.files import write_atomically

FORMAT = 1
DECISIONS, NUMBERS = "autotune.json", "model.npz"


@dataclass
class Progress:
    """The attempts that have ended. folder: None: they are kept in no file."""

    folder: Path | None
    asked: dict[str, Any]  # plain data that says what is tuned, and how
    chain: list[Attempt] = field(default_factory=list)
    ended: bool = False

    @classmethod
    def begun(cls, folder: Path | None, asked: dict[str, Any]) -> Progress:
        """What a folder knows of this auto-tuning. Raises ValueError for a folder that knows of
        another one, or cannot be read."""
        new = cls(folder, asked)
        if folder is None or not (folder / DECISIONS).exists():
            return new
        path = folder / DECISIONS
        try:
            known = json.loads(path.read_text(encoding="utf-8"))
            chain = [_attempt_of(one) for one in known["chain"]]
            ended, before, number = bool(known["ended"]), known["asked"], known["format"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path}: damaged ({error}); name another folder") from error
        if number != FORMAT:
            raise ValueError(f"{path}: of format {number}, and only {FORMAT} is known")
        different = [key for key in asked if before.get(key) != asked[key]]
        if different:
            told = ", ".join(f"{key} = {before.get(key)}, not {asked[key]}" for key in different)
            raise ValueError(f"{path}: of another auto-tuning ({told}); name another folder")
        return cls(folder, asked, chain, ended)

    def add(self, attempt: Attempt, *, ended: bool) -> None:
        """An attempt on which it was decided. ended: no other one follows."""
        self.chain.append(attempt)
        self.ended = ended
        if self.folder is not None:
            chain = [dataclasses.asdict(one) for one in self.chain]
            content = {"format": FORMAT, "asked": self.asked, "ended": ended, "chain": chain}
            write_atomically(self.folder / DECISIONS, json.dumps(content, indent=1) + "\n")

    def reopen(self) -> None:
        """Forget the last attempt, whose network is to be trained anew: what is measured and
        decided on it is to be of the network that is kept."""
        self.ended = False
        self.chain.pop()

    def keep(self, numbers: Mapping[str, np.ndarray]) -> None:
        """The numbers of the last network."""
        if self.folder is not None and numbers:
            file = io.BytesIO()
            np.savez(file, **dict(map(_packed, numbers.items())))  # type: ignore[arg-type]
            write_atomically(self.folder / NUMBERS, file.getvalue())

    def kept(self) -> dict[str, np.ndarray] | None:
        """What `keep` wrote; None where there is nothing that can be read."""
        if self.folder is None or not (self.folder / NUMBERS).exists():
            return None
        try:
            with np.load(self.folder / NUMBERS, allow_pickle=False) as archive:
                return dict(map(_unpacked, archive.items()))
        except Exception:  # zipfile and NumPy raise many kinds for a damaged file
            return None


def _packed(named: tuple[str, np.ndarray]) -> tuple[str, np.ndarray]:
    """An array as a file holds it, and its name there. NumPy itself does not know types such as
    bfloat16: of these the bits are kept."""
    name, array = named
    bits = array if array.dtype.isbuiltin == 1 else array.view(f"u{array.itemsize}")
    return f"{array.dtype.name}:{name}", bits


def _unpacked(kept: tuple[str, np.ndarray]) -> tuple[str, np.ndarray]:
    """What was packed."""
    type_name, _, name = kept[0].partition(":")
    return name, kept[1].view(jnp.dtype(type_name))


def _attempt_of(content: dict[str, Any]) -> Attempt:
    return Attempt(
        blocks=tuple(content["blocks"]),
        epochs=int(content["epochs"]),
        layers=tuple(content["layers"]),
        measured=tuple(content["measured"]),
        decision=str(content["decision"]),
        left=tuple(content["left"]),
    )
