"""The original input pipelines in TensorFlow's own operations, with given chance.

A program, because TensorFlow must not share a process with JAX: ``tensorflow_pixels.py IN OUT``.
IN holds arrays named NAME_images, NAME_corner, NAME_flip, NAME_brightness for each pipeline, and
`photo`; OUT gets NAME_train, NAME_test and `photo`.
"""

from __future__ import annotations

import sys

import numpy as np
import tensorflow as tf

ENLARGED = {"mnist": 32, "cifar10": 38, "svhn_cropped": 36, "imagenette": 138}


def train(name, image, corner, flip, brightness):
    size = image.shape[0]
    image = tf.image.convert_image_dtype(image, tf.float32)
    if name == "cifar10":
        image = tf.image.per_image_standardization(image)
    image = tf.image.resize_with_pad(image, ENLARGED[name], ENLARGED[name])
    image = image[corner[0] : corner[0] + size, corner[1] : corner[1] + size]
    if name in ("cifar10", "imagenette") and flip:
        image = tf.image.flip_left_right(image)
    if name in ("svhn_cropped", "imagenette"):
        image = tf.image.per_image_standardization(image)
    return tf.image.adjust_brightness(image, brightness)


def test(name, image):
    size = image.shape[0]
    image = tf.image.convert_image_dtype(image, tf.float32)
    if name != "cifar10":
        image = tf.image.resize_with_pad(image, size, size)
    return image if name == "mnist" else tf.image.per_image_standardization(image)


def main() -> None:
    given = dict(np.load(sys.argv[1]))
    result = {}
    for name in ENLARGED:
        images = given[f"{name}_images"]
        chance = [given[f"{name}_{key}"] for key in ("corner", "flip", "brightness")]
        views = [train(name, *each) for each in zip(images, *chance, strict=True)]
        result[f"{name}_train"] = np.stack(views)
        result[f"{name}_test"] = np.stack([test(name, image) for image in images])
    photo = given["photo"].astype(np.float32)
    result["photo"] = np.asarray(tf.image.resize_with_pad(photo, 128, 128))
    np.savez(sys.argv[2], **result)


if __name__ == "__main__":
    main()
