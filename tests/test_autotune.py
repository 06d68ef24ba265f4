"""Auto-tuning: pruning as a pure function, decisions from records, and the command for real."""

from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from records import record, with_settings

from cbundles import config
from cbundles.decisions import autotune
from cbundles.executor.context import Context
from cbundles.report import table1
from cbundles.report.runs import Run
from cbundles.store import Store


@pytest.mark.parametrize(
    ("blocks", "conflicting", "rule", "left"),
    [
        ((3, 12, 41, 3), range(20, 60), "stage", (3, 12, 4, 3)),  # only the stage of the first one
        ((3, 3, 5, 3), [14], "stage", (3, 3, 5, 2)),
        ((3, 3, 5, 3), [4, 14], "stage", (3, 0, 5, 3)),
        ((3, 3, 5, 3), [8, 10, 14], "stage", (3, 3, 1, 3)),
        ((3, 3, 5, 3), [8, 10, 14], "conflicting", (3, 3, 3, 3)),  # 9 and 11 do not conflict
        ((0, 2, 0, 1), [2, 3], "stage", (0, 1, 0, 1)),
        ((1, 0, 0, 0), [1], "stage", (0, 0, 0, 0)),
        ((3, 3, 5, 3), [], "stage", (3, 3, 5, 3)),
    ],
)
def test_prune(blocks, conflicting, rule, left):
    entropies = [0.5 if i in conflicting else 0.0 for i in range(1, sum(blocks) + 1)]
    assert autotune.prune(blocks, entropies, rule) == left


@given(
    st.lists(st.integers(0, 6), min_size=4, max_size=4), st.data(), st.sampled_from(autotune.RULES)
)
def test_pruning_always_makes_progress_and_ends(blocks, data, rule):
    restarts, before = 0, sum(blocks)
    while sum(blocks):
        numbers = st.sampled_from([0.0, 1e-6, 2.3, None])
        count = sum(blocks) + (1 if rule == autotune.NEXT else 0)
        entropies = data.draw(st.lists(numbers, min_size=count, max_size=count))
        left = autotune.prune(blocks, entropies, rule)
        if all(h == 0 for h in entropies[-sum(blocks) :]):
            assert left == tuple(blocks)
            break
        assert sum(left) < sum(blocks)
        assert all(new <= old for new, old in zip(left, blocks, strict=True))
        assert sum(new < old for new, old in zip(left, blocks, strict=True)) == 1
        blocks, restarts = left, restarts + 1
    assert restarts <= before


@pytest.mark.parametrize("arguments", [((1, 1, 1, 1), [0.0] * 3), ((1, 0, 0, 0), [1.0], "all")])
def test_prune_refuses_what_does_not_fit(arguments):
    with pytest.raises(ValueError, match=r"values|must be one of"):
        autotune.prune(*arguments)


def cell(blocks="1,2,2,1", checks=10, epochs=12, by="entropy", last="block") -> config.Cell:
    content = {
        "model": {"family": "vgg", "blocks": blocks},
        "training": {"stop_conflicting": by, "conflict_checks": checks, "epochs": epochs},
        "probe": {"last": last},
    }
    return config.build(content, default_name="x").cells[0]


def test_a_network_that_conflicts_early_leads_to_a_smaller_one():
    bad = [0.0, 0.0, 0.4, 0.0, 1.0, 2.3]
    decision = autotune.decide(cell(), 1, bad, "stage")
    assert (decision.epoch, decision.conflict, decision.left) == (1, 3, (1, 1, 2, 1))
    assert "block 3 of 6" in str(decision) and "14 layers" in str(decision)
    smaller = autotune.following(cell(), decision)
    assert smaller == cell("1,1,2,1") and smaller.id != cell().id


def test_what_conflicts_late_or_not_at_all_is_the_result():
    fine, bad = [0.0] * 6, [0.0, 0.0, 0.4, 0.0, 1.0, 2.3]
    diverged = [*fine[:-1], None]
    endings = {"; no conflict, ": fine, "conflicts only after": bad, "diverged after": diverged}
    for said, last in endings.items():
        decision = autotune.decide(cell(), 12, last, "stage")
        assert decision.conflict is None and autotune.following(cell(), decision) is None
        assert said in str(decision)
    inner = [0.0, 0.7, 0.0, 0.0, 0.0, 0.0]  # the criterion is H of the last layer
    assert autotune.decide(cell(), 1, inner, "stage").conflict is None


def test_where_only_the_pooled_features_conflict_the_last_block_goes():
    pooled = cell(last="pooled")
    decision = autotune.decide(pooled, 1, [0.0] * 6 + [0.3], "stage")
    assert (decision.conflict, decision.left) == (6, (1, 2, 2, 0)) and decision.only_pooled
    assert "only the pooled features conflict, so the last block, 6, goes" in str(decision)
    both = autotune.decide(pooled, 1, [0.0, 0.0, 0.4, 0.0, 0.0, 0.0, 0.3], "stage")
    assert (both.conflict, both.left, both.only_pooled) == (3, (1, 1, 2, 1), False)
    fine = autotune.decide(pooled, 1, [0.0, 0.0, 0.4, 0.0, 0.0, 0.5, 0.0], "stage")
    assert fine.conflict is None  # H^L is that of the pooled features


def test_the_papers_revision_judges_a_block_by_the_next_one():
    pooled = cell(last="pooled")
    measured = [0.0, 0.0, 0.4, 0.4, 0.4, 0.4, 0.4]
    assert autotune.decide(pooled, 1, measured, "stage").left == (1, 1, 2, 1)
    by_next = autotune.decide(pooled, 1, measured, "next")
    assert by_next.left == (1, 0, 2, 1)
    assert "first block to go, as what is behind it conflicts, 2" in str(by_next)
    assert autotune.decide(pooled, 1, [0.0] * 6 + [0.1], "next").left == (1, 2, 2, 0)
    with pytest.raises(ValueError, match="pooled features are not among"):
        autotune.decide(cell(), 1, measured[:6], "next")


def test_a_single_pair_restarts_by_entropy_and_not_by_the_rate():
    pair = [0.0] * 5 + [1e-9]
    assert autotune.decide(cell(), 1, pair, "stage").conflict == 6
    by_rate = cell(by="conflict_rate")
    assert autotune.decide(by_rate, 1, pair, "stage").conflict is None
    decision = autotune.decide(by_rate, 1, [0.0, 0.002, 0.1, 0.1, 0.1, 0.1], "stage")
    assert decision.left == (1, 0, 2, 1) and "conflict rate at the end" in str(decision)
    assert cell().id != by_rate.id


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (
            ["--set", "training.stop_conflicting=off"],
            "training.stop_conflicting is off; nearest valid: entropy",
        ),
        (["--rule", "next", "--set", "probe.last=block"], "nearest valid: stage"),
        (["--set", "training.stop_conflicting=[entropy,conflict_rate]"], "a command for each"),
    ],
)
def test_what_auto_tuning_cannot_follow_is_refused(cli, flags, said):
    done = cli("autotune", "--dataset", "mnist_mini", *flags)
    assert done.returncode == 2 and said in done.stderr.replace("\n", " ")


def test_nothing_left_ends_the_chain():
    decision = autotune.decide(cell("1,0,0,0"), 1, [1.0], "stage")
    assert decision.left == (0, 0, 0, 0) and autotune.following(cell("1,0,0,0"), decision) is None


SMALL = (
    "autotune", "--dataset", "mnist_mini", "--blocks", "1,30,0,0", "--seeds", "2",
    "--set", "model.base_filters=2", "--set", "training.epochs=1", "--set", "probe.samples=256",
    "--set", "training.batch_size=250", "--set", "probe.last=block",
    "--set", "probe.amplitude=all",
)  # fmt: skip


ONE_SEED = (
    "autotune", "--dataset", "mnist_mini", "--blocks", "1,8,0,0", "--seeds", "1",
    "--set", "model.base_filters=1", "--set", "training.epochs=1", "--set", "probe.samples=64",
    "--set", "training.batch_size=1000", "--set", "probe.last=block",
    "--set", "probe.amplitude=all", "--out", "out",
)  # fmt: skip


def test_autotune_in_small(cli, tmp_path):
    """One seed: what a network says of the next is read from records, also by the next command."""
    small = ONE_SEED
    done = cli(*small)
    assert done.returncode == 0, done.stdout + done.stderr
    run = json.loads((tmp_path / "out/run.json").read_text())
    (chain,) = run["attempts"]
    assert len(chain) > 1 and run["tuned"] == [chain[-1]]
    assert "first conflicting block" in done.stdout.replace("\n", " ")
    plan, of_fresh = cli(*small, "--plan").stdout, cli(*small, "--plan", "--fresh").stdout
    assert plan.count(": finished already\n") == 1 and "one epoch about" not in plan
    assert "finished already" not in of_fresh and "one epoch about" in of_fresh
    (planned,) = json.loads(cli(*small, "--plan", "--json").stdout)["networks"]
    assert planned["finished"]
    again = cli(*small)
    assert again.returncode == 0 and "to train" not in again.stdout
    assert again.stdout.count("recorded: seed 0") == len(chain)
    assert not (tmp_path / "out/table1.md").exists()
    table = (tmp_path / "out/table.md").read_text()
    assert "| paper |" not in table
    shown = cli("status", "out").stdout
    assert f"autotune, {len(chain)} networks finished, 0 seeds not at the end" in shown
    depths = [str(Store(tmp_path / "out").record(cell).depth) for cell in chain]
    pruned = ", ".join(["1"] * (len(chain) - 1))
    assert f"| 0 | {' -> '.join(depths)} | {pruned} | trained to the end |" in table
    beside = cli(*small, "--paper", "--json")
    assert "| paper |" in (tmp_path / "out/table1.md").read_text()
    said = json.loads(beside.stdout.splitlines()[-1])
    assert said["event"] == "done" and len(said["chains"][0]["layers"]) == len(chain)
    assert [row["data set"] for row in said["rows"]] == ["mnist_mini"] * len(said["rows"])

    records = tmp_path / "out/records.jsonl"
    lines = records.read_text().splitlines(keepends=True)
    records.write_text("".join(line for line in lines if chain[-1] not in line))
    (planned,) = json.loads(cli(*small, "--plan", "--json").stdout)["networks"]
    assert not planned["finished"] and planned["restarts"] == len(chain) - 1
    times = "1 time" if len(chain) == 2 else f"{len(chain) - 1} times"
    assert f"its seed has been restarted {times}" in cli(*small, "--plan").stdout.replace("\n", " ")


@pytest.mark.faults
def test_a_killed_run_is_described_as_far_as_it_came(cli, frozen, tmp_path):
    """Frozen when the second attempt has just ended, of which its command has not heard yet."""
    with frozen(*ONE_SEED, "--workers", "1", at="out/cells/*.json", after=2):
        run = json.loads((tmp_path / "out/run.json").read_text())
    (chain,) = run["attempts"]
    store = Store(tmp_path / "out")
    assert len(chain) == 2 and run["tuned"] == [] and all(map(store.has, chain))
    assert cli("report", ".").returncode == 0
    (half_done,) = json.loads(cli("status", "out", "--json").stdout)["half_done"]
    assert half_done["cells"] == chain[1:]  # its worker had no time to remove the checkpoint
    depths = " -> ".join(str(store.record(cell).depth) for cell in chain)
    assert f"| 0 | {depths} |" in (tmp_path / "out/table.md").read_text()


def test_weights_of_what_is_finished_are_not_promised(cli):
    assert cli(*ONE_SEED).returncode == 0
    told = "--keep-weights: 1 finished network without all of them; --fresh trains anew"
    assert told in cli(*ONE_SEED, "--keep-weights", "0,last").stdout
    assert told not in cli(*ONE_SEED, "--keep-weights", "last").stdout


def test_workers_that_share_a_gpu_measure_no_latency(cli, tmp_path, monkeypatch):
    alone = Context.origin

    def shared(context, fingerprint):
        return msgspec.structs.replace(alone(context, fingerprint), workers_on_device=2)

    monkeypatch.setattr(Context, "origin", shared)
    assert cli(*ONE_SEED).returncode == 0
    (tuned,) = json.loads((tmp_path / "out/run.json").read_text())["tuned"]
    record = Store(tmp_path / "out").record(tuned)
    assert record.latency_seconds is None and record.origin.workers_on_device == 2
    assert "| not measured |" in (tmp_path / "out/table.md").read_text()


def test_a_network_to_compare_with_is_missed(tmp_path):
    made = record(10, 8, family="vgg", epochs=2)
    description = {"kind": "autotune", "attempts": [[made.id]], "tuned": [made.id], "baseline": []}
    run = Run(Store(tmp_path), description, [made])
    assert run.unfinished == run.baselines_missing == 0
    asked_for = {**description, "baseline_asked_for": ["resnet"]}
    assert Run(Store(tmp_path), asked_for, [made]).baselines_missing == 1


def rows_of_attempts(run):
    """Of the table of a run of which no network has come to its end."""
    (path,) = table1.write_run(run)
    assert path.name == "table.md" and "No network has come to its end yet" in path.read_text()
    return [line for line in path.read_text().splitlines() if line.startswith("| 0 ")]


@pytest.mark.parametrize(
    ("rule", "layers"),
    [
        ({"rule": "stage"}, "10 -> 8"),
        ({"rule": "next"}, "10 -> ?"),  # which needs pooled features
        ({"rule": "of another version"}, "10 -> ?"),
        ({}, "10 -> ?"),
    ],
)
def test_attempts_of_a_run_that_goes_on(rule, layers, tmp_path):
    of_vgg = record(10, 8, family="vgg", epochs=2, entropy=[0, 0, 0.5, 0.5])
    made = with_settings(of_vgg, training={"conflict_checks": 3})
    description = {"attempts": [[made.id, "not trained yet"]], "tuned": [], **rule}
    run = Run(Store(tmp_path), description, [made])
    assert rows_of_attempts(run) == [f"| 0 | {layers} | 2 | under way |"]


def test_attempts_of_which_a_record_is_missing(tmp_path):
    made = record(8, 8, family="vgg", epochs=2, blocks="1,1,0,1")
    chain = ["left out", made.id, "left out, too", "not trained yet"]
    description = {"attempts": [chain], "rule": "stage", "tuned": []}
    run = Run(Store(tmp_path), description, [made])
    assert rows_of_attempts(run) == ["| 0 | ? -> 8 -> ? -> ? | ?, 2, ? | under way |"]


def test_layers_of_own_blocks_are_not_told(tmp_path):
    of_vgg = record(10, 8, family="vgg", epochs=2, entropy=[0, 0, 0.5, 0.5])
    model = {"family": "own", "build": "mine:build", "source": "a digest", "depth": 12}
    model["keywords"] = json.dumps({"blocks": [3, 3]})
    made = with_settings(of_vgg, model=model, training={"conflict_checks": 3})
    description = {"attempts": [[made.id, "not trained yet"]], "rule": "stage", "tuned": []}
    (row,) = rows_of_attempts(Run(Store(tmp_path), description, [made]))
    assert "-> ? |" in row


@pytest.mark.slow
def test_autotune_for_real(process, tmp_path):
    """A network that conflicts is pruned; the same command again trains nothing."""
    done = process(*SMALL, "--out", "out")
    assert done.returncode == 0, done.stderr
    run = json.loads((tmp_path / "out/run.json").read_text())
    assert len(run["attempts"]) == 2 and max(map(len, run["attempts"])) > 1
    kept = {path.stem for path in (tmp_path / "out" / "weights").glob("*.npz")}
    assert kept == {*run["tuned"], *run["given_up"]}  # of what was replaced nothing is kept
    assert "answer: about" in done.stdout and "over" in done.stdout
    for chain in run["attempts"]:
        depths = []
        for name in chain:
            content = Store(tmp_path / "out").record(name)
            depths.append(content.depth)
            assert len(content.history.entropy[-1]) == (depths[-1] - 2) // 2
        assert depths == sorted(depths, reverse=True) and len(set(depths)) == len(depths)
        assert content.history.entropy[-1][-1] == 0 and content.latency_seconds > 0
    assert "removes" in done.stdout and "no conflict, trained to the end" in done.stdout
    table = (tmp_path / "out/table.md").read_text()
    assert "paper" not in table and "mnist_mini, 2 filters" in table
    assert len(run["tuned"]) == 2 and run["tuned"][0] == run["attempts"][0][-1]
    before = (tmp_path / "out/records.jsonl").read_bytes()
    again = process(*SMALL, "--out", "out")
    assert again.returncode == 0 and "to train" not in again.stdout
    assert (tmp_path / "out/records.jsonl").read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--dataset", "cifr10"], "did you mean 'cifar10'"),
        (["--dataset", "mnist_mini", "--blocks", "3,4"], "3,12,41,3"),
        (["--dataset", "mnist_mini", "--baseline", "resnet-51"], "resnet-50"),
        (["--dataset", "mnist_mini", "--rule", "stagee"], "did you mean 'stage'"),
        (["--dataset", "mnist_mini", "--set", "model.family=resnet"], "starts from vgg"),
        (["--dataset", "mnist_mini", "--set", "model.width=3"], "has no effect"),
        (["--dataset", "mnist_mini", "--keep-weights", "500", "--plan"], "nearest valid: last"),
    ],
)
def test_bad_flags_are_answered_with_one_line(cli, arguments, message):
    done = cli("autotune", *arguments)
    assert done.returncode == 2 and message in done.stderr
    assert "Traceback" not in done.stderr and len(done.stderr.strip().splitlines()) == 1


def test_a_plan_runs_nothing(cli, tmp_path):
    done = cli("autotune", "--dataset", "cifar10", "--plan", "--baseline", "resnet-76")
    assert done.returncode == 0 and "64,830,474 parameters" in done.stdout
    assert "177.5 MB" in done.stdout and not (tmp_path / "results").exists()


def test_a_plan_for_machines(cli):
    flags = ["--dataset", "cifar10", "--seeds", "2", "--plan", "--json"]
    done = cli("autotune", *flags)
    plan = json.loads(done.stdout)
    assert [one["seed"] for one in plan["networks"]] == [0, 1] and plan["memory_bytes"] > 0
    assert plan["networks"][0]["blocks"] == "3,12,41,3" and plan["networks"][0]["seconds"] > 0


def test_a_number_of_seeds_beside_seeds_is_refused(cli):
    """Else it would be one network where twenty were asked for."""
    flags = ["--dataset", "mnist_mini", "--seeds", "20", "--set", "training.seed=500", "--plan"]
    done = cli("autotune", *flags)
    assert (
        done.returncode == 2
        and "--seeds 20: has no effect beside --set training.seed" in done.stderr
    )


def test_table1_never_invents_a_number():
    table = table1.comparison([])
    rows = table.rows
    ours = [row for row in rows if row["source"] == "ours"]
    assert len(ours) == len(table1.PAPER) == 8
    assert all(row["accuracy [%]"] == "not run" and not row["ms/step"] for row in ours)
    assert (
        r"\pm" in table.latex("l" * len(table.columns)) and rows[0]["accuracy [%]"] == "85.6 ± 0.8"
    )
