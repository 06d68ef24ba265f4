"""Training with a fully conflicting bundle (paper, sec. 3.2, fig. 2 and 3).

1,000 points x in [0, 1), class one where x < 0.5. Two layers of two ReLU neurons, softmax, plain
stochastic gradient descent, weights set by hand:

* ``separate``: the first layer maps x to (20 x - 10, 10 - 20 x), after ReLU.
* ``conflicting``: it maps x to (10 + 0.004 x, 10 + 0.002 x). No neuron is dead, gradients reach
  every weight and the input, and every weight is trained; but the activations of any two points
  differ by less than a weight update can see, (learning rate / batch size) |a_i - a_j| < 1e-8.
* ``conflicting-imbalanced``: the same with 660 points of class one.

Predicted for both (hypothesis 1): the outputs become constant, at the classes' shares.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from cbundles.bundles import bundle_entropy
from cbundles.chance import TOY_ORDER, TOY_POINTS, TOY_WEIGHTS, generator
from cbundles.config import FLOAT32
from cbundles.records import (
    InputGradients,
    Origin,
    PlainNetwork,
    ToyHistory,
    ToyRecord,
    ToyTraining,
)
from cbundles.train import arithmetic

POINTS, CLASSES, EPOCHS, BATCH, LEARNING_RATE = 1000, 2, 50, 64, 1e-4
CASES = {"separate": 0.5, "conflicting": 0.5, "conflicting-imbalanced": 0.66}
SHOWN = 50  # of the points, in a record
PLAIN_LAYERS, PLAIN_WIDTH = 50, 200  # the network that gradients are compared with


class Params(NamedTuple):
    """w1 (2,) and b1 (2,): input to first layer; w2 (2, 2), b2 (2,): first to second layer."""

    w1: Any
    b1: Any
    w2: Any
    b2: Any


def initial(case: str) -> Params:
    """The weights set by hand, float32. The second layer starts with a small error in it, so that
    there is something to unlearn: against the classes in ``separate``, for class one elsewhere."""
    if case == "separate":
        w1, b1, b2 = [20.0, -20.0], [-10.0, 10.0], [10.0, 10.0]
    else:
        w1, b1, b2 = [0.004, 0.002], [10.0, 10.0], [1.0, 0.0]
    arrays = (w1, b1, [[1.0, 0.98], [0.98, 1.0]], b2)
    return Params(*(jnp.asarray(a, jnp.float32) for a in arrays))


def points(case: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Sorted x, float32 (1000,), and one-hot classes (1000, 2)."""
    chance = generator(seed, TOY_POINTS)
    first = round(CASES[case] * POINTS)
    x = np.sort(np.concatenate([chance.random(first) / 2, (1 + chance.random(POINTS - first)) / 2]))
    return x.astype(np.float32), np.eye(CLASSES, dtype=np.float32)[(x >= 0.5).astype(int)]


def hidden(params: Params, x: jax.Array) -> jax.Array:
    """Activations of the first layer, (N, 2), of inputs (N,)."""
    return jax.nn.relu(x[:, None] * params.w1 + params.b1)


def log_outputs(params: Params, x: jax.Array) -> jax.Array:
    """Logarithms of the softmax outputs, (N, 2)."""
    return jax.nn.log_softmax(jax.nn.relu(hidden(params, x) @ params.w2.T + params.b2))


def loss(params: Params, x: jax.Array, y: jax.Array) -> jax.Array:
    """Mean cross-entropy of x (N,) with classes y (N, 2)."""
    return -(y * log_outputs(params, x)).sum(-1).mean()


def norm(gradient: Params) -> jax.Array:
    """Euclidean norm over all weights."""
    return jnp.sqrt(sum(jnp.square(g).sum() for g in jax.tree.leaves(gradient)))


@jax.jit
def epoch(params: Params, x: jax.Array, y: jax.Array) -> tuple[Params, jax.Array]:
    """One pass over batches x (steps, B), y (steps, B, 2): new weights, gradient norms (steps,)."""

    def step(params: Params, batch: tuple[jax.Array, jax.Array]) -> tuple[Params, jax.Array]:
        gradient = jax.grad(loss)(params, *batch)
        new = jax.tree.map(lambda p, g: p - LEARNING_RATE * g, params, gradient)
        return new, norm(gradient)

    return lax.scan(step, params, (x, y))


def train_toy(case: str, seed: int, origin: Origin, precision: str = FLOAT32) -> ToyRecord:
    """Train one case; its record, with a measurement an epoch, the first untrained. precision: of
    the training, from the same initial weights; what is measured is computed in float32."""
    inputs, classes = points(case, seed)
    x, y = jnp.asarray(inputs), jnp.asarray(classes)
    labels, share = classes.argmax(1), CASES[case]
    params, entries = initial(case), []
    with arithmetic(precision):
        trained, wide_x, wide_y = in_precision((params, x, y), precision)
    chance = generator(seed, TOY_ORDER)
    untrained = input_gradients(lambda a: loss(initial(case), a, y), inputs)
    for number in range(EPOCHS + 1):
        amplitude = None
        if number:
            order = chance.permutation(POINTS)[: POINTS // BATCH * BATCH].reshape(-1, BATCH)
            with arithmetic(precision):
                trained, norms = epoch(trained, wide_x[order], wide_y[order])
                amplitude = float(norms.mean())
                params = in_precision(trained, FLOAT32)
        found = bundle_entropy(
            hidden(params, x), labels, num_classes=CLASSES, learning_rate=LEARNING_RATE,
            batch_size=BATCH, amplitude=max(float(jnp.abs(p).max()) for p in params),
        )  # fmt: skip
        outputs = np.exp(np.asarray(log_outputs(params, x)))
        entries.append(
            {
                "gradient_norm": amplitude,
                "accuracy": float((outputs.argmax(1) == labels).mean()),
                "num_bundles": found.num_bundles,
                "entropy": found.entropy,
                "deviation": float(np.abs(outputs - [share, 1 - share]).max()),
                "outputs": np.round(outputs[:: POINTS // SHOWN], 5).tolist(),
            }
        )
    training = ToyTraining(
        share=share,
        learning_rate=LEARNING_RATE,
        batch_size=BATCH,
        inputs=[round(float(v), 5) for v in inputs[:: POINTS // SHOWN]],
        history=ToyHistory.of_entries(entries),
        precision=precision,
    )
    return ToyRecord(
        id=f"{case}-{seed}",
        origin=origin,
        case=case,
        seed=seed,
        points=POINTS,
        gradients=gradients_over_inputs(inputs, untrained),
        trained=training,
    )


def in_precision(tree: Any, precision: str) -> Any:
    """All arrays of a tree in this number format."""
    return jax.tree.map(lambda a: a.astype(precision), tree)


def plain(seed: int, origin: Origin, *, standardised: bool) -> ToyRecord:
    """The gradient of a deep plain network's output by its input, untrained.

    50 layers of 200 ReLU neurons, no skip connections, He initialisation; the biases of the first
    layer place its kinks among the inputs, the others are zero. standardised: every layer is
    standardised over the inputs (mean and deviation as constants), so that a neuron is active for
    about half of them, as the theory of shattered gradients assumes. Otherwise activations of all
    inputs soon point the same way, and few neurons ever switch.
    """
    chance = generator(seed, TOY_WEIGHTS)
    x, _ = points("separate", seed)
    size = (PLAIN_LAYERS - 1, PLAIN_WIDTH, PLAIN_WIDTH)
    first = jnp.asarray(chance.standard_normal(PLAIN_WIDTH) * np.sqrt(2), jnp.float32)
    kinks = jnp.asarray(chance.random(PLAIN_WIDTH), jnp.float32)
    scale = np.sqrt(2 / PLAIN_WIDTH)
    weights = jnp.asarray(chance.standard_normal(size) * scale, jnp.float32)
    last = jnp.asarray(chance.standard_normal(PLAIN_WIDTH) * scale, jnp.float32)

    def activation(z: jax.Array) -> jax.Array:
        if standardised:
            mean, deviation = lax.stop_gradient((z.mean(0), z.std(0)))
            z = (z - mean) / deviation
        return jax.nn.relu(z)

    def output(x: jax.Array) -> jax.Array:
        a = jax.nn.relu((x[:, None] - kinks) * first)
        a, _ = lax.scan(lambda a, w: (activation(a @ w), None), a, weights)
        return (a @ last).sum()

    case = "standardised" if standardised else "plain"
    return ToyRecord(
        id=f"{case}-{seed}",
        origin=origin,
        case=case,
        seed=seed,
        points=POINTS,
        gradients=gradients_over_inputs(x, input_gradients(output, x)),
        plain=PlainNetwork(layers=PLAIN_LAYERS, width=PLAIN_WIDTH),
    )


def input_gradients(function: Callable[[jax.Array], jax.Array], x: np.ndarray) -> np.ndarray:
    """The gradient of a sum (or mean) over points by each point, (N,)."""
    return np.asarray(jax.jit(jax.grad(function))(jnp.asarray(x)), np.float64)


def gradients_over_inputs(x: np.ndarray, gradients: np.ndarray, lags: int = 16) -> InputGradients:
    """Gradients over the sorted inputs, scaled to a largest value of 1, and their autocorrelation
    at lags 0 to 15 points."""
    scaled = gradients / np.abs(gradients).max()
    centred = scaled - scaled.mean()
    energy = (centred**2).sum()
    correlation = [(centred[lag:] * centred[: len(x) - lag]).sum() / energy for lag in range(lags)]
    return InputGradients(
        inputs=[round(float(v), 5) for v in x],
        values=[round(float(v), 5) for v in scaled],
        autocorrelation=[round(float(c), 5) for c in correlation],
    )
