"""A network of keras.applications on JAX, trained for a moment, then audited.

python examples/keras_application.py                                     # with a picture
cbundles audit examples.keras_application:build --dataset mnist_mini     # on the command line
"""

import os

import numpy as np

import cbundles
from cbundles import data

os.environ["KERAS_BACKEND"] = "jax"  # read when Keras is imported
import keras

BATCH_SIZE, STEPS, SAMPLES = 64, 60, 1024


def load_images():
    digits = data.load("mnist_mini")
    return np.asarray(digits.train_images, np.float32) / 255, np.asarray(digits.train_labels)


def build(steps=STEPS):
    images, labels = load_images()
    keras.utils.set_random_seed(0)
    network = keras.applications.MobileNet((32, 32, 1), alpha=0.25, weights=None, classes=10)
    inputs = keras.Input((28, 28, 1))
    model = keras.Model(inputs, network(keras.layers.ZeroPadding2D(2)(inputs)), name="digits")
    model.compile(keras.optimizers.Adam(1e-3), "sparse_categorical_crossentropy")
    seen = slice(steps * BATCH_SIZE)
    model.fit(images[seen], labels[seen], BATCH_SIZE, verbose=0, shuffle=False)
    return model


def normalised_by_the_batch(model, batch):
    return model(batch, training=True)


if __name__ == "__main__":
    model = build()
    images, labels = (array[:SAMPLES] for array in load_images())
    audit = cbundles.audit(model, images, labels)
    print(audit)
    audit.plot("keras_application.png")

    # After so few steps the running means of the normalisations still lag behind the weights.
    by_batch = cbundles.audit(
        model, images, labels, call=normalised_by_the_batch, batch_norm="batch", headroom=False
    )
    print(f"\nNormalised by the statistics of the images themselves: {by_batch.verdict[0]}")
