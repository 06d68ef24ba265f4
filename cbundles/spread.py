"""One population over several devices, which may belong to several processes.

A program is the same for any number of devices: XLA divides it by where its arguments lie. So all
that is done here is to place them, on a mesh of two axes:

    member   each device has some of the networks of a population
    batch    devices that have the same networks share the images of every batch

Images, and whatever else is small, lie whole on every device. Sums over a batch are then made of
one part a device, so results agree with those of one device up to rounding.

With `jax.distributed` the devices are those of all processes. These do the same in step: what only
one of them can know, such as a time, it tells the others (`agreed`, `told_to_all`), and what comes
back from the devices is whole in each (`on_host`).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from cbundles.errors import InputError

MEMBER, BATCH = "member", "batch"
Tree = TypeVar("Tree")


class Spread:
    """Where the arrays of one population lie."""

    def __init__(self, devices: Sequence[jax.Device], members: int) -> None:
        """As many devices as can have the same number of networks share them; those that are left
        share the images."""
        shares = math.gcd(members, len(devices))
        grid = np.array(devices).reshape(shares, -1)
        self.mesh = Mesh(grid, (MEMBER, BATCH), axis_types=(AxisType.Auto, AxisType.Auto))

    @classmethod
    def beside(cls, images: jax.Array, members: int) -> Spread | None:
        """For a population that is trained on these images: over all devices that have them. None
        where that is one."""
        sharding = images.sharding
        if not isinstance(sharding, NamedSharding):
            return None
        return cls(list(sharding.mesh.devices.flat), members)

    def members(self, tree: Tree) -> Tree:
        """Arrays with a leading axis of members, each device its own."""
        return self._placed(tree, PartitionSpec(MEMBER))

    def batches(self, tree: Tree) -> Tree:
        """Arrays (members, steps, batch, ...), each device its own members and images."""
        return self._placed(tree, PartitionSpec(MEMBER, None, BATCH))

    def arguments(self, tree: Tree) -> Tree:
        """Arguments of a program: what is not on the mesh yet comes to lie whole on each device."""

        def one(leaf: Any) -> Any:
            return leaf if _is_on_a_mesh(leaf) else _put(leaf, self._sharding(PartitionSpec()))

        placed: Tree = jax.tree.map(one, tree)
        return placed

    def has(self, tree: Any) -> bool:
        """Whether arrays lie on the mesh."""
        return any(map(_is_on_a_mesh, jax.tree.leaves(tree)))

    def _placed(self, tree: Tree, parts: PartitionSpec) -> Tree:
        sharding = self._sharding(parts)
        placed: Tree = jax.tree.map(lambda leaf: _put(leaf, sharding), tree)
        return placed

    def _sharding(self, parts: PartitionSpec) -> NamedSharding:
        return NamedSharding(self.mesh, parts)


def devices_to_use(number: int | None) -> list[jax.Device] | None:
    """So many of the devices of all processes; without a number all of them where there are several
    processes, and one otherwise, which is None. InputError where there are not as many."""
    there = jax.devices()
    several = jax.process_count() > 1
    if number is None:
        number = len(there) if several else 1
    what = f"{there[0].platform.upper()} device" + ("" if len(there) == 1 else "s")
    if several and number != len(there):
        raise InputError(
            f"--devices {number}: {jax.process_count()} processes have {len(there)} {what}, and "
            f"all of them take part; nearest valid: {len(there)}"
        )
    if number > len(there):
        more = ""
        if there[0].platform == "cpu":
            more = f", or XLA_FLAGS=--xla_force_host_platform_device_count={number}"
        raise InputError(
            f"--devices {number}: JAX has {len(there)} {what} here; nearest valid: "
            f"{len(there)}{more}"
        )
    return None if number == 1 and not several else there[:number]


def on_all(tree: Tree, devices: Sequence[jax.Device]) -> Tree:
    """Arrays that lie whole on each of these devices."""
    mesh = Mesh(np.array(devices), (BATCH,), axis_types=(AxisType.Auto,))
    sharding = NamedSharding(mesh, PartitionSpec())
    placed: Tree = jax.tree.map(lambda leaf: _put(leaf, sharding), tree)
    return placed


def divided(batch: jax.Array) -> jax.Array:
    """Inside a program of a population that is spread: images that lie whole on each device, from
    now on each device its own. Elsewhere the same images."""
    if BATCH not in jax.sharding.get_abstract_mesh().axis_names:
        return batch
    return jax.lax.with_sharding_constraint(batch, PartitionSpec(BATCH))


def on_host(tree: Any) -> Any:
    """Arrays as NumPy has them, whole in every process."""

    def one(leaf: Any) -> np.ndarray:
        if _is_empty_on_a_mesh(leaf):
            return np.zeros(leaf.shape, leaf.dtype)
        is_elsewhere = isinstance(leaf, jax.Array) and not leaf.is_fully_addressable
        if is_elsewhere and not leaf.is_fully_replicated:
            leaf = _moving_to(NamedSharding(leaf.sharding.mesh, PartitionSpec()))(leaf)
        return np.asarray(leaf)

    return jax.tree.map(one, tree)


def agreed(number: float) -> float:
    """What the first process has for this number, in all of them."""
    if jax.process_count() == 1:
        return number
    return float(multihost_utils.broadcast_one_to_all(np.float32(number)))


def told_to_all(content: bytes | None) -> bytes | None:
    """What the first process has for this content, in all of them; the others have none."""
    if jax.process_count() == 1:
        return content
    # Arrays must have one size everywhere, so this is told first.
    size = -1 if content is None else len(content)
    size = int(multihost_utils.broadcast_one_to_all(np.int32(size)))
    if size < 0:
        return None
    mine = np.zeros(size, np.uint8) if content is None else np.frombuffer(content, np.uint8)
    return np.asarray(multihost_utils.broadcast_one_to_all(mine)).tobytes()


def _is_on_a_mesh(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array) and isinstance(leaf.sharding, NamedSharding)


def _is_empty_on_a_mesh(leaf: Any) -> bool:
    """Such as the statistics of networks without any: XLA does not divide what has no numbers, so
    its parts are not those that JAX expects (0.10)."""
    return _is_on_a_mesh(leaf) and leaf.size == 0


def _put(leaf: Any, sharding: NamedSharding) -> jax.Array:
    """An array of this process, the same in all of them, or one that is on a mesh already, placed
    in this way."""
    if _is_empty_on_a_mesh(leaf):
        leaf = np.zeros(leaf.shape, leaf.dtype)
    if not _is_on_a_mesh(leaf):
        return jax.make_array_from_callback(np.shape(leaf), sharding, lambda part: leaf[part])
    if leaf.sharding.is_equivalent_to(sharding, leaf.ndim):
        return leaf
    moved: jax.Array = _moving_to(sharding)(leaf)
    return moved


@functools.cache
def _moving_to(sharding: NamedSharding) -> Callable[[jax.Array], jax.Array]:
    """A program, since arrays of several processes are not moved in another way."""
    return jax.jit(lambda array: array, out_shardings=sharding)
