"""What a judge says: `Finding`; how the claim fares in parts of the evidence: `Trial`; and what the
report says: `Claim`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, TypeVar

from cbundles.records import NetworkRecord
from cbundles.report import evidence
from cbundles.report.evidence import Evidence
from cbundles.wording import counted

Record = TypeVar("Record", bound=NetworkRecord)
REPRODUCED, NOT_REPRODUCED, NOT_RUN = "reproduced", "not reproduced", "not run"
MIXED = "depends on scale or reading"
HOLDS, DOES_NOT_HOLD, MEASURED = "holds", "does not hold", "measured"
# What "not reproduced" may be.
CONTRADICTED, UNSTABLE = "contradicted", "unstable"
UNDECIDED = "undecided"  # of a claim of our own: neither it nor its opposite
NOT_TESTABLE = "not testable at this scale"
# From this share of the parts on in which it holds a claim is unstable, below it contradicted.
UNSTABLE_FROM = 0.2


class Words(NamedTuple):
    """What the verdicts on a claim are called; both alike where no direction is claimed."""

    yes: str
    no: str

    @property
    def decide(self) -> bool:
        return self.yes != self.no


OF_THE_PAPER = Words(REPRODUCED, NOT_REPRODUCED)
OF_OUR_OWN = Words(HOLDS, DOES_NOT_HOLD)
OF_A_QUESTION = Words(MEASURED, MEASURED)


class Seeded(Protocol):
    """What has a seed: the record of a network, or of the toy."""

    @property
    def seed(self) -> int: ...


OfSeed = TypeVar("OfSeed", bound=Seeded)


@dataclass(frozen=True)
class Trial:
    """The criterion of a claim, applied to parts of the evidence, each for itself.

    held: parts in which it holds
    parts: how many there are
    noun: what a part is, such as "seed"
    lacking: why these records are no test of the claim, in half a sentence; "" where they are one
    leaves_open: where an interval has room for the claim and for its opposite, how wide it is, in a
        sentence
    """

    held: int
    parts: int
    noun: str
    lacking: str = ""
    leaves_open: str = ""

    @property
    def kind(self) -> str:
        """Which kind of "not reproduced" it is, where it is that."""
        if self.lacking or not self.parts:
            return NOT_TESTABLE
        if self.leaves_open:
            return UNDECIDED
        is_unstable = self.held > 0 and self.held >= UNSTABLE_FROM * self.parts
        return UNSTABLE if is_unstable else CONTRADICTED

    @property
    def text(self) -> str:
        """``2 of 3 seeds``."""
        return f"{self.held} of {counted(self.parts, self.noun)}"


def trial_of(held: Sequence[bool], noun: str, lacking: str = "") -> Trial:
    """held: whether the criterion holds, for each part."""
    return Trial(sum(held), len(held), noun, lacking)


def trial_by_seed(
    records: Sequence[OfSeed],
    holds: Callable[[list[OfSeed]], bool | None],
    lacking: str = "",
) -> Trial:
    """holds: whether the criterion holds for the networks of one seed; None where it cannot be
    applied to them."""
    seeds = sorted({record.seed for record in records})
    judged = [holds([record for record in records if record.seed == seed]) for seed in seeds]
    return trial_of([held for held in judged if held is not None], "seed", lacking)


SECOND_READING = "second reading, added later: "  # which the supplement to the criteria asks for


@dataclass(frozen=True)
class Finding:
    """What records of one scale say about a claim.

    ours: the outcome
    cells: identities of the records behind it
    trial: how the claim fares in parts of the evidence
    details: sentences beside the outcome: its parts, what trivial comparisons say, how to read it,
        and, where it is not reproduced, why that is fair
    why: the last of these for itself; "" of what is reproduced
    words: what its verdict is called
    """

    scale: str
    ours: str
    reproduced: bool
    runs: tuple[str, ...]
    cells: tuple[str, ...]
    trial: Trial
    details: tuple[str, ...] = ()
    why: str = ""
    words: Words = OF_THE_PAPER

    @property
    def text(self) -> str:
        """The outcome and all details in one line."""
        return "; ".join((self.ours, *self.details))

    @property
    def outcome(self) -> str:
        """The outcome, and why it is fair where it is not reproduced."""
        return "; ".join(part for part in (self.ours, self.why) if part)

    @property
    def beside(self) -> tuple[str, ...]:
        """The other details."""
        return tuple(detail for detail in self.details if detail != self.why)

    @property
    def verdict(self) -> str:
        if self.kind == UNDECIDED:
            return UNDECIDED
        return self.words.yes if self.reproduced else self.words.no

    @property
    def kind(self) -> str:
        """Which kind of "not reproduced"; "" of what is reproduced, or was no claim."""
        return "" if self.reproduced or not self.words.decide else self.trial.kind

    @property
    def verdict_in_full(self) -> str:
        """``not reproduced: unstable, holds for 2 of 3 seeds``."""
        if not self.kind or self.kind == UNDECIDED:
            return self.verdict
        share = f", holds for {self.trial.text}" if self.kind == UNSTABLE else ""
        return f"{self.verdict}: {self.kind}{share}"


@dataclass(frozen=True)
class Claim:
    """What all records say about a claim; without findings it was not run.

    id, claim, paper (the paper's value), criterion: as in criteria.yaml
    known: of a claim of our own, which pilots were known when it was written, as in plans.yaml
    """

    id: str
    claim: str
    paper: str
    criterion: str
    findings: tuple[Finding, ...]
    known: str = ""

    @property
    def background(self) -> str:
        """What was known before: what the paper says, or which pilots there were."""
        return f"Known before: {self.known}" if self.known else f"Paper: {self.paper}"

    @property
    def verdict(self) -> str:
        """The verdict that all scales agree on."""
        verdicts = set(self.verdicts)
        return verdicts.pop() if len(verdicts) == 1 else MIXED

    @property
    def verdicts(self) -> list[str]:
        return [finding.verdict for finding in self.findings] or [NOT_RUN]


def finding_on(
    group: Evidence[Record],
    ours: str,
    reproduced: bool,
    trial: Trial,
    records: Sequence[Record] | None = None,
    details: Sequence[str] = (),
) -> Finding:
    """A finding on some of the records of a group, or on all."""
    judged = group.records if records is None else records
    if group.diverged:
        of = "" if records is None else ", of all at this scale"
        ours += f"; left out: {counted(group.diverged, 'network')} {group.left_out}{of}"
    cells = tuple(record.id for record in judged)
    scale = evidence.scale(judged)
    return Finding(scale, ours, bool(reproduced), (group.run,), cells, trial, tuple(details))
