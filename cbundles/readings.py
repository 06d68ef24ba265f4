"""Readings: where a network is measured, and beside which weight.

The papers and their code leave open what "the bundle entropy of a network" is taken from, and the
two revisions of the original code differ in it. A reading answers three questions:

    last         pooled    VGG, ResNet: measured are the outputs of the blocks, and behind them the
                           global-average-pooled features, which then are H^L
                 block     without those; H^L is that of the last block (or of the last layer)
    amplitude    hidden    w is the largest weight, fully connected: but for the output layer; VGG,
                           ResNet: but for the normalisation of the stem
                 all       w is the largest of all trainable weights
    batch_norm   running   VGG, ResNet: normalised by the running statistics, as at inference
                 batch     by the statistics of the probe set

The run's own reading is named by three settings; the first of each above is its default, and what
the revision of the code did that belongs to the paper. Further readings are measured beside it. The
name of one joins what differs from the run's own with a plus, such as ``block+batch``. ``paper`` is
short for ``pooled+hidden+running``.

Nothing here imports JAX.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from dataclasses import dataclass

from cbundles.errors import did_you_mean

POOLED, BLOCK = LASTS = ("pooled", "block")
HIDDEN, ALL = AMPLITUDES = ("hidden", "all")
RUNNING, BATCH = BATCH_NORMS = ("running", "batch")
SETTING_OF = {
    BLOCK: "last",
    POOLED: "last",
    ALL: "amplitude",
    HIDDEN: "amplitude",
    BATCH: "batch_norm",
    RUNNING: "batch_norm",
}
SETTINGS = tuple(dict.fromkeys(SETTING_OF.values()))
PAPER = "paper"
PAPER_WORDS = (POOLED, HIDDEN, RUNNING)
RANK = {word: place for pair in (LASTS, AMPLITUDES, BATCH_NORMS) for place, word in enumerate(pair)}
NONE = "none"  # no reading besides the run's own


@dataclass(frozen=True)
class Reading:
    """One reading; see above for the three settings."""

    name: str
    last: str
    amplitude: str
    batch_norm: str

    @property
    def settings(self) -> tuple[str, str, str]:
        """What tells it from others, whatever a run calls it."""
        return self.last, self.amplitude, self.batch_norm


def name_in_full(reading: Reading, *, convolutional: bool) -> str:
    """What it is called where no run says what is usual: ``pooled+hidden+running``, ``hidden``."""
    return "+".join(reading.settings) if convolutional else reading.amplitude


@functools.cache
def own_reading(last: str, amplitude: str, batch_norm: str) -> Reading:
    """The one that a run judges by. It has no name."""
    return Reading("", last, amplitude, batch_norm)


def name_of_words(words: Sequence[str]) -> str:
    """The name that joins them: ``paper`` for all that the revision of the paper did."""
    return PAPER if tuple(words) == PAPER_WORDS else "+".join(words)


def in_words(reading: Reading, *, convolutional: bool) -> str:
    """What it says in half a sentence.

    >>> in_words(own_reading(POOLED, HIDDEN, RUNNING), convolutional=True)
    'H^L of the pooled features, running statistics, largest weight outside the stem'
    """
    if not convolutional:
        which = "outside the output layer" if reading.amplitude == HIDDEN else "of all layers"
        return f"largest weight {which}"
    last = "the pooled features" if reading.last == POOLED else "the last block's output"
    statistics = "running statistics" if reading.batch_norm == RUNNING else "batch statistics"
    which = "outside the stem" if reading.amplitude == HIDDEN else "of all layers"
    return f"H^L of {last}, {statistics}, largest weight {which}"


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
    convolutional = family in ("vgg", "resnet")
    for name in names.split(","):
        for word in words_of(name, convolutional=convolutional):
            setting = SETTING_OF[word]
            if family == "own":
                if setting != "batch_norm":
                    return f"{word}: model.build does not say what that is; nearest valid: {BATCH}"
                continue
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
    return "+".join(by_setting[setting] for setting in SETTINGS if setting in by_setting)
