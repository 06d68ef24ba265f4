"""What the tasks of a worker share. Making one imports JAX and settles how it computes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax

from cbundles import data, probe_sizes, provenance, spread
from cbundles.config import TUNE, Cell
from cbundles.data import dataset, device, storage_of
from cbundles.data.dataset import Dataset, Facts
from cbundles.data.device import DeviceData, Examples
from cbundles.executor import cluster
from cbundles.records import Origin
from cbundles.store import Store


class Context:
    """Where results go, how to tell of progress, what is kept, and the images."""

    def __init__(self, options: dict[str, Any], send: Callable[[dict[str, Any]], None]) -> None:
        """options: plain data, as `local` gives it to a process; send: tells of progress."""
        if options.get("cluster") is not None:
            cluster.join(options["cluster"])
        jax.config.update("jax_compilation_cache_dir", options["compile_cache"])
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
        jax.config.update("jax_default_matmul_precision", "highest")  # float32 is not TF32
        self.store = Store(Path(options["folder"]))
        self.keep: list[str] = options["keep"]  # epochs, see `keeping`
        self.is_first = jax.process_index() == 0  # the only one that writes and tells
        self.send = send if self.is_first else _say_nothing
        self.devices = spread.devices_to_use(options.get("devices"))
        self._archives = {
            name: Path(options[name]) for name in ("data_dir", "manual_dir") if name in options
        }
        self.device = {
            "platform": jax.devices()[0].platform,
            "device": jax.devices()[0].device_kind,
            "processor": provenance.processor(),
            "devices": 1 if self.devices is None else len(self.devices),
        }
        self._workers_on_device = options.get("workers_on_device", 1)
        self._versions, self._commit = provenance.versions(), provenance.commit()
        self._placed: tuple[object, tuple[DeviceData, Facts, str]] | None = None

    def origin(self, fingerprint: str) -> Origin:
        """Where a result comes from, as its record keeps it."""
        return Origin(
            platform=self.device["platform"],
            device=self.device["device"],
            processor=self.device["processor"],
            devices=self.device["devices"],
            workers_on_device=self._workers_on_device,
            versions=self._versions,
            commit=self._commit,
            data_fingerprint=fingerprint,
        )

    def data(self, cell: Cell) -> tuple[DeviceData, Facts, str]:
        """The device arrays for a cell, the data set's facts and fingerprint; kept until a
        cell asks for others."""
        held_out = cell.tuning.held_out if cell.kind == TUNE else 0.0
        key = (cell.data, cell.probe, held_out)
        if self._placed is None or self._placed[0] != key:
            self._placed = None  # free the old arrays before the new ones are made
            stored = self._stored(cell)
            placed = device.place(stored, cell.data, cell.probe, held_out, self.devices)
            self._placed = (key, (placed, stored.facts, stored.fingerprint))
        return self._placed[1]

    def probes(self, cell: Cell, sizes: Sequence[str]) -> dict[str, Examples]:
        """Probe sets of other sizes for a cell of a sweep, by these. sizes: see `probe_sizes`."""
        if not sizes:
            return {}
        stored, canvas = self._stored(cell), self.data(cell)[0].canvas
        return {
            size: device.draw_probe(
                stored, cell.data, probe_sizes.probe_of(cell.probe, size), canvas
            )
            for size in sizes
        }

    def _stored(self, cell: Cell) -> Dataset:
        """The images of a cell. Other processes than the first may be on machines on which nobody
        has prepared them."""
        if not self.is_first:
            name, size = cell.data.images
            return data.load(name, size, **self._archives)
        stored = dataset.read(storage_of(*cell.data.images), verify=False)
        if stored is None:
            raise RuntimeError(f"{cell.data.images}: the decoded data set has disappeared")
        return stored


def _say_nothing(message: dict[str, Any]) -> None:
    """What the first process says is enough."""
