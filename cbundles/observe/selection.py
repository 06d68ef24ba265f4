"""Which sites of a model are measured, and for every other one the reason why it is not.

Unless others are asked for, a layer is what the papers mean by it: the values after nonlinearities
and residual sums, and whatever the model itself names. A model without any of them is measured at
its linear maps and convolutions.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Collection, Sequence

import jax.numpy as jnp

from cbundles.errors import did_you_mean
from cbundles.observe.layers import MAPS, Sites
from cbundles.observe.sites import KINDS, Site, Skipped

BY_DEFAULT = ("named", "activation", "sum")
OUTPUT = "it makes the output, which is no hidden layer"
MOST_NAMED = 20  # sites, in a message
NOT_CHOSEN = "left out by layers="


def chosen_sites(
    sites: Sites,
    layers: str | Sequence[str] | None,
    samples: int,
    tokens: int | None,
    classes: int | None,
    *,
    also: Collection[Site] = (),
) -> tuple[list[Site], list[Skipped]]:
    """The sites that are measured, in order, and what is not.

    Args:
        sites: all of them, for a batch of so many samples.
        layers: names, patterns or kinds.
        tokens: how many of them a sample has, where these are the rows.
        classes: how many an output may have scores of; None where it has scores of all for sure.
        also: sites that are measured besides.

    Raises:
        ValueError: a name, pattern or kind that fits no site.
    """
    wanted = _by_default(sites, classes) if layers is None else _asked_for(sites, layers)
    wanted |= set(also)
    chosen, skipped = [], list(sites.skipped)
    for site in sites.found:
        reason = _why_impossible(site, sites, samples, tokens)
        if reason is None and site not in wanted:
            reason = NOT_CHOSEN if layers is not None else _why_not_by_default(site, sites, classes)
        if reason is None:
            chosen.append(site)
        else:
            skipped.append(Skipped(site.name, site.kind, reason))
    return chosen, skipped


def _by_default(sites: Sites, classes: int | None) -> set[Site]:
    layers = {site for site in sites.found if site.kind in BY_DEFAULT}
    hidden = {site for site in layers if not _is_of_scores(site, sites, classes)}
    return hidden or {site for site in sites.found if site.kind in MAPS}


def _is_of_scores(site: Site, sites: Sites, classes: int | None) -> bool:
    """Whether a site is the nonlinearity of class scores, not of features that a model returns."""
    is_image = sites.channels_first and len(site.shape) > 2
    features = site.shape[1 if is_image else -1] if len(site.shape) > 1 else 1
    fits = classes is None or features <= classes
    return site.kind == "activation" and fits and sites.makes_output(site)


def _why_not_by_default(site: Site, sites: Sites, classes: int | None) -> str:
    if _is_of_scores(site, sites, classes):
        return OUTPUT
    return f'not measured unless asked for, by layers="{site.kind}" or its name'


def _asked_for(sites: Sites, layers: str | Sequence[str]) -> set[Site]:
    wanted: set[Site] = set()
    for one in [layers] if isinstance(layers, str) else layers:
        exact = {site for site in sites.found if one in (site.name, site.kind)}
        fitting = {site for site in sites.found if fnmatch.fnmatchcase(site.name, one)}
        if not exact | fitting and one not in KINDS:
            names = [site.name for site in sites.found]
            hint = did_you_mean(one, [*names, *KINDS], most=MOST_NAMED)
            raise ValueError(f"layers: no site is {one!r}: {hint}")
        wanted |= exact or fitting
    return wanted


def _why_impossible(site: Site, sites: Sites, samples: int, tokens: int | None) -> str | None:
    """What keeps a site from being measured."""
    if not jnp.issubdtype(site.dtype, jnp.floating):
        return f"its numbers are {site.dtype}, not floating point"
    if site.name in sites.constant or not site.shape or site.shape[0] != samples:
        return f"no batch axis: its shape is {site.shape} for {samples} samples"
    if tokens is not None and (len(site.shape) < 2 or site.shape[1] != tokens):
        return f"no token axis: its shape is {site.shape} for {tokens} tokens a sample"
    if site.kind in MAPS and sites.makes_output(site):
        return OUTPUT
    return None
