"""What a user is told while training goes on: that layers begin to conflict, or diverge.

It goes to Python's logging, under the name ``cbundles.monitor``: a warning is printed unless the
program says otherwise, and stands among the program's own messages where it has set up logging. A
layer is named once, when it first conflicts; that it no longer does is worth an INFO.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from cbundles.auditing.findings import BRANCH

log = logging.getLogger("cbundles.monitor")


class Sentence(NamedTuple):
    """Something to tell. level: of `logging`."""

    level: int
    text: str


class News:
    """What is new in each event, given all that were taken before."""

    def __init__(self) -> None:
        self._began: set[str] = set()  # the names of layers that have conflicted
        self._ended: set[str] = set()  # those of them that did not conflict later
        self._diverged = False

    def take(self, event: Mapping[str, Any]) -> list[Sentence]:
        """The next event, a line of `EventsFile`; returns what it has of news."""
        layers = [layer for layer in event["layers"] if layer["kind"] != BRANCH]
        diverged = [layer for layer in layers if layer["diverged"]]
        if diverged:
            said_before, self._diverged = self._diverged, True
            return [] if said_before else [_of_divergence(event, diverged, layers)]

        conflicting = [layer for layer in layers if layer["conflicting"]]
        names = {layer["name"] for layer in conflicting}
        begin = [layer for layer in conflicting if layer["name"] not in self._began]
        end = self._began - self._ended - names
        self._began |= names
        self._ended |= end
        news = []
        if begin:
            news.append(_of_beginning(event["step"], begin, layers))
        if end:
            in_order = [layer["name"] for layer in layers if layer["name"] in end]
            news.append(_of_end(event["step"], in_order))
        return news


def tell(news: Sequence[Sentence]) -> None:
    """Log all of it."""
    for sentence in news:
        log.log(sentence.level, sentence.text)


def _of_beginning(
    step: int, begin: Sequence[Mapping[str, Any]], layers: Sequence[Mapping[str, Any]]
) -> Sentence:
    first = begin[0]
    how_far = f"H = {first['entropy']:.3f} nats, conflict rate {first['conflict_rate']:.2g}"
    if len(begin) == 1:
        place = f"layer {layers.index(first) + 1} of {len(layers)}"
        told = f"{first['name']} ({place}) begins to conflict: {how_far}"
    else:
        told = (
            f"{len(begin)} of {len(layers)} layers begin to conflict, first {first['name']}: "
            f"{how_far}"
        )
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
