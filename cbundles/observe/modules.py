"""Names for modules that have none: flax.nnx does not open a scope around a module's call."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Hashable, Iterator
from typing import TYPE_CHECKING

import jax
from jaxtyping import PyTree

if TYPE_CHECKING:
    from flax import nnx

PATH = "_observed_path"


def nnx_function(
    model: nnx.Module, call: Callable[..., PyTree] | None = None
) -> tuple[Callable[..., PyTree], PyTree]:
    """A flax.nnx module as a function of its state, for `observe`, and that state.

    Returns ``function(state, *inputs) -> outputs``, in which each module's call stands in a scope
    with the path of its attributes, such as ``blocks/0/conv1``. The model is left as it is: also
    what it changes in a call, such as running statistics, is changed in a copy. call: how it is
    called, ``call(model, *inputs)``, where that is not ``model(*inputs)``.
    """
    from flax import nnx

    definition, state = nnx.split(model)

    def function(state: PyTree, *inputs: PyTree) -> PyTree:
        copy = nnx.merge(definition, state)
        with _scopes(dict(nnx.iter_modules(copy))):
            return copy(*inputs) if call is None else call(copy, *inputs)

    return function, state


@contextlib.contextmanager
def _scopes(modules: dict[tuple[Hashable, ...], nnx.Module]) -> Iterator[None]:
    """Inside, calls of these modules, and of copies that nnx makes of them, open scopes."""
    originals = {}
    for path, module in modules.items():
        # An attribute, because nnx.scan and others call copies of a module.
        setattr(module, PATH, "/".join(map(str, path)))
        for cls in type(module).__mro__:
            call = vars(cls).get("__call__")
            if callable(call):  # a function, or what nnx.jit makes of one
                originals[cls] = call
    active = [""]  # paths of the modules that are being called
    for cls, call in originals.items():
        setattr(cls, "__call__", _scoped(call, active))  # noqa: B010
    try:
        yield
    finally:
        for cls, call in originals.items():
            setattr(cls, "__call__", call)  # noqa: B010


def _scoped(call: Callable[..., PyTree], active: list[str]) -> Callable[..., PyTree]:
    @functools.wraps(call)
    def scoped(self: nnx.Module, *args: PyTree, **kwargs: PyTree) -> PyTree:
        path = getattr(self, PATH, active[-1])
        # Scopes nest, so only what the caller's path lacks is new; of a super().__call__ nothing.
        new = path.removeprefix(active[-1]).lstrip("/")
        active.append(path)
        try:
            with jax.named_scope(new) if new else contextlib.nullcontext():
                return call(self, *args, **kwargs)
        finally:
            active.pop()

    return scoped
