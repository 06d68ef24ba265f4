"""Where a record comes from, and what every record has."""

from __future__ import annotations

import functools
import typing
from typing import Any

import msgspec

from cbundles import identity
from cbundles.config import OF_BUILD, OWN, SECTIONS, Cell

Setting = str | int | float | bool | None
# What every model of a family has; a VGG or ResNet its depth and blocks.
NEEDED = {"fc": ("depth", "width"), OWN: OF_BUILD}


class Origin(
    msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True, omit_defaults=True
):
    """On what, with what and from which data a record was made.

    platform: ``cpu`` or ``gpu``, as JAX calls it
    device: the accelerator, as JAX calls it
    processor: of the machine, as its operating system calls it
    devices: how many trained each network, or population, together; said only where more than one
    workers_on_device: processes that took turns on this accelerator, so that times tell nothing
        of one network; said only where more than one
    versions: of Python, this package and those that it computes with, by name
    commit: of the source tree; None where the package was installed without one
    data_fingerprint: of the images; None of the toy, which has none, and in the first records
    """

    platform: str
    device: str
    processor: str
    versions: dict[str, str]
    commit: str | None
    data_fingerprint: str | None
    devices: int = 1
    workers_on_device: int = 1


class Record(msgspec.Struct, kw_only=True, frozen=True, dict=True, omit_defaults=True,
             forbid_unknown_fields=True, tag_field="kind"):  # fmt: skip
    """What every record has. On disk its id is called ``cell``, and a ``kind`` stands beside it.

    id: of the cell that it is about, or the name of a toy or of a pruned network
    """

    id: str = msgspec.field(name="cell")
    origin: Origin

    @property
    def kind(self) -> str:
        """One of those of `config`: what made this record."""
        return str(self.__struct_config__.tag)


class NetworkRecord(Record, kw_only=True, frozen=True):
    """What every record of a network that has settings has: all but those of the toy.

    config: the settings, by section and key. Those that came later may be missing; see `cell`.
    """

    config: dict[str, dict[str, Setting]]

    def __post_init__(self) -> None:
        whole = {"config": identity.completed(self.config)}
        msgspec.convert(whole, _types_of_settings())
        model = whole["config"]["model"]
        for key in NEEDED.get(model["family"], ("depth", "blocks")):
            if model[key] is None:
                raise ValueError(f"config.model.{key} is missing; every {model['family']} has one")

    @functools.cached_property
    def cell(self) -> Cell:
        """All settings."""
        return Cell.fromdict(self.config)

    @functools.cached_property
    def settings_by_path(self) -> dict[str, Setting]:
        """Every setting by its key path, such as ``training.learning_rate``."""
        return {
            f"{section}.{key}": value
            for section, keys in identity.completed(self.config).items()
            for key, value in keys.items()
        }

    @property
    def dataset(self) -> str:
        """The name of the data set."""
        return self.cell.data.name

    @property
    def family(self) -> str:
        """``fc``, ``vgg``, ``resnet``, or ``own`` of a user's architecture."""
        return self.cell.model.family

    @property
    def is_convolutional(self) -> bool:
        """Whether it is a VGG or ResNet: what is measured are blocks, and the pooled features."""
        return self.cell.model.is_convolutional

    @functools.cached_property  # a report asks millions of times
    def depth(self) -> int:
        """Layers; of a network that changes its depth at the start. Of a user's architecture those
        that were measured, as nothing else counts them in all, see `_measured_layers`."""
        model = self.cell.model
        if model.is_own:
            return self._measured_layers
        return model.depth

    @property
    def _measured_layers(self) -> int:
        """How many layers were measured; 0 in records of what no user's architecture has."""
        return 0

    @functools.cached_property
    def width(self) -> int:
        """Neurons of a hidden layer, or filters of the first stage of a VGG or ResNet; the keyword
        of that name of a user's architecture, 0 where it has none."""
        model = self.cell.model
        if model.is_own:
            return model.width or 0
        return model.width if model.family == "fc" else model.base_filters

    @functools.cached_property
    def seed(self) -> int:
        """Of the initial weights and of the order of the images."""
        return self.cell.training.seed

    @property
    def epochs(self) -> int:
        """How many epochs the network was to be trained for."""
        return self.cell.training.epochs


@functools.cache
def _types_of_settings() -> type[Any]:
    """What the settings of a record must be: of the types that the schema gives them, or None where
    they need not be given."""
    sections = {}
    for name, kind in SECTIONS.items():
        annotations = typing.get_type_hints(kind)
        fields = []
        for key, first in identity.FIRST_VALUES[name].items():
            annotation = annotations[key]
            fields.append((key, annotation | None if first is None else annotation))
        sections[name] = msgspec.defstruct(name, fields)
    config = msgspec.defstruct("config", list(sections.items()))
    return msgspec.defstruct("record", [("config", config)])
