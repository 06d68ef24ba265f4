"""Annotations are checked in all tests; that they really are is checked here."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import typing

import jax
import jax.numpy as jnp
import pytest
from conftest import CHECKED
from jaxtyping import TypeCheckError

from cbundles import bundles, train
from cbundles.networks import lowering
from cbundles.networks.network import Network
from cbundles.networks.shape import FcShape

SIGNATURES = jnp.zeros((4, 5), jnp.uint32)
LABELS = jnp.zeros(5, jnp.int32)


def modules():
    """All modules whose annotations are checked."""
    for name in CHECKED:
        module = importlib.import_module(f"cbundles.{name}")
        yield module
        for found in pkgutil.iter_modules(getattr(module, "__path__", [])):
            yield importlib.import_module(f"{module.__name__}.{found.name}")


@pytest.mark.parametrize(
    ("signatures", "labels", "problem"),
    [
        (SIGNATURES[:3], LABELS, "signature"),  # without the largest values
        (SIGNATURES, LABELS[:4], "labels"),  # of another number of samples
        (SIGNATURES, LABELS.astype(jnp.float32), "labels"),
    ],
)
def test_the_metric_refuses_what_its_signature_does_not_allow(signatures, labels, problem):
    with pytest.raises(TypeCheckError, match=f"typechecking parameter '{problem}'"):
        bundles.partition(signatures, labels, 2)


def test_shapes_are_checked_while_a_function_is_traced():
    x, kernel = jnp.zeros((1, 8, 8, 3)), jnp.zeros((3, 3, 4, 2))
    with pytest.raises(TypeCheckError, match="typechecking parameter 'kernel'"):
        jax.eval_shape(lambda x, kernel: lowering.convolve(x, kernel, 1), x, kernel)


def test_results_are_checked(monkeypatch):
    monkeypatch.setattr(train.network, "moving_logits", lambda *_: (jnp.zeros((5, 2)), None))
    shape, rest = FcShape(3, 1, 2, 2), Network(jnp.zeros(14), jnp.zeros(0))
    with pytest.raises(TypeCheckError, match="checking the return value"):
        train.loss_of(rest.params, rest, jnp.zeros((5, 3)), LABELS, shape)


def test_every_annotation_can_be_read():
    """One that cannot, say because a name in it is not imported, would silently not be checked."""
    seen = 0
    for module in modules():
        own = [value for value in vars(module).values() if inspect.getmodule(value) is module]
        classes = [value for value in own if inspect.isclass(value)]
        methods = [method for cls in classes for method in vars(cls).values()]
        for function in (*own, *methods):
            if inspect.isfunction(function):
                typing.get_type_hints(function)
                seen += 1
    assert seen > 100
