"""The memory that a plan predicts, beside what XLA reserves for the programs."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import ROOT

from cbundles import bundles, config, measure, train
from cbundles.data import augment, pipelines
from cbundles.data.dataset import Facts
from cbundles.executor import planner
from cbundles.networks import network
from cbundles.networks.network import Network
from cbundles.networks.shape import ConvShape, shape_of

PROBE, FACTOR = 1024, 2.0


def cell_of(family: str, filters: int, readings: str):
    (cell,) = config.load(
        ROOT / "configs" / "cpu" / "mnist_vgg.yaml",
        [
            f"model.family={family}", "model.depth=10", f"model.base_filters={filters}",
            f"probe.readings={readings}", f"probe.samples={PROBE}", "training.seed=0",
            "data.name=folder:photos", "data.pipeline=imagenette",
        ],
    ).cells  # fmt: skip
    return cell


def measuring_bytes(cell, shape: ConvShape) -> int:
    start = network.initial(shape, 0, shape)
    one = Network(jnp.asarray(start.params)[None], jnp.asarray(start.statistics)[None])
    way = measure.Measurement(
        bundles.Equality(cell.probe.equality), cell.own_reading, cell.further_readings,
        pipelines.NONE,
    )  # fmt: skip
    images = jax.ShapeDtypeStruct((PROBE, *shape.image), jnp.uint8)
    scale, keys = bundles.Scale.of(0.0, 1e-3, 64), measure.keys_for(shape, 0)
    program = measure.signatures_program(shape, way).lower(one, images, scale, keys).compile()
    return program.memory_analysis().temp_size_in_bytes


def training_bytes(cell, shape: ConvShape) -> int:
    recipe = train.Recipe(64, 1e-3, 1e-2, pipelines.ORIGINAL["imagenette"])
    images = np.zeros((64, *shape.image), np.uint8)
    canvas = augment.canvas(jnp.asarray(images), recipe.augmentation)
    state = train.start(network.initial(shape, 0, shape), recipe)
    state = jax.tree.map(lambda a: jnp.asarray(a)[None], state)
    plan = jax.tree.map(lambda a: a[None], train.plan(recipe, 0, 1, 64))
    given = train.whole_epoch(state, plan, canvas, jnp.zeros(64, jnp.int32))
    program = train.advance_program(shape, recipe).lower(*given).compile()
    return program.memory_analysis().temp_size_in_bytes


@pytest.mark.parametrize(
    ("family", "filters", "readings"),
    [
        ("vgg", 8, "batch"),
        pytest.param("vgg", 8, "none", marks=pytest.mark.slow),
        pytest.param("vgg", 64, "batch", marks=pytest.mark.slow),
        pytest.param("resnet", 16, "none", marks=pytest.mark.slow),
    ],
)
def test_the_plan_knows_what_images_need_that_pass_through_a_network(family, filters, readings):
    cell = cell_of(family, filters, readings)
    facts = Facts(1000, 100, (64, 64, 3), 10)
    shape = shape_of(cell.model, facts)
    needed = max(measuring_bytes(cell, shape), training_bytes(cell, shape))
    assert needed / FACTOR < planner.passing_bytes(cell, facts) < needed * FACTOR
