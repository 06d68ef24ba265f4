"""What is computed over networks: means with intervals, exact tests, ranks and how well they tell.

SciPy does the statistics wherever it has them. Its import takes a second, so each function imports
it for itself. NaN stands for "not defined" throughout, and for the value of a diverged network.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 2000
BLOCK = 300_000  # numbers that are ranked at once; more do not fit into a cache


@dataclass(frozen=True)
class Estimate:
    """A mean, or another number, with its uncertainty.

    mean: of n values, NaN for none
    low, high: its 95 % interval: of a mean by Student's t, NaN for fewer than two values
    left_out: values, or pairs, that are not among them because a network diverged
    """

    mean: float
    low: float
    high: float
    n: int
    left_out: int = 0

    def fields(self, name: str) -> dict[str, float | None]:
        """As columns NAME, NAME_low and NAME_high of a table for machines."""
        return {
            name: six_digits(self.mean),
            f"{name}_low": six_digits(self.low),
            f"{name}_high": six_digits(self.high),
        }

    def text(self, *, percent: bool = False, signed: bool = False) -> str:
        """``mean (low to high)``; a dash without values."""
        if math.isnan(self.mean):
            return "-"
        factor, form = (100, ".1f") if percent else (1, ".3g")
        sign = "+" if signed else ""
        mean = f"{factor * self.mean:{sign}{form}}"
        if math.isnan(self.low):
            return mean
        return f"{mean} ({factor * self.low:{form}} to {factor * self.high:{form}})"


def estimate(values: Sequence[float]) -> Estimate:
    """Mean and 95 % t-interval; NaNs are left out and counted."""
    from scipy import stats

    sound = [value for value in values if not math.isnan(value)]
    n, left_out = len(sound), len(values) - len(sound)
    mean = fmean(sound) if sound else math.nan
    if n < 2:
        return Estimate(mean, math.nan, math.nan, n, left_out)
    half = _t_quantile(n - 1) * float(stats.sem(sound))
    return Estimate(mean, mean - half, mean + half, n, left_out)


@functools.cache
def _t_quantile(freedom: int) -> float:
    """The 97.5 % quantile of Student's t distribution."""
    from scipy import stats

    return float(stats.t.ppf(0.975, freedom))


def paired(ours: Mapping[int, float], theirs: Mapping[int, float]) -> Estimate:
    """Of the difference ours - theirs, by seed; a pair with a NaN is left out and counted."""
    return estimate([ours[seed] - theirs[seed] for seed in ours if seed in theirs])


def paired_p(ours: Mapping[int, float], theirs: Mapping[int, float]) -> float:
    """Two-sided p of the paired t-test, by seed; NaN for fewer than two pairs without a NaN."""
    from scipy import stats

    differences = np.array([ours[seed] - theirs[seed] for seed in ours if seed in theirs])
    sound = differences[~np.isnan(differences)]
    return float(stats.ttest_1samp(sound, 0.0).pvalue) if len(sound) > 1 else math.nan


def binomial_interval(held: int, of: int) -> tuple[float, float]:
    """95 % interval (Clopper and Pearson) of a share."""
    from scipy import stats

    interval = stats.binomtest(held, of).proportion_ci(0.95)
    return float(interval.low), float(interval.high)


def spearman(x: Sequence[float], y: Sequence[float]) -> float:
    """Rank correlation; NaN when it is not defined."""
    from scipy import stats

    if len(x) < 3 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return math.nan
    return float(stats.spearmanr(x, y).statistic)


def spearman_text(x: Sequence[float], y: Sequence[float]) -> str:
    """``-0.92 (-0.94 to -0.88)``: the rank correlation and its bootstrap interval."""
    found = spearman_estimate(x, y)
    if math.isnan(found.mean):
        return "not defined"
    return f"{found.mean:.2f} ({found.low:.2f} to {found.high:.2f})"


def spearman_estimate(x: Sequence[float], y: Sequence[float]) -> Estimate:
    """The rank correlation with its bootstrap interval; NaN when it is not defined."""
    return _bootstrapped(spearman(x, y), len(x), lambda draws: _rank_correlations(x, y, draws))


def spearman_difference(
    ours: Sequence[float], theirs: Sequence[float], y: Sequence[float]
) -> Estimate:
    """By how much higher one rank correlation with y is than another, with its bootstrap interval,
    of the same resamples for both. NaN when one is not defined."""
    return _bootstrapped(
        spearman(ours, y) - spearman(theirs, y),
        len(y),
        lambda draws: _rank_correlations(ours, y, draws) - _rank_correlations(theirs, y, draws),
    )


def ratio_estimate(parts: Sequence[float], wholes: Sequence[float]) -> Estimate:
    """The sum of parts in the sum of wholes, with the 95 % bootstrap interval over examples, each
    of which has a part and a whole."""
    part, whole = np.array(parts, float), np.array(wholes, float)
    return _bootstrapped(
        float(part.sum() / whole.sum()),
        len(part),
        lambda draws: part[draws].sum(1) / whole[draws].sum(1),
    )


def median_estimate(values: Sequence[float]) -> Estimate:
    """The median, with its 95 % bootstrap interval; values may be infinite."""
    array = np.array(values, float)
    medians = np.concatenate(
        # Not interpolated: the middle of a number and infinity is none.
        [
            np.percentile(array[draws], 50, axis=1, method="lower")
            for draws in _resamples(len(array))
        ]
    )
    low, high = np.percentile(medians, [2.5, 97.5], method="nearest")
    middle = np.percentile(array, 50, method="lower")
    return Estimate(float(middle), float(low), float(high), len(array))


def _resamples(examples: int) -> Iterator[NDArray[np.int64]]:
    """The examples of 2,000 bootstrap resamples, one a row, in blocks: ranks of all at once take
    gigabytes."""
    generator = np.random.default_rng(0)
    at_once = max(1, BLOCK // examples)
    for start in range(0, RESAMPLES, at_once):
        rows = min(at_once, RESAMPLES - start)
        yield generator.integers(0, examples, (rows, examples))


def _bootstrapped(
    value: float,
    examples: int,
    of_resamples: Callable[[NDArray[np.int64]], NDArray[np.float64]],
) -> Estimate:
    """A value with its 95 % bootstrap interval: percentiles of 2,000 resamples of the examples. NaN
    where the value is not defined.

    SciPy's `bootstrap` has no interval where the value is not defined for one resample, which is
    common where most entropies are zero: those resamples are left out here.
    """
    if math.isnan(value):
        return Estimate(math.nan, math.nan, math.nan, examples)
    with np.errstate(invalid="ignore"):
        found = [of_resamples(draws) for draws in _resamples(examples)]
    low, high = np.nanpercentile(np.concatenate(found), [2.5, 97.5])
    return Estimate(value, float(low), float(high), examples)


def _ranks_of_resamples(values: Sequence[float], draws: NDArray[np.int64]) -> NDArray[np.float64]:
    """Ranks of `values[draws]` in each row; equal ones share their mean rank, a NaN has rank NaN.

    The values are sorted once. How often each occurs in a row then says what its ranks are, which
    takes a fifth of the time of sorting every row. Steps work in place: new arrays of this size
    took most of the time.
    """
    distinct, places = np.unique(np.array(values, float), return_inverse=True)
    # Each row has a cell for each distinct value.
    cells = places[draws]
    cells += np.arange(len(draws))[:, None] * len(distinct)
    occurrences = np.bincount(cells.ravel(), minlength=len(draws) * len(distinct))
    occurrences = occurrences.reshape(len(draws), -1)
    ranks: NDArray[np.float64] = np.multiply(occurrences, -0.5)
    ranks += 0.5
    ranks += occurrences.cumsum(1)
    ranks[:, np.isnan(distinct)] = np.nan
    return ranks.take(cells)


def _rank_correlations(
    x: Sequence[float], y: Sequence[float], draws: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Of each resample, NaN where all its values are one."""
    a, b = (_ranks_of_resamples(values, draws) for values in (x, y))
    a -= a.mean(1, keepdims=True)
    b -= b.mean(1, keepdims=True)
    correlations: NDArray[np.float64] = (a * b).sum(1) / np.sqrt((a**2).sum(1) * (b**2).sum(1))
    return correlations


def area_under_curve(scores: Sequence[float], labels: Sequence[bool]) -> float:
    """Probability that a positive example scores above a negative one; NaN without both."""
    from scipy import stats

    positive = [score for score, label in zip(scores, labels, strict=True) if label]
    negative = [score for score, label in zip(scores, labels, strict=True) if not label]
    if not positive or not negative:
        return math.nan
    wins = stats.mannwhitneyu(positive, negative, method="asymptotic").statistic
    return float(wins / (len(positive) * len(negative)))


def area_estimate(scores: Sequence[float], labels: Sequence[bool]) -> Estimate:
    """The area under the curve with its bootstrap interval; NaN without both labels."""
    positive = np.array(labels, bool)
    return _bootstrapped(
        area_under_curve(scores, labels),
        len(labels),
        lambda draws: _areas(scores, positive, draws),
    )


def area_difference(
    ours: Sequence[float], theirs: Sequence[float], labels: Sequence[bool]
) -> Estimate:
    """By how much one score has more area under the curve than another, with its bootstrap
    interval; NaN without both labels."""
    positive = np.array(labels, bool)
    return _bootstrapped(
        area_under_curve(ours, labels) - area_under_curve(theirs, labels),
        len(labels),
        lambda draws: _areas(ours, positive, draws) - _areas(theirs, positive, draws),
    )


def _areas(
    scores: Sequence[float], positive: NDArray[np.bool_], draws: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Under the curve, of each resample: from the ranks of its positive examples."""
    ranks, drawn = _ranks_of_resamples(scores, draws), positive[draws]
    number = drawn.sum(1)
    of_pairs = number * (drawn.shape[1] - number)
    wins = (ranks * drawn).sum(1) - number * (number + 1) / 2
    areas: NDArray[np.float64] = wins / of_pairs
    return areas


def balanced_accuracy(predicted: Sequence[bool], actual: Sequence[bool]) -> float:
    """Mean of the shares of both classes that are predicted right; NaN without both."""
    guess, truth = np.array(predicted, bool), np.array(actual, bool)
    if truth.all() or not truth.any():
        return math.nan
    return float((guess[truth].mean() + (~guess[~truth]).mean()) / 2)


def balanced_accuracy_difference(
    ours: Sequence[bool], theirs: Sequence[bool], actual: Sequence[bool]
) -> Estimate:
    """By how much more balanced accuracy one prediction has than another, with its bootstrap
    interval; NaN without both classes."""
    truth = np.array(actual, bool)
    our_right, their_right = (np.array(predicted, bool) == truth for predicted in (ours, theirs))
    return _bootstrapped(
        balanced_accuracy(ours, actual) - balanced_accuracy(theirs, actual),
        len(truth),
        lambda draws: _balanced(our_right, truth, draws) - _balanced(their_right, truth, draws),
    )


def _balanced(
    right: NDArray[np.bool_], truth: NDArray[np.bool_], draws: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Of each resample. right: which examples are predicted right."""
    drawn, is_right = truth[draws], right[draws]
    of_positive = (is_right & drawn).sum(1) / drawn.sum(1)
    of_negative = (is_right & ~drawn).sum(1) / (~drawn).sum(1)
    balanced: NDArray[np.float64] = (of_positive + of_negative) / 2
    return balanced


def finite(value: float | None) -> float:
    """The value; NaN where a record has null, because it was not finite."""
    return math.nan if value is None else float(value)


def six_digits(value: float) -> float | None:
    """A value for a table; None for NaN."""
    return None if math.isnan(value) else float(f"{value:.6g}")


def mean_or_none(values: Sequence[float]) -> float | None:
    """The mean; None of no values."""
    return fmean(values) if values else None


def mean_and_spread(values: Sequence[float], digits: int) -> str:
    """Mean and sample standard deviation; a single value stands alone."""
    mean = f"{fmean(values):.{digits}f}"
    return mean if len(values) == 1 else f"{mean} ± {stdev(values):.{digits}f}"
