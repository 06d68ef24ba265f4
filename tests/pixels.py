"""What the original input pipelines do to one image, in plain float64 NumPy: slow and explicit."""

from __future__ import annotations

import numpy as np


def as_float(image: np.ndarray) -> np.ndarray:
    return (image.astype(np.float32) * np.float32(1 / 255)).astype(np.float64)


def resized(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Bilinear with half-pixel centres, one output pixel at a time; image: (H, W, C)."""
    result = np.zeros((height, width, image.shape[2]))
    for i in range(height):
        for j in range(width):
            y = min(max((i + 0.5) * image.shape[0] / height - 0.5, 0.0), image.shape[0] - 1.0)
            x = min(max((j + 0.5) * image.shape[1] / width - 0.5, 0.0), image.shape[1] - 1.0)
            top, left = int(y), int(x)
            bottom, right = min(top + 1, image.shape[0] - 1), min(left + 1, image.shape[1] - 1)
            upper = (1 - (x - left)) * image[top, left] + (x - left) * image[top, right]
            lower = (1 - (x - left)) * image[bottom, left] + (x - left) * image[bottom, right]
            result[i, j] = (1 - (y - top)) * upper + (y - top) * lower
    return result


def standardized(image: np.ndarray) -> np.ndarray:
    return (image - image.mean()) / max(image.std(), 1 / np.sqrt(image.size))


def cropped(image: np.ndarray, corner: np.ndarray, size: int) -> np.ndarray:
    return image[corner[0] : corner[0] + size, corner[1] : corner[1] + size]


def mirrored(image: np.ndarray) -> np.ndarray:
    return image[:, ::-1]


def mnist(image, corner, flip, brightness):
    size = image.shape[0]
    image = resized(as_float(image), size + 4, size + 4)
    return cropped(image, corner, size) + brightness


def cifar10(image, corner, flip, brightness):
    size = image.shape[0]
    image = standardized(as_float(image))
    image = cropped(resized(image, size + 6, size + 6), corner, size)
    image = mirrored(image) if flip else image
    return image + brightness


def svhn_cropped(image, corner, flip, brightness):
    size = image.shape[0]
    image = cropped(resized(as_float(image), size + 4, size + 4), corner, size)
    return standardized(image) + brightness


def imagenette(image, corner, flip, brightness):
    size = image.shape[0]
    image = cropped(resized(as_float(image), size + 10, size + 10), corner, size)
    image = mirrored(image) if flip else image
    return standardized(image) + brightness


TRAIN = {
    "mnist": mnist,
    "cifar10": cifar10,
    "svhn_cropped": svhn_cropped,
    "imagenette": imagenette,
}
TEST = {
    "mnist": as_float,
    "cifar10": lambda image: standardized(as_float(image)),
    "svhn_cropped": lambda image: standardized(as_float(image)),
    "imagenette": lambda image: standardized(as_float(image)),
}
