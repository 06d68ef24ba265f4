"""What users call: `observe` finds the sites of a function, `Observed.run` runs it with effects."""

from __future__ import annotations

import collections
import dataclasses
import fnmatch
from collections.abc import Callable, Collection, Mapping, Sequence

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Inexact, PyTree, Shaped

from cbundles.errors import did_you_mean
from cbundles.observe import consumers, jaxprs, outputs, removal, sites
from cbundles.observe.consumers import Maker
from cbundles.observe.interpret import Effects, Interpreter, Read
from cbundles.observe.program import Aval
from cbundles.observe.removal import Remainder, ResidualSum
from cbundles.observe.sites import Found, Site, Skipped

Selector = str | Site  # the name of a site, a pattern that names match (`fnmatch`), or a site
Reader = Callable[..., PyTree]  # a function of the values of sites


def observe(function: Callable[..., PyTree], *examples: PyTree) -> Observed:
    """Find the sites of a function of arrays, or of pytrees of arrays.

    Args:
        function: any function that JAX can trace; it is traced once, here.
        examples: what it will be called with, as arrays or as `jax.ShapeDtypeStruct`s: only their
            shapes and dtypes matter. What is no array belongs into a `functools.partial`.

    Returns:
        The sites, and a way to run the function with something done at them.

    >>> import jax, jax.numpy as jnp
    >>> observed = observe(lambda w, x: jax.nn.relu(x @ w), jnp.ones((2, 3)), jnp.ones((4, 2)))
    >>> [(site.name, site.kind, site.shape) for site in observed.sites]
    [('linear', 'linear', (4, 3)), ('relu', 'activation', (4, 3))]
    """
    traced = jaxprs.trace(function, *examples)
    return Observed(traced, sites.find(traced.block))


@dataclasses.dataclass(frozen=True, eq=False)
class Observed:
    """A function whose sites are known."""

    _traced: jaxprs.Traced
    _found: Found

    @property
    def sites(self) -> tuple[Site, ...]:
        """All sites, in the order in which their values are made."""
        return self._found.sites

    @property
    def skipped(self) -> tuple[Skipped, ...]:
        """What would be a site if it were not inside something that is evaluated as a whole."""
        return self._found.skipped

    @property
    def branches(self) -> Mapping[str, str]:
        """For each residual sum, by its name, the name of a site at which its branch is seen."""
        return self._found.branch_names()

    @property
    def of_output(self) -> frozenset[str]:
        """The names of the sites that make an output, see `outputs`."""
        return outputs.sites_of_output(self._traced.block, self._found.numbers)

    @property
    def residual_sums(self) -> tuple[ResidualSum, ...]:
        """All residual sums, in the order in which they are made; in a scan each repetition is one
        of its own."""
        return removal.residual_sums(self._traced.block, self._found)

    @property
    def flops(self) -> int:
        """Multiplications and additions of all its matrix products and convolutions."""
        return jaxprs.product_flops(self._traced.block)

    @property
    def channels_first(self) -> bool:
        """Whether its convolutions have the features of an image before its pixels."""
        return jaxprs.channels_first(self._traced.block)

    def without(self, sums: Collection[ResidualSum], *, unrolled: bool = False) -> Remainder:
        """What is left of the function when these sums are their skips, for good.

        Scans with such a sum inside are unrolled, and remats written out: with `unrolled` all are.
        """
        return removal.without(self._traced, sums, unrolled=unrolled)

    def consumers(
        self, parameters: Collection[int], data: Collection[int]
    ) -> dict[str, frozenset[int]]:
        """The parameters of the layers that read each site's value, by the site's name.

        Both arguments, and what is found, are numbers of leaves among all leaves of the examples:
        those that are parameters, and those that change from batch to batch.
        """
        return consumers.consumers(self._traced.block, self._found.numbers, parameters, data)

    def makers(
        self, names: Collection[str], parameters: Collection[int]
    ) -> dict[str, frozenset[Maker]]:
        """The parameters of the layers that make these sites' values from those of the ones before.

        parameters: their numbers among all leaves of the examples, as in what is found.
        """
        numbers = {name: self._found.numbers[name] for name in names}
        return consumers.makers(self._traced.block, numbers, parameters)

    @property
    def stacked_axes(self) -> Mapping[int, int]:
        """Of leaves among all leaves of the examples along which scans walk, by their numbers: over
        how many of their first axes."""
        return consumers.stacked_axes(self._traced.block)

    def select(self, pattern: Selector = "*", *, kind: str | None = None) -> tuple[Site, ...]:
        """The sites whose names match a pattern, of one kind or of any; in order. None of this kind
        may be among them.

        Raises:
            ValueError: no site matches the pattern, or there is no such kind.
        """
        if kind is not None and kind not in sites.KINDS:
            raise ValueError(f"no kind of site is {kind!r}: {did_you_mean(kind, sites.KINDS)}")
        name = pattern.name if isinstance(pattern, Site) else pattern
        exact = [site for site in self.sites if site.name == name]
        matching = exact or [s for s in self.sites if fnmatch.fnmatchcase(s.name, name)]
        if not matching:
            names = [site.name for site in self.sites]
            if not names:
                raise ValueError(f"no site has the name {name!r}: this function has no sites")
            raise ValueError(f"no site has the name {name!r}: {did_you_mean(name, names, most=5)}")
        return tuple(site for site in matching if kind in (None, site.kind))

    def zeros(
        self, pattern: Selector = "*", *, kind: str | None = None
    ) -> dict[str, Shaped[Array, "..."]]:
        """Zeros for `perturb`: the gradient by them is the gradient by the values of the sites."""
        chosen = self.select(pattern, kind=kind)
        return {s.name: jnp.zeros((*s.repeats, *s.shape), s.dtype) for s in chosen}

    def run(
        self,
        *arguments: PyTree,
        read: Mapping[Selector | Sequence[Selector], Reader] | None = None,
        gate: Mapping[Selector, ArrayLike] | None = None,
        keep: Mapping[Selector, ArrayLike] | None = None,
        perturb: Mapping[Selector, ArrayLike] | None = None,
    ) -> tuple[PyTree, dict[str, PyTree]]:
        """Call the function, and do something at sites. For use inside `jit`, `vmap` and `grad`.

        At one site first `keep` acts, then `gate`, then `perturb`; a reader sees the value that the
        rest of the function sees. All keys are `Selector`s; if several match a site, the last one
        counts. Inside a scan of length n, `repeats` of a site is (n,), inside two (n, m).

        Args:
            arguments: of the same shapes and dtypes as the examples.
            read: ``reader(value)``, where value has `Site.shape`, returns any arrays. A key may
                also be a tuple of sites of one loop body: ``reader(*values)`` of all of them, found
                under the name of the one that is made last.
            gate: factors; a number, or an array ``(*repeats, ...)`` whose further axes can be
                broadcast to the site's shape.
            keep: a bool, or bools ``(*repeats,)``. Where it is false the value is zero, for
                everyone who uses it, and what only this value needs is not computed: it stands in a
                `lax.cond`. (A `vmap` over the bools computes both sides.) Sites in there read as 0.
            perturb: arrays ``(*repeats, *shape)`` of the site's dtype, see `zeros`.

        Returns:
            The function's result, and what was read by the names of sites, with leading axes
            `repeats`.

        Raises:
            ValueError: arguments unlike the examples, an unknown site, an array of another shape.
        """
        self._check(arguments)
        effects = Effects(
            keep={s.name: _keep(s, array) for s, array in self._by_site(keep)},
            gate={s.name: _gate(s, array) for s, array in self._by_site(gate)},
            perturb={s.name: _perturbation(s, array) for s, array in self._by_site(perturb)},
        )
        names: dict[int, list[str]] = collections.defaultdict(list)
        for name, number in self._found.numbers.items():
            names[number].append(name)
        interpreter = Interpreter(dict(names), self._reads(read or {}))
        leaves = jax.tree.leaves(arguments)
        results, readings = interpreter.evaluate(self._traced.block, leaves, effects)
        return jax.tree.unflatten(self._traced.output_tree, results), readings

    def _by_site(self, given: Mapping[Selector, ArrayLike] | None) -> list[tuple[Site, ArrayLike]]:
        return [(s, value) for key, value in (given or {}).items() for s in self.select(key)]

    def _reads(self, given: Mapping[Selector | Sequence[Selector], Reader]) -> dict[str, Read]:
        """Readers by the name of the last of their sites."""
        reads = {}
        numbers = self._found.numbers
        for key, function in given.items():
            if isinstance(key, str | Site):
                for site in self.select(key):
                    reads[site.name] = Read((numbers[site.name],), function)
            else:
                group = [self._only(one) for one in key]
                last = max(group, key=lambda site: numbers[site.name])
                self._check_group(group)
                if last.name in reads and len(reads[last.name].numbers) > 1:
                    raise ValueError(f"two readers would be found under the name {last.name!r}")
                reads[last.name] = Read(tuple(numbers[s.name] for s in group), function)
        return reads

    def _only(self, selector: Selector) -> Site:
        """The one site that is meant where a reader takes several."""
        matching = self.select(selector)
        if len(matching) > 1:
            names = ", ".join(site.name for site in matching)
            raise ValueError(
                f"{selector!r} stands for several sites, of which one is read: {names}"
            )
        return matching[0]

    def _check_group(self, group: Sequence[Site]) -> None:
        homes = {self._found.homes[site.name] for site in group}
        if len(homes) > 1:
            names = ", ".join(site.name for site in group)
            raise ValueError(f"{names} are not in one loop body, so they cannot be read together")

    def _check(self, arguments: Sequence[PyTree]) -> None:
        tree = jax.tree.structure(arguments)
        if tree != self._traced.input_tree:
            raise ValueError(f"observed for arguments {self._traced.input_tree}, not {tree}")
        for (path, leaf), (shape, dtype) in zip(
            jax.tree_util.tree_leaves_with_path(arguments), self._traced.inputs, strict=True
        ):
            given = jax.typeof(leaf)
            if (given.shape, given.dtype) != (shape, dtype):
                place = "arguments" + jax.tree_util.keystr(path)
                expected = jax.ShapeDtypeStruct(shape, dtype)
                raise ValueError(f"observed for {place} of {_form(expected)}, not {_form(given)}")


def _keep(site: Site, array: ArrayLike) -> Bool[Array, "*repeats"]:
    keep = jnp.asarray(array)
    if keep.dtype != bool or keep.shape not in ((), site.repeats):
        raise ValueError(f"{site.name} is kept by bools {site.repeats}, not by {_form(keep)}")
    return jnp.broadcast_to(keep, site.repeats)


def _gate(site: Site, array: ArrayLike) -> Inexact[Array, "..."]:
    if not jnp.issubdtype(site.dtype, jnp.inexact):
        raise ValueError(f"{site.name} is {jnp.dtype(site.dtype).name}: it cannot be scaled")
    # In the site's own dtype, so that what comes after it keeps its dtype.
    gate = jnp.asarray(array, site.dtype)
    if not gate.shape:
        return jnp.broadcast_to(gate, site.repeats)
    axes = len(site.repeats)
    rest = gate.shape[axes:]
    padded = (1,) * (len(site.shape) - len(rest)) + rest
    fits = len(padded) == len(site.shape) and all(
        n in (1, full) for n, full in zip(padded, site.shape, strict=True)
    )
    if gate.shape[:axes] != site.repeats or not fits:
        shape = (*site.repeats, *site.shape)
        raise ValueError(
            f"a gate of {site.name} is a number, or can be broadcast to {shape} and has its first "
            f"{axes} axes; it is not {_form(gate)}"
        )
    return gate


def _perturbation(site: Site, array: ArrayLike) -> Shaped[Array, "..."]:
    given = jnp.asarray(array)
    expected = jax.ShapeDtypeStruct((*site.repeats, *site.shape), site.dtype)
    if (given.shape, given.dtype) != (expected.shape, expected.dtype):
        raise ValueError(f"a perturbation of {site.name} is {_form(expected)}, not {_form(given)}")
    return given


def _form(array: Array | Aval) -> str:
    return f"{array.dtype.name}{list(array.shape)}"
