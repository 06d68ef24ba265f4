"""Peers of the bundle entropy: what others measure of a layer, as functions of arrays.

Each measure is a pure function of NumPy arrays, computed in float64, that needs neither a model nor
an audit. `rows` are the activations of a layer, one row for each sample. Where a measure needs less
than all of them, a second function takes the sums that suffice, so that it can be streamed; the
first is written in terms of it.

    effective_rank      of how many directions the activations make use
    class_cosine        how alike the activations of different classes are
    relu_state_entropy  how much ReLUs switch
    block_change        how far a residual block turns its input
    gradient_norm       how strongly the loss pulls at the layer's parameters
    batch_entropy       how much the activations vary from sample to sample

A measure is None where it is undefined: no directions, a single class, a single sample. Activations
that are NaN or infinite are the caller's business; results are then NaN.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable

import numpy as np
import scipy.linalg
from jaxtyping import Bool, Float, Float64, Integer, Num

Rows = Float[np.ndarray, "samples features"]

# Directions whose squared singular values are smaller than this share of the largest one's are
# rounding: of float32 activations, whose epsilon is 1.2e-7.
NEGLIGIBLE_DIRECTION = float(np.finfo(np.float32).eps) ** 2
BLOCK = 64  # samples, or features


def effective_rank(rows: Rows) -> float | None:
    """Of how many directions the activations make use, from 1 to the smaller side of `rows`.

    exp(- sum_k p_k ln p_k) with p_k = s_k / sum_j s_j, where s are the singular values of the
    matrix of activations, not centred. Olivier Roy and Martin Vetterli, "The effective rank: a
    measure of effective dimensionality", EUSIPCO 2007.

    >>> round(effective_rank(np.eye(4)), 6)
    4.0
    """
    return effective_rank_of_gram(gram_of(rows))


def gram_of(rows: Rows) -> Float64[np.ndarray, "features features"]:
    """The products of all pairs of features, summed over the samples."""
    array = np.asarray(rows, np.float64)
    samples, features = array.shape
    gram = np.zeros((features, features))
    # A product of 64 x 64 x 64 numbers stays in one thread. Larger ones are shared out by OpenBLAS
    # to threads that wait for each other: on a busy machine ten times as long.
    for sample, row, column in itertools.product(
        range(0, samples, BLOCK), range(0, features, BLOCK), range(0, features, BLOCK)
    ):
        if row <= column:
            block = array[sample : sample + BLOCK]
            left, right = block[:, row : row + BLOCK], block[:, column : column + BLOCK]
            gram[row : row + BLOCK, column : column + BLOCK] += left.T @ right
    return np.triu(gram) + np.triu(gram, 1).T


def effective_rank_of_gram(gram: Float64[np.ndarray, "features features"]) -> float | None:
    """`effective_rank`, from the products of all pairs of features, summed over the samples."""
    if not np.isfinite(gram).all():
        return math.nan
    # As a band of full width, for the reason given in `gram_of`: the method for others took a
    # second instead of 10 ms.
    lower = np.zeros_like(gram)
    for diagonal in range(len(gram)):
        lower[diagonal, : len(gram) - diagonal] = np.diagonal(gram, -diagonal)
    squares = scipy.linalg.eigvals_banded(lower, lower=True)
    largest = squares.max(initial=0.0)
    if not largest > 0:
        return None
    singular = np.sqrt(squares[squares > largest * NEGLIGIBLE_DIRECTION])
    shares = singular / singular.sum()
    return float(np.exp(-(shares * np.log(shares)).sum()))


def class_cosine(rows: Rows, labels: Integer[np.ndarray, " samples"]) -> float | None:
    """How alike activations of different classes are, from -1 to 1: 1 where no direction tells
    classes apart.

    The mean over all pairs of classes j, k, j != k, of
    1/(N_j N_k) sum_mn cos(x_jm, x_kn), of activations that are not centred. This is the mean cosine
    of Simon Kornblith et al., "Why do better loss functions lead to less transferable features?",
    NeurIPS 2021, in whose class separation 1 - d_within / d_total both d are means of 1 - cos over
    pairs of samples; here over the pairs of different classes alone. Of two samples it is the
    correlation that tends to 1 with depth in Samuel Schoenholz et al., "Deep information
    propagation", ICLR 2017. A sample whose activations are all 0 has no direction and is left out.

    >>> class_cosine(np.array([[1.0, 0], [2, 0], [0, 3]]), np.array([0, 0, 1]))
    0.0
    """
    directions, has_one = directions_of(rows)
    numbered = np.unique(labels, return_inverse=True)[1]
    sums, counts = class_sums(directions[has_one], numbered[has_one], int(numbered.max()) + 1)
    return class_cosine_of_sums(sums, counts)


def directions_of(
    rows: Rows,
) -> tuple[Float64[np.ndarray, "samples features"], Bool[np.ndarray, " samples"]]:
    """Each row divided by its length, and which rows have one above 0."""
    array = np.asarray(rows, np.float64)
    lengths = np.linalg.norm(array, axis=1, keepdims=True)
    has_one = lengths[:, 0] != 0
    return array / np.where(lengths == 0, 1.0, lengths), has_one


def class_sums(
    directions: Float64[np.ndarray, "samples features"],
    labels: Integer[np.ndarray, " samples"],
    num_classes: int,
) -> tuple[Float64[np.ndarray, "classes features"], Integer[np.ndarray, " classes"]]:
    """The sum of the directions of each class, and how many there are."""
    sums = np.zeros((num_classes, directions.shape[1]))
    np.add.at(sums, labels, directions)
    return sums, np.bincount(labels, minlength=num_classes)


def class_cosine_of_sums(
    sums: Float64[np.ndarray, "classes features"], counts: Integer[np.ndarray, " classes"]
) -> float | None:
    """`class_cosine`, from the sum of the directions of each class and how many there are."""
    occurring = counts > 0
    classes = int(occurring.sum())
    if classes < 2:
        return None
    means = sums[occurring] / counts[occurring, None]
    # The products of all pairs of means are the square of their sum; those with themselves go.
    of_pairs = np.square(means.sum(0)).sum() - np.square(means).sum()
    return float(of_pairs / (classes * (classes - 1)))


def relu_state_entropy(rows: Rows) -> float | None:
    """How much ReLUs switch, in bits: 0 where each one is on for all samples or off for all of
    them, so that the layer is a linear one; 1 where each is on for half of the samples.

    The mean over units of - p log2 p - (1 - p) log2 (1 - p), where p is the share of samples for
    which the unit is on, that is above 0. Zhu Liao et al., "Can unstructured pruning reduce the
    depth in deep neural networks?", ICCV workshops 2023; Victor Quétu et al., "The simpler the
    better: an entropy-based importance metric to reduce neural networks' depth", ECML PKDD 2024.
    Every feature is a unit here; in the latter's code a channel is.

    >>> relu_state_entropy(np.array([[0.0, 1.0], [2.0, 1.0]]))
    0.5
    """
    array = np.asarray(rows)
    return relu_state_entropy_of_counts((array > 0).sum(0), len(array))


def relu_state_entropy_of_counts(
    switched_on: Integer[np.ndarray, " units"], samples: int
) -> float | None:
    """`relu_state_entropy`, from the number of samples for which each unit is on."""
    if not samples or not switched_on.size:
        return None
    on = switched_on / samples
    shares = np.stack([on, 1 - on])
    logarithms = np.log2(shares, where=shares > 0, out=np.zeros_like(shares))
    return float(-(shares * logarithms).sum(0).mean())


def block_change(inputs: Rows, outputs: Rows) -> float | None:
    """How far a residual block turns its input, from 0 to 2: 0 where it only stretches it.

    The mean over samples of 1 - cos(in, out). Xin Men et al., "ShortGPT: layers in large language
    models are more redundant than you expect", 2024, as "block influence", there of tokens. A
    sample of which either is all 0 is left out.

    >>> round(block_change(np.array([[1.0, 0.0]]), np.array([[1.0, 1.0]])), 4)
    0.2929
    """
    before, has_one = directions_of(inputs)
    after, has_other = directions_of(outputs)
    both = has_one & has_other
    if not both.any():
        return None
    # 1 - cos is half of the squared distance of two directions, which small angles do not cancel.
    return float((np.square(before - after)[both].sum(1) / 2).mean())


def gradient_norm(gradients: Iterable[Num[np.ndarray, "..."]]) -> float:
    """How strongly the loss pulls at some parameters: the Euclidean norm of its gradient by all of
    them together, sqrt(sum_i (dJ / dw_i)^2). Xavier Glorot and Yoshua Bengio, "Understanding the
    difficulty of training deep feedforward neural networks", AISTATS 2010, compare gradients layer
    by layer.

    >>> gradient_norm([np.array([3.0]), np.array([[4.0]])])
    5.0
    """
    squares = [np.square(np.asarray(one, np.float64)).sum() for one in gradients]
    return float(np.sqrt(sum(squares)))


def batch_entropy(rows: Rows) -> float | None:
    """How much activations vary from sample to sample, in nats: 0 where they do not at all.

    The mean over units of 1/2 ln(pi e s^2 + 1), where s is the unit's standard deviation over the
    samples, with N - 1. David Peer et al., "Improving the trainability of deep neural networks
    through layerwise batch-entropy regularization", TMLR 2022, in the form of their code: a
    Gaussian's differential entropy, 1/2 ln(2 pi e s^2), changed so that it is never below 0. A
    batch is all samples here.

    >>> batch_entropy(np.ones((3, 2)))
    0.0
    """
    array = np.asarray(rows, np.float64)
    if len(array) < 2:
        return None
    return batch_entropy_of_variances(array.var(0, ddof=1))


def batch_entropy_of_variances(variances: Float64[np.ndarray, " units"]) -> float | None:
    """`batch_entropy`, from the variance of each unit, with N - 1."""
    if not variances.size:
        return None
    return float((np.log1p(np.pi * np.e * variances) / 2).mean())
