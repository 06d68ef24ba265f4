"""Which residual sums are meant, and why others cannot go."""

from __future__ import annotations

import fnmatch
import operator
import re
from collections.abc import Iterable, Sequence
from typing import Protocol, SupportsIndex, TypeVar

from cbundles.errors import did_you_mean
from cbundles.observe import Site, Skipped

NAMES_SHOWN = 5  # in a message, of all names of sums and branches
Blocks = str | SupportsIndex | Iterable[str | SupportsIndex]

# At the end of a name; to `fnmatch` it would be a set of digits.
REPETITION = re.compile(r"\[(\d+(?:, \d+)*)\]$")


class ResidualSum(Protocol):
    """A sum of a skip and a branch."""

    @property
    def name(self) -> str:
        """Of its site, with the repetition where it is in a scan."""

    @property
    def branch(self) -> str:
        """The same of its branch."""

    @property
    def others(self) -> str:
        """Who else needs the branch; "" where nobody does."""


One = TypeVar("One", bound=ResidualSum, covariant=True)


class Observed(Protocol[One]):
    """What is known of a model."""

    @property
    def residual_sums(self) -> Sequence[One]:
        """In the order in which they are made."""

    @property
    def sites(self) -> Sequence[Site]:
        """All that there is to see."""

    @property
    def skipped(self) -> Sequence[Skipped]:
        """What is not seen."""


def chosen_sums(observed: Observed[One], blocks: Blocks) -> list[One]:
    """The residual sums that lose their branches, in the order of the model.

    Args:
        observed: the model.
        blocks: names of sums or of their branches, patterns of them, or numbers from 1 on.

    Raises:
        ValueError: what cannot be removed, by name and with the reason.
    """
    sums = observed.residual_sums
    if not sums:
        hidden = [f"{one.name} is {one.reason}" for one in observed.skipped if one.kind == "sum"]
        raise ValueError("; ".join(["blocks: this model has no residual sums", *hidden]))
    wanted: set[str] = set()
    for one in _listed(blocks):
        meant = _named(sums, one, observed) if isinstance(one, str) else [_numbered(sums, one)]
        wanted |= {each.name for each in meant}
    if not wanted:
        raise ValueError("blocks is empty: nothing would be removed")
    chosen = [one for one in sums if one.name in wanted]
    for each in chosen:
        if each.others:
            raise ValueError(
                f"{each.name} cannot be removed: its branch is also needed by {each.others}"
            )
    return chosen


def _listed(blocks: Blocks) -> list[str | SupportsIndex]:
    if isinstance(blocks, str) or not isinstance(blocks, Iterable):
        return [blocks]
    return list(blocks)


def _numbered(sums: Sequence[One], number: SupportsIndex) -> One:
    is_whole = isinstance(number, SupportsIndex) and not isinstance(number, bool)
    if not is_whole or not 1 <= operator.index(number) <= len(sums):
        raise ValueError(f"blocks: {number} is not a number from 1 to {len(sums)}")
    return sums[operator.index(number) - 1]


def _named(sums: Sequence[One], name: str, observed: Observed[One]) -> list[One]:
    exact = [one for one in sums if name in (one.name, one.branch)]
    if exact:
        return exact
    # Without its repetition a name stands for all of them.
    pattern = REPETITION.sub(r"[[]\1]", name)
    fitting = [one for one in sums if any(_fits(own, pattern) for own in (one.name, one.branch))]
    if fitting:
        return fitting
    raise ValueError(f"blocks: {_why_not(sums, name, observed)}")


def _fits(name: str, pattern: str) -> bool:
    without_repetition = REPETITION.sub("", name)
    return any(fnmatch.fnmatchcase(one, pattern) for one in (name, without_repetition))


def _why_not(sums: Sequence[One], name: str, observed: Observed[One]) -> str:
    for hidden in observed.skipped:
        if name == hidden.name:
            return f"{name} cannot be removed: it is {hidden.reason}"
    plain = REPETITION.sub("", name)
    names = [own for one in sums for own in (one.name, one.branch)]
    near = did_you_mean(name, names, most=NAMES_SHOWN)
    for site in observed.sites:
        if plain == site.name and site.kind not in ("sum", "branch"):
            kind = "named by the model" if site.kind == "named" else f"of kind {site.kind}"
            return f"{name} is {kind}, no residual sum: nothing would be left of it; {near}"
    return f"no residual sum is {name!r}: {near}"
