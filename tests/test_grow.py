"""Growing and tuning networks: populations, edits, compute, interruption, and the commands."""

from __future__ import annotations

import dataclasses
import math

import jax
import numpy as np
import pytest
from conftest import ROOT
from records import ORIGIN

from cbundles import config, data
from cbundles.data import device
from cbundles.errors import DamagedCheckpoint, InputError
from cbundles.executor import planner, tasks
from cbundles.experiments import grow, tune
from cbundles.networks import saved
from cbundles.networks.shape import FcShape
from cbundles.population import Population, Scores
from cbundles.store import CELLS, Store

GROW = {
    "data": {"name": "spirals"},
    "model": {"family": "fc", "width": 4, "depth": 2},
    "training": {"epochs": 4, "batch_size": 50, "learning_rate": 0.01, "seed": [0, 1]},
    "probe": {"samples": "all"},
    "growth": {"arm": ["max", "small", "matched", "large"], "first_epoch": 1, "every": 1,
               "insertions": 2, "large_depth": 5},
}  # fmt: skip
TUNE = {
    **{key: GROW[key] for key in ("data", "model", "probe")},
    "training": {**GROW["training"], "epochs": 6},
    "tuning": {"arm": ["fixed", "both"], "budget_depth": 3, "every": 1, "trial": 1, "cooldown": 0,
               "memory": 3, "threshold": 0.0, "max_depth": 9},
}  # fmt: skip


def cells_of(content, **changed):
    merged = {key: {**value, **changed.get(key, {})} for key, value in content.items()}
    return config.build(merged, default_name="test").cells


def placed(cells):
    cell, stored = cells[0], data.load(cells[0].data.name)
    held_out = cell.tuning.held_out if cell.kind == config.TUNE else 0.0
    return device.place(stored, cell.data, cell.probe, held_out), stored.facts


def last(module, cells, resume=None):
    *_, state = module.train(cells, *placed(cells), resume)
    return module.records(cells, state, ORIGIN), state


def of(records, arm, seed=0):
    (found,) = [r for r in records if (r.arm, r.seed) == (arm, seed)]  # fmt: skip
    return found


@pytest.fixture(scope="module")
def grown():
    return last(grow, cells_of(GROW))


def test_grow_arms_start_and_end_with_their_depths(grown):
    records, _ = grown
    depths = {arm: of(records, arm).history.depth for arm in
              ("max", "small", "matched", "large")}  # fmt: skip
    assert depths["small"] == [2] * 5 and depths["matched"] == [4] * 5
    assert depths["large"] == [5] * 5 and depths["max"] == [2, 3, 4, 4, 4]
    events = of(records, "max").events
    assert [(e.epoch, e.kind, e.depth) for e in events] == [(1, "insert", 3),
                                                                   (2, "insert", 4)]  # fmt: skip
    for scored, event in zip(of(records, "max").scores, events, strict=True):
        assert event.position == int(np.argmax(scored.sensitivities))
        assert len(scored.sensitivities) == event.depth - 1
        assert len(scored.existing) == event.depth


def test_grow_pairs_share_everything_until_the_first_insertion(grown):
    records, _ = grown
    for seed in (0, 1):
        small, inserted = of(records, "small", seed), of(records, "max", seed)
        for quantity in ("train_loss", "test_loss", "test_accuracy"):
            ours, theirs = inserted.course(quantity), small.course(quantity)
            assert ours[0] == theirs[0]
            # The entry after epoch 1 follows the insertion, which leaves the function as it is.
            assert ours[1] == pytest.approx(theirs[1], abs=1e-5)
        assert small.history.train_loss[2] != inserted.history.train_loss[2]


def test_grow_counts_every_flop(grown):
    """Training: 3 x forward; scoring: 4 x forward of the probe set."""
    records, _ = grown
    forward = {depth: FcShape(2, depth, 4, 2).flops for depth in (2, 3, 4, 5)}
    small, large = of(records, "small").history, of(records, "large").history
    assert small.flops == [3 * 450 * forward[2] * n for n in range(5)]
    assert large.flops == [3 * 450 * forward[5] * n for n in range(5)]
    expected, spent = [0.0], 0.0
    for trained, scored in ((2, 2), (3, 3), (4, None), (4, None)):
        spent += 3 * 450 * forward[trained] + (4 * 450 * forward[scored] if scored else 0)
        expected.append(spent)
    assert of(records, "max").history.flops == expected
    assert all(record.steps_per_epoch == 9 for record in records)


def test_grow_in_a_population_is_growing_alone(grown):
    """Neither padding nor company changes what becomes of a network."""
    records, _ = grown
    alone, _ = last(grow, cells_of(GROW, growth={"arm": "max"}, training={"seed": 1}))
    together = of(records, "max", seed=1)
    assert [e.position for e in alone[0].events] == [e.position for e in together.events]
    assert alone[0].history.train_loss == pytest.approx(together.history.train_loss, rel=1e-4)


def test_grow_compiles_one_program_of_each_kind_for_all_depths(grown):
    _, state = grown
    kinds = {key[0].__name__ for key in state.population._compiled}
    assert kinds == {
        "advance_program",
        "performance_program",
        "scores_program",
        "insert_program",
    }
    assert len(state.programs) == 5  # the loss is that of two sets of different size
    assert state.compile_seconds > 0


@pytest.mark.parametrize("block", ["plain-relu", "residual1-tanh", "residual2-relu"])
def test_grow_carries_the_state_of_the_optimizer(block):
    """Of existing weights everything is kept, of new ones it starts at zero; rates are scaled."""
    cells = cells_of(GROW, model={"block": block}, growth={"arm": "max"})
    loaded, facts = placed(cells)
    population = Population(cells, loaded, facts, depths=[3, 2], room=4)
    population.advance(population.steps)
    before = jax.tree.map(np.asarray, population.state)
    loss = population.performance(loaded.probe).loss
    population.insert(np.array([1, -1]), factor=0.5)
    after = jax.tree.map(np.asarray, population.state)
    assert population.depths.tolist() == [4, 2] and population.rates.tolist() == [0.5, 1.0]
    np.testing.assert_allclose(population.performance(loaded.probe).loss, loss, atol=1e-5)
    from cbundles.networks import network

    view = network.views(population.shape)[0]
    for old, new in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True):
        assert (old[1] == new[1]).all()  # nothing was inserted there
        if old.ndim == 2 and old.shape[1] == population.shape.parameters:
            one, two = view(old[0]), view(new[0])
            assert (two.hidden[0] == one.hidden[0]).all()
            assert (two.hidden[2] == one.hidden[1]).all()
            assert (two.first == one.first).all() and (two.last == one.last).all()
        else:
            assert (old == new).all()
    states = [view(leaf[0]) for leaf in jax.tree.leaves(after.opt_state)
               if leaf.ndim == 2 and leaf.shape[1] == population.shape.parameters]  # fmt: skip
    assert len(states) >= 2
    assert all(not m.hidden[1].any() and m.hidden[2].any() for m in states)


def test_grow_for_a_hundred_epochs_and_a_checkpoint_of_the_last_one(tmp_path, cli, monkeypatch):
    """A hundred is also how many percent there are; and a kill may come after the last epoch."""
    content = {**GROW, "training": {**GROW["training"], "epochs": 100, "seed": 0}}
    content["growth"] = {**GROW["growth"], "arm": ["max", "small"]}
    path = written(tmp_path, content)
    monkeypatch.setattr(tasks, "CHECKPOINT_SECONDS", 0)
    cells = cells_of(content)
    *_, state = grow.train(cells, *placed(cells))
    whole = grow.records(cells, state, ORIGIN)
    (key,) = [p.key for p in planner.populations(cells, "cpu")]
    fingerprint = data.load("spirals").fingerprint
    folder = tmp_path / "results" / "small" / "checkpoints"
    folder.mkdir(parents=True)
    (folder / f"{key}-{fingerprint}.msgpack").write_bytes(state.freeze())
    done = cli("grow", path)
    assert done.returncode == 0, done.stdout
    for record in whole:
        found = Store(tmp_path / "results" / "small").record(record.id)
        assert found.history == record.history
    assert not list(folder.iterdir())


def test_grow_by_threshold_inserts_nothing_when_no_place_is_worth_it():
    records, _ = last(grow, cells_of(GROW, growth={"arm": "max", "threshold": 1e5}))
    assert all(not r.events and len(r.scores) == 3 for r in records)


def test_grow_takes_back_what_does_not_help():
    """A learning rate a hundred times as large undoes what was learned; without the insertion
    training goes on as before it."""
    given = {"arm": ["max", "small"], "backtrack": 2, "learning_rate_factor": 100.0,
             "first_epoch": 40, "insertions": 1}  # fmt: skip
    training = {"epochs": 44, "learning_rate": 0.03}
    records, state = last(grow, cells_of(GROW, growth=given, training=training))
    record = of(records, "max")
    assert [(e.epoch, e.kind, e.depth) for e in record.events] == [
        (40, "insert", 3),
        (42, "undo", 2),
    ]
    loss = record.history.train_loss
    assert loss[40] < 0.6 < loss[41]
    assert loss[42] == pytest.approx(loss[40], rel=1e-5) and loss[44] < 0.6
    assert state.population.rates.tolist() == [1.0] * 4


@pytest.mark.parametrize(("module", "content"), [(grow, GROW), (tune, TUNE)])
def test_grow_and_tune_resume_bit_identically(module, content):
    if module is grow:
        content = {**content, "growth": {**content["growth"], "backtrack": 1}}
    cells = cells_of(content)
    whole, _ = last(module, cells)
    for stop in (1, 3, whole[0].history.epoch[-1]):
        for state in module.train(cells, *placed(cells)):
            if state.epoch == stop:
                break
        resumed, _ = last(module, cells, state.freeze())
        for one, other in zip(whole, resumed, strict=True):
            assert one.history == other.history
            assert (one.events, one.scores) == (other.events, other.scores)
            assert one.programs == other.programs


def test_grow_keeps_about_a_hundred_entries_and_all_edits():
    given = {"arm": ["max", "small"], "first_epoch": 101, "insertions": 1}
    records, _ = last(grow, cells_of(GROW, growth=given, training={"epochs": 302, "seed": 0}))
    whole = [*range(0, 302, 3), 302]
    assert of(records, "small").history.epoch == whole
    assert of(records, "max").history.epoch == sorted([*whole, 101])


def test_a_checkpoint_with_a_diverged_network_is_whole():
    """Its losses are None, its sensitivities not finite; the others go on from there."""
    cells = cells_of(GROW, growth={"arm": ["max", "small"]}, training={"learning_rate": 10.0})
    for state in grow.train(cells, *placed(cells)):
        if state.epoch == 3:
            break
    member = state.members[0]
    member.history[-1]["train_loss"] = None
    member.note_scores(3, Scores([math.nan], [math.inf]))
    member.loss_before_trial = math.nan
    (first, *_) = grow.train(cells, *placed(cells), state.freeze())
    assert first.epoch >= 3 and math.isnan(first.members[0].scores[-1]["sensitivities"][0])


@pytest.mark.parametrize("damage", [b"", b"nonsense", "other"])
def test_grow_refuses_a_damaged_checkpoint(damage):
    cells = cells_of(GROW, growth={"arm": "max"})
    if damage == "other":
        wider = cells_of(GROW, growth={"arm": "max"}, model={"width": 5})
        damage = next(grow.train(wider, *placed(wider))).freeze()
    with pytest.raises(DamagedCheckpoint):
        next(grow.train(cells, *placed(cells), damage))


@pytest.fixture(scope="module")
def tuned():
    return last(tune, cells_of(TUNE, model={"depth": 2}))


def test_tune_gives_every_network_the_same_compute(tuned):
    records, state = tuned
    budget = 6 * 3 * 350 * FcShape(2, 3, 4, 2).flops  # 360 of 450 images: 7 batches of 50
    for record in records:
        history = record.history
        next_epoch = 3 * 350 * FcShape(2, history.depth[-1], 4, 2).flops
        assert budget - next_epoch < history.flops[-1] <= budget
    assert all(member.pending is None for member in state.members)
    assert tune.progress(state)["part"] == pytest.approx(100, abs=15)


def test_tune_judges_every_edit_and_undoes_exactly(tuned):
    """An edit is kept when the loss on held-out images fell; otherwise the weights are the old."""
    records, _ = tuned
    kinds = {event.kind for record in records for event in record.events}
    assert "insert" in kinds and "accept" in kinds
    for record in records:
        assert record.arm == "both" or not record.events
        made = [e for e in record.events if e.kind in ("insert", "remove")]
        judged = [e for e in record.events if e.kind in ("accept", "undo")]
        assert len(made) == len(judged)
        by_epoch = dict(zip(record.history.epoch, record.history.held_out_loss, strict=True))
        for edit, verdict in zip(made, judged, strict=True):
            held_out = by_epoch[verdict.epoch]
            if verdict.kind == "accept":
                assert held_out < edit.loss_before
            else:
                assert held_out == pytest.approx(edit.loss_before, rel=1e-5)


def test_tune_holds_images_out_of_training_and_probe():
    cells = cells_of(TUNE)
    loaded, _ = placed(cells)
    sets = {"train": loaded.canvas, "apart": loaded.held_out.images,
            "probe": loaded.probe.images, "test": loaded.test.images}  # fmt: skip
    points = {name: {row.tobytes() for row in np.asarray(images).reshape(-1, 2)}
              for name, images in sets.items()}  # fmt: skip
    assert len(points["apart"]) == 90 and len(points["train"]) == 360
    assert not points["apart"] & (points["train"] | points["probe"] | points["test"])
    assert points["probe"] == points["train"]


def test_tune_removes_conflicting_layers_of_a_deep_network():
    """40 layers of width 4 merge everything; the tuner leaves what is before the first conflict."""
    cells = cells_of(TUNE, model={"depth": 40}, tuning={"max_depth": 48, "budget_depth": 10},
                     training={"seed": 0, "epochs": 20})  # fmt: skip
    records, _ = last(tune, cells)
    (both,) = [r for r in records if r.arm == "both"]
    first = both.events[0]
    entropy = both.scores[0].entropy
    expected = next(i for i, h in enumerate(entropy) if h is None or h > entropy[0])
    assert (first.kind, first.position, first.depth) == ("remove", expected, expected)
    assert len(entropy) == 40


def test_tune_tells_of_a_network_that_the_compute_is_too_small_for():
    cells = cells_of(TUNE, model={"depth": 40}, tuning={"max_depth": 48, "budget_depth": 1},
                     training={"seed": 0, "epochs": 1})  # fmt: skip
    records, _ = last(tune, cells)
    assert all(r.history.epoch == [0] for r in records)


def test_subjects_grow_their_padding_in_powers_of_two():
    cells = cells_of(GROW, growth={"arm": "max"})
    loaded, facts = placed(cells)
    population = Population(cells, loaded, facts, depths=[4, 3], room=4)
    loss, old = population.performance(loaded.probe).loss, population.snapshot()
    population.insert(np.array([0, -1]))
    assert population.shape.depth == 8 and population.depths.tolist() == [5, 3]
    np.testing.assert_allclose(population.performance(loaded.probe).loss, loss, atol=1e-5)
    population.restore(old, np.array([True, False]))
    assert population.depths.tolist() == [4, 3] and population.shape.depth == 8
    np.testing.assert_allclose(population.performance(loaded.probe).loss, loss, rtol=1e-6)
    population.truncate(np.array([2, 3]))
    assert population.depths.tolist() == [2, 3]


@pytest.mark.parametrize("factor", [1.0, 100.0])
def test_a_vgg_can_grow(factor):
    """A learning rate a hundred times as large undoes what was learned, and the layer goes."""
    content = {
        "data": {"name": "mnist_mini"},
        "model": {"family": "vgg", "blocks": "1,1,0,0", "base_filters": 2},
        "training": {"epochs": 3, "batch_size": 512, "learning_rate": 0.01},
        "probe": {"samples": 512},
        "growth": {"arm": "max", "first_epoch": 2, "backtrack": 1, "learning_rate_factor": factor},
    }
    cells = cells_of(content)
    (record,), state = last(grow, cells)
    position = record.events[0].position
    assert position == int(np.argmax(record.scores[0].sensitivities))
    kept = factor == 1.0
    assert record.events[1].kind == ("accept" if kept else "undo")
    assert record.history.depth == [6, 6, 7, 7 if kept else 6]
    assert state.population.shape.inserted == ((position,) if kept else ())
    if not kept:
        before, after = record.history.train_loss[2:4]
        assert after == pytest.approx(before, rel=1e-5)
        for state in grow.train(cells, *placed(cells)):
            if state.epoch == 2:
                break
        (resumed,), _ = last(grow, cells, state.freeze())
        assert resumed.history == record.history and resumed.events == record.events


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"model": {"block": "residual1-relu"}}, ["residual1-relu", "zero", "residual1-tanh"]),
        ({"model": {"block": "plain-tanh"}}, ["plain-tanh", "nearest valid: plain-relu"]),
        ({"growth": {"zero": "inner"}}, ["growth.zero", "residual2-tanh"]),
        ({"growth": {"first_epoch": 9}}, ["training.epochs = 4", "nearest valid: 11"]),
        ({"growth": {"large_depth": None}}, ["growth.large_depth", "missing"]),
        ({"growth": {"arm": "mx"}}, ["growth.arm", "max"]),
        ({"growth": {"arm": "none"}}, ["growth.first_epoch", "has no effect without growth.arm"]),
        ({"growth": {"large_depth": 2}}, ["growth.large_depth = 2", "nearest valid: 3"]),
        ({"growth": {"threshold": 1.0, "first_epoch": 4}}, ["first_epoch", "nearest valid: 3"]),
        ({"growth": {"backtrack": 3}}, ["growth.every", "nearest valid: 3"]),
        ({"growth": {"backtrack": 1, "every": 3}}, ["training.epochs", "nearest valid: 5"]),
        (
            {"training": {"stop_conflicting": "entropy"}},
            ["training.stop_conflicting", "nearest valid: off"],
        ),
        (
            {
                "model": {"family": "vgg", "depth": 10, "width": None},
                "growth": {"large_depth": None},
            },
            ["growth.arm", "matched"],
        ),
    ],
)
def test_grow_says_what_cannot_work(changed, words):
    with pytest.raises(InputError) as refused:
        cells_of(GROW, **changed)
    assert all(word in str(refused.value) for word in words), refused.value


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"model": {"block": "residual2-tanh"}}, ["plain fc networks"]),
        ({"tuning": {"budget_depth": None}}, ["tuning.budget_depth", "missing"]),
        ({"tuning": {"max_depth": 1}}, ["tuning.max_depth", "nearest valid: 2"]),
        ({"tuning": {"min_depth": 3}}, ["tuning.min_depth", "nearest valid: 2"]),
        ({"tuning": {"held_out": 0.9}}, ["tuning.held_out", "0.5"]),
        ({"tuning": {"min_depth": 2, "max_depth": 1}}, ["tuning.max_depth", "nearest valid: 2"]),
    ],
)
def test_tune_says_what_cannot_work(changed, words):
    with pytest.raises(InputError) as refused:
        cells_of(TUNE, **changed)
    assert all(word in str(refused.value) for word in words), refused.value


def test_grow_and_tune_populations_hold_whole_settings():
    grid = config.load(ROOT / "configs" / "spirals_grow.yaml", [])
    populations = planner.populations(grid.cells, "cpu")
    assert len(populations) == 4 and all(len(p.cells) == 140 for p in populations)
    grid = config.load(ROOT / "configs" / "tune_spirals.yaml", [])
    populations = planner.populations(grid.cells, "cpu")
    assert [{c.model.depth for c in p.cells} for p in populations] == [{20}, {5}, {2}]


def test_populations_on_a_gpu_have_one_kind_of_block():
    grid = {**GROW, "model": {**GROW["model"], "block": ["plain-relu", "residual2-tanh"]}}
    cells = config.build({k: v for k, v in grid.items() if k != "growth"}, default_name="s").cells
    for device_ in ("cpu", "gpu"):
        populations = planner.populations(cells, device_)
        assert all(len({c.model.block for c in p.cells}) == 1 for p in populations)


def test_tune_needs_enough_images_besides_those_held_out(cli, tmp_path):
    nothing = cli("tune", written(tmp_path, TUNE), "--set", "tuning.held_out=1e-5", "--plan")
    assert nothing.returncode == 2 and "nearest valid: 0.00222222" in nothing.stderr
    refused = cli("tune", written(tmp_path, TUNE), "--set", "training.batch_size=361", "--plan")
    assert refused.returncode == 2
    assert "tuning.held_out = 0.2" in refused.stderr and "nearest valid: 360" in refused.stderr


def test_a_cell_without_edits_keeps_its_identity():
    plain = config.Cell(config.Data(), config.Model(depth=3, width=4), config.Training(),
                        config.Probe())  # fmt: skip
    content = plain.asdict()
    del content["growth"], content["tuning"], content["model"]["block"]
    assert config.Cell.fromdict(content).id == plain.id
    assert dataclasses.replace(plain, growth=config.Growth(arm="max")).id != plain.id


def written(tmp_path, content):
    import yaml

    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(content))
    return str(path)


def test_grow_command(cli, tmp_path):
    path = written(tmp_path, GROW)
    planned = cli("grow", path, "--plan")
    assert planned.returncode == 0 and "8 networks in 1 programs" in planned.stdout
    assert not (tmp_path / "results").exists()
    done = cli("grow", path, "--keep-weights")
    assert done.returncode == 0, done.stderr
    assert "spirals, plain-relu, width 4, depth 2" in done.stdout
    assert "8 networks took" in done.stdout and "to compile" in done.stdout
    folder = tmp_path / "results" / "small"
    assert {"growth.csv", "growth.md", "run.json"} <= {p.name for p in folder.iterdir()}
    assert {p.name for p in (folder / "figures").glob("*.png")} == {
        "fig_growth_loss.png", "fig_growth_sensitivity.png"
    }  # fmt: skip
    records = Store(folder).records(CELLS)
    (inserted,) = [r for r in records if (r.arm, r.seed) == ("max", 0)]  # fmt: skip
    kept = saved.read(folder / "weights" / f"{inserted.id}.npz")
    assert kept.shape == FcShape(2, 4, 4, 2)
    again = cli("grow", path)
    assert again.returncode == 0 and "to train" not in again.stdout
    refused = cli("sweep", path)
    assert refused.returncode == 2 and "cbundles grow can" in refused.stderr
    refused = cli("tune", path)
    assert refused.returncode == 2 and "cbundles grow can" in refused.stderr
    report = cli("report")
    assert report.returncode == 0 and "C18" in report.stdout


def test_tune_command(cli, tmp_path):
    path = written(tmp_path, TUNE)
    done = cli("tune", path)
    assert done.returncode == 0, done.stdout + done.stderr
    records = Store(tmp_path / "results/small").records(CELLS)
    assert {r.arm for r in records} == set(TUNE["tuning"]["arm"])
    assert (tmp_path / "results/small/tuning.csv").read_text().count("\n") > 1


@pytest.mark.slow
def test_tune_command_survives_a_kill(tmp_path, process, frozen):
    path = written(tmp_path, {**TUNE, "training": {**TUNE["training"], "epochs": 60}})
    folder = tmp_path / "killed"
    command = ["tune", path, "--out", "killed", "--workers", "1"]
    with frozen(*command, at="killed/checkpoints/*", after=3):
        pass
    assert list(folder.glob("checkpoints/*")) and not list(folder.glob("cells/*"))
    assert process(*command).returncode == 0
    assert process("tune", path, "--out", "whole", "--workers", "1").returncode == 0
    tables = [
        (tmp_path / run / "tuning.csv").read_text().splitlines() for run in ("killed", "whole")
    ]
    seconds = tables[0][0].split(",").index("seconds")
    for one, other in zip(*tables, strict=True):
        columns = [line.split(",") for line in (one, other)]
        assert columns[0][:seconds] == columns[1][:seconds]
