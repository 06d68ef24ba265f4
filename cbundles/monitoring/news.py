"""What a user is told while training goes on: that layers begin to conflict, or diverge.

It goes to Python's logging, under the name ``cbundles.monitor``: a warning is printed unless the
program says otherwise, and stands among the program's own messages where it has set up logging. A
layer is named when it begins to conflict, and when it does so again after some measurements without
a conflict; that it no longer does is worth an INFO.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from cbundles.auditing.findings import BRANCH

FREE = 2  # measurements without a conflict, after which another one is news

log = logging.getLogger("cbundles.monitor")


BEGINS = ("begins to conflict", "begin to conflict")
AGAIN = ("conflicts again", "conflict again")


class Sentence(NamedTuple):
    """Something to tell. level: of `logging`."""

    level: int
    text: str


class News:
    """What is new in each event, given all that were taken before."""

    def __init__(self) -> None:
        # Of layers that have conflicted, by name: measurements since then without a conflict.
        self._free: dict[str, int] = {}
        self._diverged = False

    def take(self, event: Mapping[str, Any]) -> list[Sentence]:
        """The next event, a line of `EventsFile`; returns what it has of news."""
        layers = [layer for layer in event["layers"] if layer["kind"] != BRANCH]
        diverged = [layer for layer in layers if layer["diverged"]]
        if diverged:
            said_before, self._diverged = self._diverged, True
            return [] if said_before else [_of_divergence(event, diverged, layers)]

        self._diverged = False
        begin, again, end = [], [], []
        for layer in layers:
            free = self._free.get(layer["name"])
            if layer["conflicting"]:
                if free is None:
                    begin.append(layer)
                elif free >= FREE:
                    again.append(layer)
                self._free[layer["name"]] = 0
            elif free is not None:
                self._free[layer["name"]] = free + 1
                if free + 1 == FREE:
                    end.append(layer["name"])
        news = []
        if begin:
            news.append(_of_beginning(event["step"], begin, layers, BEGINS))
        if again:
            news.append(_of_beginning(event["step"], again, layers, AGAIN))
        if end:
            news.append(_of_end(event["step"], end))
        return news


def tell(news: Sequence[Sentence]) -> None:
    """Log all of it."""
    for sentence in news:
        log.log(sentence.level, sentence.text)


def _of_beginning(
    step: int,
    begin: Sequence[Mapping[str, Any]],
    layers: Sequence[Mapping[str, Any]],
    verbs: tuple[str, str],
) -> Sentence:
    """verbs: for one layer, and for several."""
    first = begin[0]
    how_far = f"H = {first['entropy']:.3f} nats, conflict rate {first['conflict_rate']:.2g}"
    if len(begin) == 1:
        place = f"layer {layers.index(first) + 1} of {len(layers)}"
        told = f"{first['name']} ({place}) {verbs[0]}: {how_far}"
    else:
        told = f"{len(begin)} of {len(layers)} layers {verbs[1]}, first {first['name']}: {how_far}"
    return Sentence(logging.WARNING, f"cbundles, step {step}: {told}")


def _of_end(step: int, names: Sequence[str]) -> Sentence:
    told = f"{names[0]} no longer conflicts"
    if len(names) > 1:
        told = f"{len(names)} layers no longer conflict, first {names[0]}"
    return Sentence(logging.INFO, f"cbundles, step {step}: {told}")


def _of_divergence(
    event: Mapping[str, Any],
    diverged: Sequence[Mapping[str, Any]],
    layers: Sequence[Mapping[str, Any]],
) -> Sentence:
    told = (
        f"diverged: {diverged[0]['name']} makes NaN or infinity, and {len(diverged)} of "
        f"{len(layers)} layers do; neither entropy nor conflicts mean anything there"
    )
    if event["amplitude"]["value"] is None:
        told = (
            f"the weights hold NaN or infinity, in {event['amplitude']['parameter']}: neither "
            "entropy nor conflicts mean anything beside it"
        )
    return Sentence(logging.WARNING, f"cbundles, step {event['step']}: {told}")
