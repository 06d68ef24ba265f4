"""What is done to the images of a data set before a network sees them, as plain facts.

The original code has a pipeline for each of its data sets; the table says what they do, and
`augment` does it. No JAX here: planning needs to know how much an image grows.
"""

from __future__ import annotations

from typing import NamedTuple

from cbundles.config import Data, own_pipeline
from cbundles.errors import InputError

BRIGHTNESS = 0.25


class Augmentation(NamedTuple):
    """enlarge: pixels added to height and width before a random crop back to the original size.
    flip: mirror left and right, every other image by chance.
    brightness: largest absolute offset, one draw an image, always last, never clipped.
    standardize: whether each image gets mean 0 and deviation 1, "no", or "before" or "after" the
    crop (and the flip). Test images, which have no crop, are standardised in either case."""

    enlarge: int = 0
    flip: bool = False
    brightness: float = 0.0
    standardize: str = "no"

    @property
    def by_chance(self) -> bool:
        """Whether an image is not always the same."""
        return self.enlarge > 0 or self.flip or self.brightness > 0

    @property
    def without_chance(self) -> Augmentation:
        """What remains for a training image that is not augmented; nothing is cropped, so it may
        be standardised once and for all."""
        return Augmentation(standardize="no" if self.standardize == "no" else "before")


NONE = Augmentation()
ORIGINAL = {
    "mnist": Augmentation(enlarge=4, brightness=BRIGHTNESS),
    "cifar10": Augmentation(6, flip=True, brightness=BRIGHTNESS, standardize="before"),
    "svhn_cropped": Augmentation(4, brightness=BRIGHTNESS, standardize="after"),
    "imagenette": Augmentation(10, flip=True, brightness=BRIGHTNESS, standardize="after"),
    "plain": NONE,
}


def pipeline_for(data: Data) -> Augmentation:
    """The pipeline that a cell's training images go through."""
    name = own_pipeline(data.name) if data.pipeline == "auto" else data.pipeline
    original = ORIGINAL[name]
    return original if data.augmentation == "original" else original.without_chance


def require_square(data: Data, image_shape: tuple[int, int, int]) -> None:
    """InputError for images that are to be enlarged and are not square: the original would pad
    these, which no data set here needs."""
    height, width, _ = image_shape
    if pipeline_for(data).enlarge and height != width:
        raise InputError(
            f"data.pipeline = {data.pipeline!r}: enlarges square images only, those of {data.name} "
            f"are {width}x{height}; nearest valid: data.augmentation = 'none'"
        )
