"""Audits of Keras models on JAX."""

from __future__ import annotations

import os

import brute_force
import numpy as np
import pytest

import cbundles
from cbundles.autotuning import trained

os.environ["KERAS_BACKEND"] = "jax"  # read when Keras is imported, which nothing else does here
keras = pytest.importorskip("keras")

LABELS = np.arange(40) % 3
IMAGES = np.random.default_rng(0).standard_normal((40, 32, 32, 3)).astype(np.float32)


def numbers_of(model):
    return [np.array(variable.value) for variable in model.variables]


def small_model():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(4, 3, padding="same", name="stem")(inputs)
    h = keras.layers.BatchNormalization(name="norm")(x)
    h = keras.layers.Activation("relu", name="bend")(h)
    h = keras.layers.Dropout(0.5)(keras.layers.Conv2D(4, 3, padding="same", name="out")(h))
    x = keras.layers.Add(name="add")([x, h])
    x = keras.layers.Dense(6, activation="gelu", name="hidden")(keras.layers.Flatten()(x))
    return keras.Model(inputs, keras.layers.Dense(3, activation="softmax")(x), name="small")


def test_every_layer_of_a_model(captured):
    model, images = small_model(), IMAGES[:, :8, :8]
    before, output = numbers_of(model), model(images, training=False)
    audit = brute_force.audit_and_compare(captured, model, images, LABELS, rate=3e-6)
    names = [layer.name for layer in audit.layers]
    assert names == ["small/bend/relu", "small/add/sum", "small/hidden/gelu"]
    assert audit.amplitude.parameter in {variable.path for variable in model.trainable_variables}
    assert all(map(np.array_equal, before, numbers_of(model)))
    np.testing.assert_array_equal(model(images, training=False), output)
    # By other means: what Keras itself gives for an inner layer.
    inner = keras.Model(model.input, model.get_layer("bend").output)
    values = brute_force.joined(captured["sign_once", names[0]], 0, len(LABELS))[0]
    by_keras = np.asarray(inner(images, training=False)).reshape(len(LABELS), -1)
    np.testing.assert_allclose(values, by_keras, atol=1e-5)


@keras.saving.register_keras_serializable("cbundles")
class SameNames(keras.Model):
    """Layers of one name, of which the first has the largest weight."""

    def __init__(self):
        super().__init__()
        self.parts = [keras.layers.Dense(6, activation="relu", name="part") for _ in range(3)]

    def call(self, x):
        for part in self.parts:
            x = part(x)
        return x


def test_layers_of_the_same_name_are_told_apart():
    model = SameNames()
    vectors = np.random.default_rng(0).standard_normal((40, 6)).astype(np.float32)
    model(vectors)
    model.parts[0].kernel.assign(np.full((6, 6), 43.0, np.float32))
    audit = cbundles.audit(model, vectors, LABELS, insert=True)
    assert audit.amplitude.value == 43.0


def test_the_numbers_of_a_tuned_model_are_kept_by_their_places():
    """Keras names layers anew whenever a model is built."""
    first = small_model()
    first.variables[0].assign(np.ones(first.variables[0].shape))
    kept = trained.numbers_of(trained.Trained(first, None))
    assert all(array.dtype != object for array in kept.values())
    again = trained.with_numbers(trained.Trained(small_model(), None), kept).model
    assert all(map(np.array_equal, numbers_of(first), numbers_of(again)))
    unbuilt = keras.Sequential([keras.layers.Dense(3)])
    unbuilt(np.ones((1, 6), np.float32))
    of_dense = trained.numbers_of(trained.Trained(unbuilt, None))
    inputs = np.ones((4, 6), np.float32)
    fresh = trained.Trained(keras.Sequential([keras.layers.Dense(3)]), None)
    filled = trained.with_numbers(fresh, of_dense, inputs).model
    assert all(map(np.array_equal, numbers_of(unbuilt), numbers_of(filled)))
    with pytest.raises(ValueError, match="of another model"):
        trained.with_numbers(trained.Trained(unbuilt, None), kept)


def test_the_statistics_of_the_batch_by_a_call_of_ones_own():
    model, images = small_model(), IMAGES[:, :8, :8]
    before = numbers_of(model)
    with pytest.raises(ValueError, match="a Keras model is told so"):
        cbundles.audit(model, images, LABELS, batch_norm="batch")

    def training(model, batch):
        return model(batch, training=True)

    by_batch = cbundles.audit(
        model, images, LABELS, batch_norm="batch", call=training, headroom=False
    )
    assert len(by_batch.layers) == 3
    assert all(map(np.array_equal, before, numbers_of(model)))


def test_a_monitor_measures_while_keras_trains():
    """Within an epoch `fit` alone has the numbers of a model."""
    model, images = small_model(), IMAGES[:, :8, :8]
    model.compile("adam", "sparse_categorical_crossentropy")
    found = []
    monitor = cbundles.Monitor(model, images, LABELS, every=1, folder=None, on_measure=found.append)

    class Watch(keras.callbacks.Callback):
        steps = 0

        def on_train_batch_end(self, batch, logs=None):
            self.steps += 1
            monitor(self.steps)

    model.fit(images, LABELS, epochs=2, batch_size=20, callbacks=[Watch()], verbose=0)
    assert [one.step for one in found] == [1, 2, 3, 4]
    assert len({one.audit.amplitude.value for one in found}) == 4
    after = cbundles.audit(model, images, LABELS, headroom=False)
    assert found[-1].audit.amplitude.value == after.amplitude.value


def test_a_model_of_keras_applications():
    model = keras.applications.MobileNetV2((32, 32, 3), alpha=0.35, weights=None, classes=3)
    before = numbers_of(model)
    audit = cbundles.audit(model, IMAGES, LABELS, amplitude="consumer", headroom=False)
    kinds = [layer.kind for layer in audit.layers]
    assert kinds.count("activation") == 35 and kinds.count("sum") == 10
    assert audit.layers[-1].name.endswith("out_relu/relu6")
    assert all(map(np.array_equal, before, numbers_of(model)))


def test_a_model_that_is_not_built():
    with pytest.raises(ValueError, match="has no weights yet"):
        cbundles.audit(keras.Sequential([keras.layers.Dense(3)]), IMAGES, LABELS)
