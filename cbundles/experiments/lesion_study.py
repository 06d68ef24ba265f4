"""A lesion study from its first network to its record: blocks removed from the network as it is
(`lesion`), and, where that is asked for, all that a fair comparison needs (`fair_lesion`)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from cbundles.config import Cell
from cbundles.data.device import DeviceData
from cbundles.decisions import removal
from cbundles.experiments import fair_lesion, lesion
from cbundles.experiments.lesion import Progress
from cbundles.networks.network import Network
from cbundles.networks.shape import ConvShape
from cbundles.records import LesionRecord, Origin

State = dict[str, Any]
FAIR = "fair"  # in a state, that of `fair_lesion`


def steps(
    shape: ConvShape,
    subject: Network,
    cell: Cell,
    data: DeviceData,
    settings: removal.Settings,
    resume: State | None = None,
) -> Iterator[Progress]:
    """The states of a study; it can go on from each of them."""
    fair = None if resume is None else resume.get(FAIR)
    if fair is None:
        for now in lesion.run(shape, subject, cell, data, settings, resume):
            resume = now.state
            later = fair_lesion.expected_steps(resume["blocks"], settings) if settings.fair else 0
            yield now._replace(total=now.total + later)
    assert resume is not None  # there is one before the first lesion
    if not settings.fair:
        return
    scores = resume["blocks"]
    for now in fair_lesion.steps(shape, subject, cell, data, settings, scores, fair):
        done = len(resume["outcomes"])
        yield Progress({**resume, FAIR: now.state}, done + now.done, done + now.total)


def thaw(frozen: bytes, shape: ConvShape, images: int) -> State:
    """What `lesion.freeze` made of a state; see `lesion.thaw`."""
    state = lesion.thaw(frozen, shape, images)
    if FAIR in state:
        fair_lesion.require_state(state[FAIR], shape)
    return state


def record(
    cell: Cell,
    settings: removal.Settings,
    state: State,
    data: DeviceData,
    network: str,
    origin: Origin,
) -> LesionRecord:
    """The completed study. network: what identifies it."""
    own = lesion.record(cell, settings, state, len(data.test.labels), network, origin)
    if not settings.fair:
        return own
    probe_images = len(data.probe.labels)
    fair = fair_lesion.fair_study(state[FAIR], settings, state["blocks"], probe_images)
    return msgspec.structs.replace(own, fair=fair)
