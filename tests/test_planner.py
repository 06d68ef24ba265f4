"""Which cells share a program, and in which order."""

from __future__ import annotations

import random

from conftest import ROOT

from cbundles import config
from cbundles.data.dataset import Facts
from cbundles.executor import planner

GRID = config.load(ROOT / "configs" / "mnist_fc.yaml", ["training.seed=[0,1,2]"]).cells


def keys(cells, device):
    return [population.key for population in planner.populations(cells, device)]


def test_every_cell_once_on_either_device():
    for device in ("cpu", "gpu"):
        planned = [c.id for p in planner.populations(GRID, device) for c in p.cells]
        assert sorted(planned) == sorted(c.id for c in GRID)


def test_the_plan_does_not_depend_on_the_order_of_the_grid():
    shuffled = random.Random(0).sample(GRID, len(GRID))
    for device in ("cpu", "gpu"):
        assert keys(shuffled, device) == keys(GRID, device)


def test_on_a_cpu_narrow_seeds_share_a_program_and_nothing_is_padded():
    for population in planner.populations(GRID, "cpu"):
        assert len({(c.model.depth, c.model.width) for c in population.cells}) == 1
        expected = 3 if population.cells[0].model.width <= planner.CPU_POPULATION_MAX_WIDTH else 1
        assert len(population.cells) == expected


def test_another_seed_leaves_the_populations_of_the_others_as_they_are():
    def seeds(count):
        overrides = ["training.seed=" + str(list(range(count))), "model.width=10", "model.depth=5"]
        cells = config.load(ROOT / "configs" / "mnist_fc.yaml", overrides).cells
        groups = planner.populations(cells, "cpu")
        return {tuple(c.training.seed for c in group.cells) for group in groups}

    assert seeds(4) == {(0, 1, 2, 3)}
    assert seeds(6) == {(0, 1, 2, 3), (4, 5)}


def test_networks_that_may_stop_early_are_alone():
    """One that conflicts would stop the others, or go on with them."""
    overrides = [
        "model.width=10", "model.depth=5", "training.stop_conflicting=[off,entropy]",
        "training.conflict_checks=3",
    ]  # fmt: skip
    cells = config.load(
        ROOT / "configs" / "mnist_fc.yaml", [*overrides, "training.seed=[0,1,2]"]
    ).cells
    for device in ("cpu", "gpu"):
        for population in planner.populations(cells, device):
            checks = {cell.training.checks for cell in population.cells}
            assert checks == {0} or len(population.cells) == 1


def test_on_a_gpu_padding_is_bounded():
    for population in planner.populations(GRID, "gpu"):
        shapes = [(c.model.depth, c.model.width) for c in population.cells]
        depth, width = max(d for d, _ in shapes), max(w for _, w in shapes)
        real = sum(d * w * w for d, w in shapes)
        assert len(shapes) * depth * width**2 <= planner.GPU_PADDING_LIMIT * real


def test_cells_that_are_trained_differently_never_share():
    cells = config.load(
        ROOT / "configs" / "quickstart.yaml",
        ["training.learning_rate=[1e-3,1e-2]", "model.width=8"],
    ).cells
    for population in planner.populations(cells, "gpu"):
        assert len({c.training.learning_rate for c in population.cells}) == 1


def test_the_most_expensive_comes_first():
    first = planner.populations(GRID, "cpu")[0].cells[0]
    assert (first.model.depth, first.model.width) == (150, 100)


def test_memory_follows_the_enlargement_of_the_pipeline():
    def memory(*overrides):
        path = ROOT / "configs" / "quickstart.yaml"
        named = ["model.width=8", "model.depth=2", "data.name=folder:photos"]
        (cell,) = config.load(path, [*named, *overrides]).cells
        return planner.worker_bytes(
            planner.PopulationJob((cell,)), Facts(1000, 100, (128, 128, 3), 10)
        )

    plain = memory()
    for pipeline, enlarge in (("imagenette", 10), ("cifar10", 6), ("svhn_cropped", 4)):
        chosen = f"data.pipeline={pipeline}"
        assert memory(chosen) - plain == 4 * 1000 * 3 * ((128 + enlarge) ** 2 - 128**2)
        assert memory(chosen, "data.augmentation=none") == plain


def test_few_filters_on_large_images_wait_for_memory():
    """Measured: 172 ms a step on 128 x 128 pixels, 22 on 32 x 32, for 5.3 times the FLOPs."""

    def seconds(side, filters):
        (cell,) = config.load(
            ROOT / "configs" / "cpu" / "mnist_vgg.yaml",
            [
                "model.depth=20", f"model.base_filters={filters}", "training.seed=0",
                "training.epochs=1", "probe.readings=none", "probe.samples=64",
                "data.name=folder:photos", "data.pipeline=plain",
            ],
        ).cells  # fmt: skip
        return planner.training_seconds(cell, Facts(64_000, 64, (side, side, 3), 10))

    assert 4.5 < seconds(128, 8) / seconds(32, 8) < 10
    assert seconds(128, 64) / seconds(32, 64) < 5.5
