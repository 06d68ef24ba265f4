"""Models that functions of a user return, and the images that they are given."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console

from cbundles import config, data
from cbundles.commands.output import say_contents, say_remarks
from cbundles.commands.running import Options
from cbundles.config import Data, Images, Probe
from cbundles.data.dataset import Dataset
from cbundles.errors import InputError
from cbundles.user_functions import function_of_name, in_words, printing_beside

if TYPE_CHECKING:
    from cbundles.arrays import Numbers

DATASET_IS_MISSING = "--dataset is missing: mnist_mini, mnist, ... or folder:PATH"


def load_dataset(images: Images, options: Options) -> Dataset:
    """The images of a data set, decoded."""
    return data.load(*images, data_dir=options.data_dir, manual_dir=options.manual_dir)


def load_named(images: Images, options: Options, console: Console) -> Dataset:
    """The images of a data set that the user names; of a folder it is said what was found."""
    say_contents(images.name, options, console)
    dataset = load_dataset(images, options)
    say_remarks(images, options, console)
    return dataset


def checked_data(images: Images, command: str) -> Data:
    """Settings with these images, as a file of settings would have them."""
    any_model = {"family": "fc", "depth": 1, "width": 1}
    chosen: dict[str, Any] = {"name": images.name}
    if images.size is not None:
        chosen["image_size"] = images.size
    content = {"data": chosen, "model": any_model}
    return config.build(content, default_name=command, file="--dataset").cells[0].data


def prepared_images(stored: Numbers, settings: Data, model: Any) -> Numbers:
    """Images as networks see them, not augmented; with the channels first for PyTorch."""
    import jax.numpy as jnp

    from cbundles.data import augment, pipelines

    images = augment.plain(jnp.asarray(stored), pipelines.pipeline_for(settings))
    if is_of_pytorch(model) and images.ndim == 4:
        return np.asarray(images).transpose(0, 3, 1, 2)
    return images


def probe_set(
    dataset: Dataset, settings: Data, model: Any, samples: int
) -> tuple[Numbers, np.ndarray]:
    """Images of training on which layers are measured, prepared, and their labels: always the same
    ones, as many as wanted where there are so many."""
    from cbundles.chance import PROBE_SET, generator
    from cbundles.data import device

    there = len(dataset.train_labels)
    probe = Probe(samples=min(samples, there))
    rows = device.probe_rows(probe, there, generator(probe.seed, PROBE_SET))
    images = prepared_images(dataset.train_images[rows], settings, model)
    return images, dataset.train_labels[rows]


def is_of_pytorch(model: Any) -> bool:
    """Whether a model is a module of PyTorch."""
    from cbundles.auditing.models import pytorch

    return pytorch.is_module(model)


def built_model(target: str, command: str) -> tuple[Any, Any]:
    """The model that a function returns, and its params if it returns a pair. Raises InputError,
    which says what is wrong with the name or what the function raised."""
    function = function_of_name(target, f"{command} {target}")
    try:
        with printing_beside():
            made = function()
    except (Exception, SystemExit) as error:  # whatever a function raises
        raise InputError(f"{command} {target}: {in_words(error)}") from error
    if isinstance(made, tuple):
        if len(made) != 2:
            raise InputError(
                f"{command} {target}: returned {len(made)} values; a model, or a model and its "
                "params"
            )
        return made
    return made, None
