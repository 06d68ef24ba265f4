"""Readings: where a network is measured, and beside which weight.

The papers and their code leave open what "the bundle entropy of a network" is taken from, and the
two revisions of the original code differ in it. A reading answers three questions:

    last         block     measured are the outputs of the layers, or blocks; the last one is H^L
                 pooled    and behind them the global-average-pooled features, which then are H^L
    amplitude    all       w is the largest of all trainable weights
                 hidden    fully connected: without the output layer; VGG, ResNet: without the
                           normalisation of the stem
    batch_norm   batch     VGG, ResNet: normalised by the statistics of the probe set
                 running   by the running statistics, as at inference

Its name joins what differs from the run's own reading with a plus, such as ``pooled+running``.
``paper`` is short for what the revision of the paper did, ``pooled+hidden+running``.

Nothing here imports JAX.
"""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import dataclass

from cbundles.errors import did_you_mean

BLOCK, POOLED = "block", "pooled"
ALL, HIDDEN = "all", "hidden"
BATCH, RUNNING = "batch", "running"
SETTING_OF = {
    BLOCK: "last",
    POOLED: "last",
    ALL: "amplitude",
    HIDDEN: "amplitude",
    BATCH: "batch_norm",
    RUNNING: "batch_norm",
}
PAPER = "paper"
PAPER_WORDS = (POOLED, HIDDEN, RUNNING)
NONE = "none"  # no reading besides the run's own


@dataclass(frozen=True)
class Reading:
    """One reading; see above for the three settings."""

    name: str
    last: str = BLOCK
    amplitude: str = ALL
    batch_norm: str = BATCH


@functools.cache
def own_reading(batch_norm: str) -> Reading:
    """The one that a run judges by. It has no name."""
    return Reading("", batch_norm=batch_norm)


def canonical(names: object) -> str:
    """Names of readings, as a list or a text with commas, in one form: sorted, each once, with
    commas; ``none`` without any. ValueError says what is wrong with a name.

    >>> canonical(["running+pooled", "paper"])
    'paper,pooled+running'
    """
    if not isinstance(names, (str, list)):
        raise ValueError("must be names: a list, or text with commas")
    each = names.split(",") if isinstance(names, str) else names
    if not all(isinstance(name, str) for name in each):
        raise ValueError("readings must be text")
    stripped = [name.strip() for name in each]
    if stripped in ([], [NONE]):
        return NONE
    return ",".join(sorted({_canonical_name(name) for name in stripped}))


def named_readings(names: str, own: Reading, *, convolutional: bool) -> tuple[Reading, ...]:
    """The readings that a text of `canonical` names. own: what they do not say is as there.
    convolutional: otherwise ``paper`` means ``hidden``, all that a fully connected network has."""
    if names == NONE:
        return ()
    readings = []
    for name in names.split(","):
        words = words_of(name, convolutional=convolutional)
        settings = {SETTING_OF[word]: word for word in words}
        readings.append(dataclasses.replace(own, name=name, **settings))
    return tuple(readings)


def why_impossible(names: str, family: str, equality: str) -> str | None:
    """What keeps networks of a family from being read so; None when nothing does. names: in the
    form of `canonical`. equality: one of `bundles.RULES`."""
    convolutional = family != "fc"
    for name in names.split(","):
        for word in words_of(name, convolutional=convolutional):
            setting = SETTING_OF[word]
            if setting != "amplitude" and not convolutional:
                return (
                    f"{word}: fully connected networks have neither pooled features nor batch "
                    f"normalisation; nearest valid: {HIDDEN}"
                )
            if setting == "amplitude" and equality == "gamma" and name != PAPER:
                return f"{word}: no weight has a part in the equality gamma; leave it out"
    return None


def words_of(name: str, *, convolutional: bool) -> tuple[str, ...]:
    """What a name joins."""
    if name != PAPER:
        return tuple(name.split("+"))
    return PAPER_WORDS if convolutional else (HIDDEN,)


def _canonical_name(name: str) -> str:
    if name == PAPER:
        return name
    by_setting: dict[str, str] = {}
    for word in name.split("+"):
        if word not in SETTING_OF:
            raise ValueError(f"no reading {word!r}: {did_you_mean(word, [*SETTING_OF, PAPER])}")
        other = by_setting.setdefault(SETTING_OF[word], word)
        if other != word:
            raise ValueError(f"{name!r} says both {other} and {word}; leave one of them out")
    return "+".join(by_setting[s] for s in dict.fromkeys(SETTING_OF.values()) if s in by_setting)
