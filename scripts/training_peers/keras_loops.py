"""Keras on TensorFlow: its own `fit`, and the loop with one `GradientTape` for each batch, as the
original implementation trains. Accelerators are hidden, since the comparison is one of CPUs."""

from __future__ import annotations

import os
from typing import Any

os.environ["KERAS_BACKEND"] = "tensorflow"  # read when Keras is imported
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops

from training_peers.task import (
    BATCH,
    CLASSES,
    FC,
    LEARNING_RATE,
    WEIGHT_DECAY,
    Task,
    first_weights,
    strides_of,
)

tf.config.set_visible_devices([], "GPU")
BRIGHTNESS, ENLARGED = 0.25, 32
SHUFFLE_BUFFER = 10  # of the original for MNIST


class Ranger(keras.optimizers.Optimizer):
    """RAdam inside Lookahead, see `cbundles.optim`. Keras has neither."""

    B1, B2, EPSILON, THRESHOLD, SYNC_PERIOD = 0.9, 0.999, 1e-6, 5.0, 6

    def build(self, variables: list[Any]) -> None:
        if self.built:
            return
        super().build(variables)
        self.means = self.add_optimizer_variables(variables, "mean")
        self.squares = self.add_optimizer_variables(variables, "square")
        self.slow = self.add_optimizer_variables(variables, "slow")
        for slow, variable in zip(self.slow, variables, strict=True):
            slow.assign(variable)

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        place = self._get_variable_index(variable)
        mean, square, slow = self.means[place], self.squares[place], self.slow[place]
        step = ops.cast(self.iterations + 1, "float32")
        mean.assign(self.B1 * mean + (1 - self.B1) * gradient)
        square.assign(self.B2 * square + (1 - self.B2) * ops.square(gradient))
        power = ops.power(self.B2, step)
        longest = 2 / (1 - self.B2) - 1
        length = longest - 2 * step * power / (1 - power)
        corrected = mean / (1 - ops.power(self.B1, step))
        rectified = ops.maximum((length - 4) * (length - 2) * longest, 0.0) / (
            (longest - 4) * (longest - 2) * length
        )
        adaptive = ops.sqrt(rectified) * corrected
        adaptive /= ops.sqrt(square / (1 - power)) + self.EPSILON
        update = ops.where(length >= self.THRESHOLD, adaptive, corrected)
        fast = variable - learning_rate * (update + WEIGHT_DECAY * variable)
        is_synced = ops.equal((self.iterations + 1) % self.SYNC_PERIOD, 0)
        between = slow + 0.5 * (fast - slow)
        slow.assign(ops.where(is_synced, between, slow))
        variable.assign(ops.where(is_synced, between, fast))


class KerasFit:
    """`model.fit`, as Keras is used: on a CPU "auto" is a graph of TensorFlow's own operations."""

    COMPILED: bool | str = "auto"

    def __init__(self, task: Task) -> None:
        self.networks = 1
        self.images, self.labels = task.batches()
        self.model = _model(task)
        self.model.compile(_optimizer(self.model), loss=_loss(), jit_compile=self.COMPILED)

    def first_losses(self, steps: int) -> list[float]:
        losses = []
        for number in range(steps):
            rows = slice(number * BATCH, (number + 1) * BATCH)
            losses += self._fit(self.images[rows], self.labels[rows]).history["loss"]
        return losses

    def train_for_a_turn(self) -> None:
        self._fit(self.images, self.labels)

    def _fit(self, images: np.ndarray, labels: np.ndarray) -> Any:
        return self.model.fit(images, labels, batch_size=BATCH, shuffle=False, verbose=0)


class KerasFitWithXla(KerasFit):
    """The same, compiled by XLA."""

    COMPILED = True


class GradientTapeLoop:
    """One step a batch, a graph of TensorFlow; batches come from `tf.data`, where images are also
    augmented one by one, as the original does it."""

    def __init__(self, task: Task) -> None:
        self.networks = 1
        model, loss_of = _model(task), _loss()
        optimizer = _optimizer(model)

        def step(images: Any, labels: Any) -> Any:
            with tf.GradientTape() as tape:
                loss = loss_of(labels, model(images, training=True))
            gradients = tape.gradient(loss, model.trainable_variables)
            optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
            return loss

        self.step = tf.function(step)
        plain = tf.data.Dataset.from_tensor_slices(task.batches())
        self.plain = plain.batch(BATCH, drop_remainder=True).prefetch(tf.data.AUTOTUNE)
        self.batches = _augmented(task) if task.augmented else self.plain

    def first_losses(self, steps: int) -> list[float]:
        return [float(self.step(*batch)) for batch in self.plain.take(steps)]

    def train_for_a_turn(self) -> None:
        for images, labels in self.batches:
            loss = self.step(images, labels)
        loss.numpy()


def _augmented(task: Task) -> Any:
    """The original's pipeline for MNIST: enlarge, crop, change the brightness."""

    def augment(image: Any, label: Any) -> tuple[Any, Any]:
        image = tf.image.convert_image_dtype(image, tf.float32)
        image = tf.image.resize_with_pad(image, ENLARGED, ENLARGED)
        image = tf.image.random_crop(image, (28, 28, 1))
        return tf.image.random_brightness(image, BRIGHTNESS), label

    images = tf.data.Dataset.from_tensor_slices(task.images()).shuffle(SHUFFLE_BUFFER)
    batches = images.map(augment, tf.data.AUTOTUNE).batch(BATCH, drop_remainder=True)
    return batches.prefetch(tf.data.AUTOTUNE)


def _optimizer(model: Any) -> Ranger:
    """Built at once: within a graph the slow weights would begin at zero."""
    optimizer = Ranger(LEARNING_RATE)
    optimizer.build(model.trainable_variables)
    return optimizer


def _loss() -> Any:
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def _model(task: Task) -> Any:
    """The network with its first weights."""
    model = _perceptron(task) if task.family == FC else _vgg(task)
    weights = first_weights(task)
    of_convolutions, of_dense = iter(weights.convolutions), iter(weights.dense)
    for layer in model.layers:
        if isinstance(layer, layers.Conv2D):
            unit = next(of_convolutions)
            layer.set_weights([unit.kernel, unit.bias])
        elif isinstance(layer, layers.BatchNormalization):
            ones = np.ones_like(unit.gamma)
            layer.set_weights([unit.gamma, unit.beta, 0 * ones, ones])
        elif isinstance(layer, layers.Dense):
            layer.set_weights(next(of_dense))
    return model


def _perceptron(task: Task) -> Any:
    hidden = [layers.Dense(task.width, activation="relu") for _ in range(task.depth)]
    start = [keras.Input((28, 28, 1)), layers.Flatten()]
    return keras.Sequential([*start, *hidden, layers.Dense(CLASSES)])


def _vgg(task: Task) -> Any:
    filters = task.width
    stack = [keras.Input((32, 32, 3)), *_normalised(filters, 7, 2)]
    for stride in strides_of(task):
        filters *= stride
        stack += _normalised(filters, 3, stride)
    return keras.Sequential([*stack, layers.GlobalAveragePooling2D(), layers.Dense(CLASSES)])


def _normalised(filters: int, size: int, stride: int) -> list[Any]:
    """A convolution, its normalisation and ReLU."""
    convolution = layers.Conv2D(filters, size, stride, padding="same")
    return [convolution, layers.BatchNormalization(), layers.ReLU()]
