"""The sites of a model, seen from the samples: which axis is theirs, and which parameters read.

`observe` knows a program and its arguments. Here it is told which of the arguments are trainable
parameters and which the data, so that the sites can be shown as a model's user thinks of them: the
axis of the samples first, and with each site the parameters of the layers that read it.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import NamedTuple

from cbundles.observe.observed import Observed
from cbundles.observe.sites import Site, Skipped

MAPS = ("linear", "convolution")
NO_STACKS: Mapping[str, int] = MappingProxyType({})


class Sites(NamedTuple):
    """What there is to see in a model that is given batches of one form.

    found: in the order in which their values are made.
    skipped: what is not seen, each with its reason.
    readers: for each site the names of the parameters of the layers that read its value; None where
        that cannot be known.
    branches: for each residual sum the name of a site at which its branch is seen.
    channels_first: whether the features of an image come before its pixels.
    stacked: of parameters that hold something for each repetition of a scan, how many of their
        first axes are those of scans.
    constant: the sites no axis of which grows with the batch, whatever its length: their values are
        the same for all samples.
    of_output: the sites whose values are an output but for what is done to each element.
    """

    found: tuple[Site, ...]
    skipped: tuple[Skipped, ...]
    readers: Mapping[str, tuple[str, ...]] | None
    branches: Mapping[str, str]
    channels_first: bool
    stacked: Mapping[str, int] = NO_STACKS
    constant: frozenset[str] = frozenset()
    of_output: frozenset[str] = frozenset()

    def makes_output(self, site: Site) -> bool:
        """Whether a site makes the output, and no layer reads it."""
        if self.readers is None or self.readers[site.name]:
            return False
        return site.kind in MAPS or site.name in self.of_output


def sites_of_model(
    observed: Observed,
    axes: Mapping[str, int],
    trainable: Mapping[int, str],
    data: Collection[int],
) -> Sites:
    """The sites of a model.

    axes: of the samples, by the names of sites, see `batch_axes`.
    trainable, data: which leaves among all leaves of the examples are trainable parameters, with
        their names, and which change from batch to batch.
    """
    readers = None
    if trainable:
        readers = {
            site: tuple(trainable[leaf] for leaf in sorted(leaves))
            for site, leaves in observed.consumers(trainable.keys(), data).items()
        }
    axes_of_scans = observed.stacked_axes
    return Sites(
        found=tuple(_batch_first(site, axes.get(site.name, 0)) for site in observed.sites),
        skipped=observed.skipped,
        readers=readers,
        branches=observed.branches,
        channels_first=observed.channels_first,
        stacked={name: axes_of_scans.get(number, 0) for number, name in trainable.items()},
        constant=frozenset(site.name for site in observed.sites if site.name not in axes),
        of_output=observed.of_output,
    )


def batch_axes(observed: Observed, larger: Observed | None) -> dict[str, int]:
    """Which axis of each site's value is that of the samples: the first one that grows when the
    batch does. Not always the first of all: ``jax.vmap`` moves axes as it likes. Sites of which
    none grows are left out: an axis may be as long as the batch by chance.

    larger: the same model, traced for one sample more; None where it is made for one size only. It
    may also be another program there, and then says nothing: the first axis is taken.
    """
    sites = observed.sites
    if larger is None or [site.name for site in larger.sites] != [site.name for site in sites]:
        return {site.name: 0 for site in sites}
    axes = {
        site.name: first_difference(site.shape, other.shape)
        for site, other in zip(sites, larger.sites, strict=True)
    }
    return {name: axis for name, axis in axes.items() if axis is not None}


def names_of(site: Site) -> list[str]:
    """A name for each repetition of a site."""
    if not site.repeats:
        return [site.name]
    places = itertools.product(*map(range, site.repeats))
    return [f"{site.name}[{', '.join(map(str, place))}]" for place in places]


def first_difference(shape: tuple[int, ...], other: tuple[int, ...]) -> int | None:
    """The first axis of different lengths, if there is one."""
    pairs = enumerate(zip(shape, other, strict=False))
    return next((axis for axis, (size, larger) in pairs if size != larger), None)


def _batch_first(site: Site, axis: int) -> Site:
    """A site as its reducer sees it: the axis of the samples is the first."""
    rest = site.shape[:axis] + site.shape[axis + 1 :]
    return dataclasses.replace(site, shape=site.shape[axis : axis + 1] + rest)
