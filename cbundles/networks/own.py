"""A user's architecture: whatever Flax module a function returns, as one more family.

What a family must provide is what is here: the sizes of a network (`sizes_of`, for plans and
checks), its module and initial variables (`Architecture.init`), its logits in training and at
inference (`Architecture.logits`), and what is seen at its layers (`see_layers`).

Sites are those that an audit of the same module measures (`observe.selection`): activations,
residual sums, and what the module itself names.

All chance of a run is drawn on the host, but for these initial weights: they are what
``module.init(jax.random.key(seed), images)`` makes. A module that normalises by a batch is told of
training by a keyword ``train`` of its call; one that needs random numbers for more than its
initial weights, as for dropout, is refused.

Networks are known here by `Named`, plain data; `networks.shape` has the sizes beside that.
"""

from __future__ import annotations

import functools
import inspect
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.errors import InvalidRngError
from jaxtyping import Array, PyTree, Shaped

from cbundles.errors import InputError
from cbundles.observe import Observed, Selector, Site, observe
from cbundles.observe.layers import batch_axes, names_of, sites_of_model
from cbundles.observe.selection import chosen_sites
from cbundles.user_functions import (
    function_named_in_file,
    in_words,
    printing_beside,
    source_digest,
)

PARAMS, STATISTICS = "params", "batch_stats"  # the collections that Flax keeps them in
NOT_KEPT = "intermediates"  # a collection of what a module shows of itself
TRAIN = "train"  # the keyword by which a module is told of training
SAMPLES = 2  # of the batch with which a module is traced


class Named(NamedTuple):
    """A network of a user: the function, the digest of its source, and all keywords as JSON."""

    build: str
    source: str
    keywords: str


class Sizes(NamedTuple):
    """What plans and records need to know of a network.

    sites: the name of each measured layer, in order; of one that repeats, of each repetition
    columns: numbers in the largest of their activations
    parameters, statistics: how many numbers are trained, and kept of batch normalisation
    flops: of one sample's forward pass: multiplications and additions of all products
    """

    sites: tuple[str, ...]
    columns: int
    parameters: int
    statistics: int
    flops: int


@dataclass(frozen=True, eq=False)
class Architecture:
    """A Flax module and how it is called.

    place: what messages about it begin with
    has_train: whether its call has the keyword `TRAIN`
    """

    module: nn.Module
    place: str
    has_train: bool

    def init(self, seed: int, image: tuple[int, ...]) -> dict[str, PyTree]:
        """Initial variables, for images of this size."""
        x = jnp.zeros((1, *image), jnp.float32)
        made = self.module.init(jax.random.key(seed), x, **self._mode(train=False))
        return {name: made[name] for name in made if name != NOT_KEPT}

    def drawn(self, seed: int, image: tuple[int, ...]) -> dict[str, PyTree]:
        """The same as NumPy arrays, also while a program is traced around this."""
        with jax.ensure_compile_time_eval():
            made = jax.jit(self.init, static_argnums=(0, 1))(seed, image)
        return jax.tree.map(np.asarray, made)

    def logits(self, variables: PyTree, x: Shaped[Array, "batch ..."]) -> Array:
        """Class scores at inference."""
        # Whatever a call writes is given up.
        output, _ = self.module.apply(variables, x, mutable=[STATISTICS], **self._mode(train=False))
        return cast(Array, output)

    def logits_in_training(
        self, variables: PyTree, x: Shaped[Array, "batch ..."]
    ) -> tuple[Array, PyTree]:
        """Class scores normalised by the batch, and the statistics after it."""
        output, moved = self.module.apply(
            variables, x, mutable=[STATISTICS], **self._mode(train=True)
        )
        return cast(Array, output), moved.get(STATISTICS, {})

    def _mode(self, *, train: bool) -> dict[str, Any]:
        return {TRAIN: train} if self.has_train else {}


@functools.cache
def architecture_of(named: Named) -> Architecture:
    """The module that the function returns. Raises InputError where it returns none, raises
    something itself, is no longer the one that was named, or is not the user's own."""
    place = f"model.build = {named.build}"
    function = function_named_in_file(named.build, place)
    if source_digest(function, place) != named.source:
        raise InputError(
            f"{place}: its file is no longer the one whose digest is {named.source}, with which "
            "this network was made; a digest is part of an identity, so begin a new run"
        )
    keywords = _as_called(function, json.loads(named.keywords))
    called = f"{place}, called with {_keywords_in_words(keywords)}"
    try:
        with printing_beside():
            module = function(**keywords)
    except (Exception, SystemExit) as error:  # whatever a function raises
        raise InputError(f"{called}: {in_words(error)}") from error
    if not isinstance(module, nn.Module):
        raise InputError(f"{called}: returned a {type(module).__name__}, not a flax.linen.Module")
    parameters = inspect.signature(type(module).__call__).parameters
    return Architecture(module, called, TRAIN in parameters)


@functools.cache
def sizes_of(named: Named, image: tuple[int, ...], outputs: int) -> Sizes:
    """What is known of a network before it is trained. Nothing is computed: it is traced. Raises
    InputError for one that cannot be trained on such images and classes."""
    architecture = architecture_of(named)
    with printing_beside():
        variables = shapes_of_variables(architecture, image)
        _check_call(architecture, variables, image, outputs)
        layers = layers_of(architecture, variables, image)
    if not layers.chosen:
        raise InputError(
            f"{architecture.place}: has no layer that can be measured: no activation, residual sum "
            "or named value, and no product besides the output"
        )
    return Sizes(
        sites=tuple(name for site in layers.chosen for name in names_of(site)),
        columns=max(math.prod(site.shape[1:]) for site in layers.chosen),
        parameters=_numbers_in(variables[PARAMS]),
        statistics=_numbers_in(variables.get(STATISTICS, {})),
        flops=layers.observed.flops // SAMPLES,
    )


class Layers(NamedTuple):
    """The layers of a traced network.

    chosen: the sites that are measured, each with the axis of the samples first
    axes: which axis of a site's value that is, by its name
    """

    observed: Observed
    chosen: tuple[Site, ...]
    axes: Mapping[str, int]


def layers_of(
    architecture: Architecture, variables: PyTree, image: tuple[int, ...], samples: int = SAMPLES
) -> Layers:
    """The layers that an audit would measure, for batches of so many samples. Raises InputError for
    a module that cannot be given as many as one likes."""

    def traced(samples: int) -> Observed:
        try:
            return observe(architecture.logits, variables, _batch(samples, image))
        except Exception as error:  # whatever a module raises
            raise _cannot_be_called(architecture, image, error) from error

    observed = traced(samples)
    axes = batch_axes(observed, traced(samples + 1))
    named = jax.tree_util.tree_leaves_with_path(variables)
    trainable = {
        number: jax.tree_util.keystr(path, simple=True, separator="/")
        for number, (path, _) in enumerate(named)
        if path[0] == jax.tree_util.DictKey(PARAMS)
    }
    sites = sites_of_model(observed, axes, trainable, [len(named)])
    chosen, _ = chosen_sites(sites, None, samples, tokens=None, classes=None)
    return Layers(observed, tuple(chosen), axes)


def see_layers(
    architecture: Architecture,
    names: tuple[str, ...],
    variables: PyTree,
    x: Shaped[Array, "batch ..."],
    see: Callable[[Array], Array],
    *,
    by_batch: bool,
) -> Shaped[Array, "layers ..."]:
    """``see(a)`` of the activation a of every layer of these names, stacked.

    names: `Sizes.sites`. by_batch: normalised by the batch, not by the running statistics.
    """
    layers = layers_of(architecture, variables, x.shape[1:], len(x))
    found_names = [name for site in layers.chosen for name in names_of(site)]
    if found_names != list(names):
        raise ValueError(
            f"{architecture.place}: has other layers for {len(x)} images than for {SAMPLES}"
        )
    observed = layers.observed
    if by_batch:
        observed = observe(lambda v, x: architecture.logits_in_training(v, x)[0], variables, x)

    def reader(site: Site) -> Callable[[Array], Array]:
        return lambda value: see(jnp.moveaxis(value, layers.axes[site.name], 0))

    read: dict[Selector | Sequence[Selector], Callable[..., PyTree]] = {
        site.name: reader(site) for site in layers.chosen
    }
    _, found = observed.run(variables, x, read=read)
    each = [_by_repetition(site, found[site.name]) for site in layers.chosen]
    return jnp.concatenate(each)


def _by_repetition(site: Site, found: Shaped[Array, "..."]) -> Shaped[Array, "repetitions ..."]:
    return found.reshape(math.prod(site.repeats), *found.shape[len(site.repeats) :])


def split(variables: Mapping[str, PyTree]) -> tuple[PyTree, PyTree]:
    """Parameters and statistics of variables."""
    return variables[PARAMS], variables.get(STATISTICS, {})


def joined(params: PyTree, statistics: PyTree) -> dict[str, PyTree]:
    """The variables of these."""
    kept = {STATISTICS: statistics} if statistics else {}
    return {PARAMS: params, **kept}


def shapes_of_variables(architecture: Architecture, image: tuple[int, ...]) -> dict[str, PyTree]:
    """The variables of a network without their numbers. Raises InputError for those that cannot be
    trained."""
    try:
        variables: dict[str, PyTree] = jax.eval_shape(lambda: architecture.init(0, image))
    except Exception as error:  # whatever a module raises
        raise _cannot_be_called(architecture, image, error) from error
    others = sorted(variables.keys() - {PARAMS, STATISTICS})
    if others or PARAMS not in variables:
        found = f"keeps {', '.join(others)}" if others else "has no parameters"
        raise InputError(
            f"{architecture.place}: {found}; trained are {PARAMS}, and kept {STATISTICS}, alone"
        )
    for path, leaf in jax.tree_util.tree_leaves_with_path(variables):
        if leaf.dtype != jnp.float32:
            name = jax.tree_util.keystr(path, simple=True, separator="/")
            raise InputError(f"{architecture.place}: {name} is {leaf.dtype}, not float32")
    return variables


def _check_call(
    architecture: Architecture, variables: dict[str, PyTree], image: tuple[int, ...], outputs: int
) -> None:
    """InputError unless it returns a score for each class, at inference and in training."""
    if STATISTICS in variables and not architecture.has_train:
        raise InputError(
            f"{architecture.place}: normalises by batches, but its __call__ has no keyword "
            f"{TRAIN}: write __call__(self, x, {TRAIN}=False), and use_running_average=not {TRAIN}"
        )
    batch = _batch(SAMPLES, image)
    try:
        found = jax.eval_shape(architecture.logits, variables, batch)
        jax.eval_shape(architecture.logits_in_training, variables, batch)
    except InvalidRngError as error:
        raise InputError(
            f"{architecture.place}: wants random numbers when it is called, as dropout does; a run "
            "draws all chance on the host and has none for it: build the network without"
        ) from error
    except Exception as error:  # whatever a module raises
        raise _cannot_be_called(architecture, image, error) from error
    shape = getattr(found, "shape", None)
    if shape != (SAMPLES, outputs) or not jnp.issubdtype(found.dtype, jnp.floating):
        raise InputError(
            f"{architecture.place}: returns {_form(found)} for {SAMPLES} images; a data set of "
            f"{outputs} classes needs float32[{SAMPLES},{outputs}]"
        )


def _cannot_be_called(
    architecture: Architecture, image: tuple[int, ...], error: Exception
) -> InputError:
    given = _form(_batch(SAMPLES, image))
    return InputError(f"{architecture.place}: given images {given}: {in_words(error)}")


def _batch(samples: int, image: tuple[int, ...]) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((samples, *image), jnp.float32)


def _form(value: Any) -> str:
    if not hasattr(value, "shape"):
        return f"a {type(value).__name__}"
    return f"{value.dtype}[{','.join(map(str, value.shape))}]"


def _numbers_in(tree: PyTree) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def _as_called(function: Callable[..., Any], keywords: Mapping[str, Any]) -> dict[str, Any]:
    """Keywords as a function is given them: a list is a tuple, but where its default is a list."""
    parameters = inspect.signature(function).parameters
    return {
        name: value if isinstance(parameters[name].default, list) else _as_tuples(value)
        for name, value in keywords.items()
    }


def _as_tuples(value: Any) -> Any:
    """Lists as tuples: a Flax module must be able to hold what it is given."""
    return tuple(map(_as_tuples, value)) if isinstance(value, list) else value


def _keywords_in_words(keywords: dict[str, Any]) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in keywords.items()) or "no keyword"
