"""A model without some of its residual branches, tried on labelled samples."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Collection, Sequence

import numpy as np
from jaxtyping import Bool, Int32, PyTree

from cbundles.auditing.anew import statistics_anew
from cbundles.auditing.batches import Batches, length_of
from cbundles.auditing.lesion_findings import Difference, RemovalCurve
from cbundles.auditing.subject import Scores, Subject
from cbundles.observe import Site
from cbundles.observe.layers import names_of

Right = Bool[np.ndarray, " answers"]  # which of all answers are right
Gone = Collection[int]  # branches, counted from 0 over all sites and repetitions


class Trials:
    """A model without some of its branches, tried on all samples.

    names: of the branches, over all sites and repetitions.
    whole: which answers of the whole model are right.
    """

    def __init__(
        self,
        subject: Subject,
        branches: Sequence[Site],
        batches: Batches,
        labels: Int32[np.ndarray, "samples ..."],
        scores: Scores,
        fitting: Batches | None = None,
    ) -> None:
        """fitting: on which statistics of batch normalisation are taken anew; otherwise on the
        samples that are tried."""
        self.subject = subject
        self.branches = branches
        self.names = list(itertools.chain.from_iterable(map(names_of, branches)))
        self.batches = batches
        self.labels = labels
        self.scores = scores
        self.fitting = batches if fitting is None else fitting
        self._known: dict[frozenset[int], Difference] = {}
        self._known_anew: dict[frozenset[int], Difference] = {}
        self._known_from_anew: dict[frozenset[int], Difference] = {}
        (self.whole,) = self._right([()])

    def differences(self, variants: Sequence[Gone]) -> list[Difference]:
        """From the whole model, without some branches each time."""
        keys = [frozenset(gone) for gone in variants]
        new = [key for key in dict.fromkeys(keys) if key not in self._known]
        for key, right in zip(new, self._right(new), strict=True):
            self._known[key] = self._difference(right)
        return [self._known[key] for key in keys]

    def right_anew(self, gone: Gone) -> Right:
        """Without some branches, after statistics of batch normalisation were taken anew: means of
        those of the batches."""
        means = statistics_anew(self.subject, self.fitting, self._kept(gone))
        (right,) = self._right([gone], means)
        return right

    def difference_anew_from_whole(self, gone: Gone) -> Difference:
        """From the whole model as it is, to it without some branches and with statistics of batch
        normalisation taken anew."""
        key = frozenset(gone)
        if key not in self._known_anew:
            self._known_anew[key] = self._difference(self.right_anew(gone))
        return self._known_anew[key]

    @functools.cached_property
    def whole_anew(self) -> Right:
        """Which answers of the whole model are right with statistics taken anew."""
        return self.right_anew(())

    def difference_anew_from_whole_anew(self, gone: Gone) -> Difference:
        """From the whole model to it without some branches, both with statistics taken anew: what
        the branches alone are worth."""
        key = frozenset(gone)
        if key not in self._known_from_anew:
            self._known_from_anew[key] = difference_of(self.whole_anew, self.right_anew(gone))
        return self._known_from_anew[key]

    def curve(self, by: str, order: Sequence[int], *, anew: bool = False) -> RemovalCurve:
        """Without the first k branches of an order. anew: with statistics taken anew each time."""
        variants = [order[: k + 1] for k in range(len(order))]
        if anew:
            differences = [self.difference_anew_from_whole(gone) for gone in variants]
        else:
            differences = self.differences(variants)
        right = int(self.whole.sum())
        return RemovalCurve(
            by=by,
            order=tuple(self.names[number] for number in order),
            differences=tuple(differences),
            accuracies=tuple((right - d.lost + d.gained) / d.samples for d in differences),
        )

    def _right(self, variants: Sequence[Gone], statistics: PyTree | None = None) -> list[Right]:
        right = [np.zeros(self.labels.shape, bool) for _ in variants]
        for start, batch in self.batches:
            part = slice(start, start + length_of(batch))
            for gone, answers in zip(variants, right, strict=True):
                found = self.subject.answers(batch, self._kept(gone), self.scores, statistics)
                answers[part] = found == self.labels[part]
        return [answers.reshape(-1) for answers in right]

    def _kept(self, gone: Gone) -> dict[str, Bool[np.ndarray, "*repeats"]]:
        kept, before = {}, 0
        for site in self.branches:
            count = len(names_of(site))
            own = [number not in gone for number in range(before, before + count)]
            kept[site.name] = np.array(own).reshape(site.repeats)
            before += count
        return kept

    def _difference(self, right: Right) -> Difference:
        return difference_of(self.whole, right)


def difference_of(before: Right, after: Right) -> Difference:
    """Between the answers of two models."""
    lost = int((before & ~after).sum())
    gained = int((~before & after).sum())
    return Difference(lost, gained, after.size)
