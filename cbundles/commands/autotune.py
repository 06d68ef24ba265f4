"""`cbundles autotune`: follow each network from conflict to conflict until none is left."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console

from cbundles import config, criterion, readings
from cbundles.chains import Chain, Fingerprints, chains_so_far, places_of_blocks_in
from cbundles.commands.checks import check_against_data, require_epochs
from cbundles.commands.fresh import NOTHING_NEW, say_what_is_replaced, start_over
from cbundles.commands.output import (
    NOTHING_WAS_RUN,
    list_files,
    say,
    say_beside_results,
    say_failures,
    say_what_was_found,
    say_whose_times,
)
from cbundles.commands.running import (
    Options,
    describe_data,
    description,
    devices,
    expected_seconds,
    expected_training_seconds,
    run_jobs,
)
from cbundles.commands.sharing import ShareOutcome, held, share_of
from cbundles.commands.sweep import drop_spent_checkpoints, prepared_for
from cbundles.config import AUTOTUNE, BLOCKS_OF_BUILD, Cell, Experiment, Images
from cbundles.console import Display, duration
from cbundles.data.dataset import Facts
from cbundles.decisions import autotune
from cbundles.errors import InputError, did_you_mean
from cbundles.executor import planner
from cbundles.executor.planner import Job, PopulationJob
from cbundles.keeping import LAST
from cbundles.networks.shape import OwnShape, shape_of
from cbundles.report import answer, table1
from cbundles.report.descriptions import BASELINE_ASKED_FOR
from cbundles.report.runs import Run
from cbundles.store import SWEEPS, Store
from cbundles.wording import counted

BLOCKS, SEEDS, RULE = "3,12,41,3", 3, autotune.STAGE
CHECKS = 10


@dataclass(frozen=True)
class Autotune:
    """VGGs, or networks of a user, that are too deep, to be made as shallow as their data set
    needs."""

    experiment: Experiment  # the networks to start from, one a seed
    baseline: tuple[Cell, ...]  # the ResNets to compare with
    rule: str  # which layers go: see `autotune.prune`
    paper_rows: bool = False  # whether the paper's Table 1 stands beside the networks

    @classmethod
    def of_choices(
        cls,
        dataset: str,
        blocks: str | None,
        seeds: int | None,
        baseline: str | None,
        rule: str,
        overrides: list[str],
        *,
        paper_rows: bool = False,
        build: str | None = None,
    ) -> Autotune:
        """Of what was typed; InputError for what cannot be. seeds: how many, if it was said; build:
        what makes a user's networks."""
        if rule not in autotune.RULES:
            raise InputError(f"--rule {rule}: {did_you_mean(rule, autotune.RULES)}")
        if seeds is not None:
            _check_seeds(seeds, overrides)
        content: dict[str, Any] = {
            "data": {"name": dataset},
            "model": _model_to_start_from(build, blocks),
            "training": {
                "epochs": config.conv_epochs(dataset),
                "seed": list(range(SEEDS if seeds is None else seeds)),
                "stop_conflicting": criterion.ENTROPY,
                "conflict_checks": CHECKS,
            },
        }
        name = f"autotune_{config.short_name(dataset)}"
        if build is not None:
            module, _, _ = build.partition(":")
            name += f"_{module.rpartition('.')[2]}"
        try:
            experiment = config.override(content, overrides, default_name=name, file="autotune")
        except InputError as error:
            if f"model.{BLOCKS_OF_BUILD}: missing" in str(error):
                said = f"{error}; give the blocks to start from: --blocks 3,8,3"
                raise InputError(said) from None
            raise
        families = {cell.model.family for cell in experiment.cells}
        if families != {"vgg"} and build is None:
            given = ", ".join(sorted(families))
            raise InputError(f"model.family = {given}: auto-tuning starts from vgg")
        if build is not None:
            _check_architecture(build, experiment.cells, baseline, paper_rows)
        cls._check_rule(experiment, rule)
        baselines = _baseline_cells(baseline, experiment.cells)
        return cls(experiment, baselines, rule, paper_rows)

    @staticmethod
    def _check_rule(experiment: Experiment, rule: str) -> None:
        followed = {
            (cell.training.stop_conflicting, cell.training.checks, cell.own_reading)
            for cell in experiment.cells
        }
        if len(followed) > 1:
            raise InputError(
                "training.stop_conflicting, conflict_checks and the reading: one each for an "
                "auto-tuning, since its table is about networks that followed the same; nearest "
                "valid: a command for each"
            )
        _require_same_but_seeds(experiment.cells)
        without_pooled = any(cell.probe.last != readings.POOLED for cell in experiment.cells)
        if rule == autotune.NEXT and without_pooled:
            raise InputError(
                f"--rule {rule}: the last block goes by the pooled features, which probe.last = "
                f"{readings.BLOCK} does not measure; nearest valid: {autotune.STAGE}"
            )

    def _require_places_of_blocks(self, facts: Mapping[Images, Facts]) -> None:
        """InputError for networks of which nothing says where their blocks are."""
        for cell in self.experiment.cells:
            shape = shape_of(cell.model, facts[cell.data.images])
            if isinstance(shape, OwnShape):
                places_of_blocks_in(cell, shape.sites)

    @property
    def name(self) -> str:
        return self.experiment.name

    @property
    def cells(self) -> tuple[Cell, ...]:
        """Of the networks to start from and of those to compare with."""
        return (*self.experiment.cells, *self.baseline)

    def populations(self, options: Options) -> list[PopulationJob]:
        """What shards share out: a seed goes with all networks that follow from its first."""
        return [PopulationJob((cell,)) for cell in self.cells]

    def _share(self, facts: Mapping[Images, Facts], options: Options) -> Autotune:
        """The seeds and baselines that this command tunes and trains: all without a shard."""
        mine = {job.cells[0] for job in share_of(self.populations(options), facts, options)}
        seeds = tuple(cell for cell in self.experiment.cells if cell in mine)
        baseline = tuple(cell for cell in self.baseline if cell in mine)
        experiment = dataclasses.replace(self.experiment, cells=seeds)
        return dataclasses.replace(self, experiment=experiment, baseline=baseline)

    def seconds_left(self, options: Options) -> float:
        """Predicted time of what has no record: for each seed the network it is at, one that
        follows and is restarted as well, and a last one of a quarter of the layers."""
        store, facts = Store(options.out), describe_data(self.cells)
        mine = self._share(facts, options)
        times = []
        for chain in mine._chains_so_far(store, options):
            if chain.ended:
                continue
            first, latest = chain.attempts[0], chain.latest
            compiling = planner.compile_seconds(first)
            whole = expected_training_seconds(latest, facts, options)
            restart = compiling + whole / first.training.epochs
            times.append(2 * restart + compiling + whole / 4)
        baseline = [PopulationJob((cell,)) for cell in mine.baseline]
        left = [job for job in baseline if options.fresh or not store.is_finished(job.key, None)]
        times += [expected_seconds(job, facts, options) for job in left]
        return planner.wall_seconds(times, options.workers)

    def show_plan(self, options: Options, console: Console) -> None:
        """Print what tuning starts from and what it may cost; run nothing."""
        require_epochs(self.cells, options.keep)
        facts = describe_data(self.cells)
        check_against_data(self.cells, facts)
        self._require_places_of_blocks(facts)
        say_what_was_found(self.cells, options, console)
        store = Store(options.out)
        if options.fresh:
            cells = self._cells_with_records(store, None)
            say_what_is_replaced(cells, store, options, console)
        mine = self._share(facts, options)
        first = self.experiment.cells[0]
        largest = max(
            planner.worker_bytes(PopulationJob((c,)), facts[c.data.images]) for c in self.cells
        )
        memory = min(options.workers, max(len(mine.cells), 1)) * largest
        checkpoint = planner.checkpoint_bytes(first, facts[first.data.images])
        chains = mine._chains_so_far(store, options)
        latest = [*(chain.latest for chain in chains), *mine.baseline]
        restarts = [*(len(chain.attempts) - 1 for chain in chains), *[0] * len(mine.baseline)]
        seconds = [expected_training_seconds(cell, facts, options) for cell in latest]
        finished = set() if options.fresh else mine._with_an_end(chains, store)
        if options.as_json:
            plan = {
                "name": self.name,
                "networks": [
                    {
                        **_plan_as_data(now, whole),
                        "restarts": before,
                        "finished": cell in finished,
                    }
                    for cell, now, before, whole in zip(
                        mine.cells, latest, restarts, seconds, strict=True
                    )
                ],
                "memory_bytes": memory,
                "checkpoint_bytes": checkpoint,
                "folder": str(options.out),
            }
            print(json.dumps(plan))
            return
        if options.shard is not None:
            seeds, others = len(mine.experiment.cells), len(mine.baseline)
            text = f"shard {options.shard}: {counted(seeds, 'seed')}, {others} to compare with"
            say(console, text)
        for cell, now, before, whole in zip(mine.cells, latest, restarts, seconds, strict=True):
            told = _size_and_time(now, facts[cell.data.images], whole)
            if before:
                told += f"; its seed has been restarted {counted(before, 'time')}"
            say(console, f"{cell.label}: finished already" if cell in finished else told)
        say(
            console,
            f"\nA network whose last layer conflicts after one of its first "
            f"{first.training.checks} epochs is pruned and trained from scratch: a new "
            f"program each time, about {planner.compile_seconds(first):.0f} s to compile. The last "
            f"network is smaller than the first, so the times above are upper bounds for each."
            f"\nOn {devices(options)}: {memory / 1e9:.1f} GB of memory, checkpoints of "
            f"{checkpoint / 1e6:.0f} MB, results in {options.out}."
            f"\n{NOTHING_WAS_RUN}",
        )
        say_whose_times(console, options, mine.cells)

    def execute(self, options: Options, console: Console) -> int:
        """Tune every seed, train the baseline, write the table. Returns the exit code."""
        asked_to_keep = bool(options.keep)
        options = dataclasses.replace(options, keep=options.keep or (LAST,))
        facts, fingerprints = prepared_for(self.cells, options, console)
        self._require_places_of_blocks(facts)
        store, mine = Store(options.out), self._share(facts, options)
        with held(store, options):
            store.require_kind(AUTOTUNE)
            if options.fresh:
                cells = self._cells_with_records(store, fingerprints)
                start_over(cells, (), store, options, self._disk_bytes(facts, options), console)
            run = {
                **description(self.experiment, fingerprints, options),
                "kind": AUTOTUNE,
                "rule": self.rule,
                table1.PAPER_ROWS: self.paper_rows,
            }
            chains = mine._chains()
            for chain in chains:
                for line in chain.advance(store, fingerprints):
                    say_beside_results(f"recorded: {line}", options, console)
            if asked_to_keep:
                mine._say_what_is_not_kept(chains, store, fingerprints, options, console)
            self._write_run(run, store, fingerprints)

            def following(finished: Job, display: Display) -> list[Job]:
                # A report, of now or after an interruption, shall know what this one led to.
                self._write_run(run, store, fingerprints)
                for chain in chains:
                    if chain.latest == finished.cells[0]:
                        for line in chain.advance(store, fingerprints):
                            display.line(line)
                        return _next_population(chain)
                return []  # the baseline

            todo, failed = mine._todo(chains, store, fingerprints), 0
            if todo:
                failed = run_jobs(todo, 0, facts, store, options, console, following)
            if store.settle():
                say_beside_results(NOTHING_NEW, options, console)
                if options.as_json:
                    done = {"event": "done", "failed": failed, "folder": str(options.out)}
                    print(json.dumps(done))
                return 1
            run |= self._write_run(run, store, fingerprints)
            has_ended = not failed and all(chain.ended for chain in chains)
            mine._drop_what_is_replaced(chains, store, fingerprints, has_ended)
            if options.shard is not None:
                done_here = len(mine._finished_baseline(store, fingerprints))
                done_here += sum(chain.ended for chain in chains)
                ends = [*run["tuned"], *run["given_up"], *run["baseline"]]
                left = len(self.cells) - len(ends)
                outcome = ShareOutcome(len(mine.cells), done_here, failed, left)
                return outcome.tell(store, options, console)
            if has_ended:
                store.seal()
            _tell(run, chains, store, failed, options, console)
        return 1 if failed else 0

    def _say_what_is_not_kept(
        self,
        chains: Sequence[Chain],
        store: Store,
        fingerprints: Fingerprints,
        options: Options,
        console: Console,
    ) -> None:
        """A network that is finished is not trained again for the weights that it should have."""
        ends = [chain.latest for chain in chains if chain.ended]
        ends += self._finished_baseline(store, fingerprints)
        lacking = sum(not options.has(store, cell, fingerprints[cell.data.images]) for cell in ends)
        if lacking:
            text = f"--keep-weights: {counted(lacking, 'finished network')} without all of them"
            say_beside_results(f"{text}; --fresh trains anew", options, console)

    def _with_an_end(self, chains: Sequence[Chain], store: Store) -> set[Cell]:
        """The networks that seeds which came to an end began with, and finished baselines, as
        records of any data say. chains: as far as these lead them."""
        ended = {chain.attempts[0] for chain in chains if chain.ended}
        return ended | {cell for cell in self.baseline if store.is_finished(cell.id, None)}

    def _todo(self, chains: Sequence[Chain], store: Store, fingerprints: Fingerprints) -> list[Job]:
        """The networks that the chains are at, and the baselines without a record."""
        todo = [job for chain in chains for job in _next_population(chain)]
        finished = self._finished_baseline(store, fingerprints)
        return todo + [PopulationJob((cell,)) for cell in self.baseline if cell not in finished]

    def _drop_what_is_replaced(
        self,
        chains: Sequence[Chain],
        store: Store,
        fingerprints: Fingerprints,
        has_ended: bool,
    ) -> None:
        """Forget the weights of networks that another one has replaced, and at the end all
        checkpoints."""
        for chain in chains:
            for cell in chain.attempts[:-1]:
                store.drop_weights(cell.id, but=())
        if has_ended:
            trained = [*self.baseline, *(cell for chain in chains for cell in chain.attempts)]
            populations = [PopulationJob((cell,)) for cell in trained]
            drop_spent_checkpoints(store, populations, fingerprints)

    def _chains(self) -> list[Chain]:
        return [Chain(cell, self.rule) for cell in self.experiment.cells]

    def _chains_so_far(self, store: Store, options: Options) -> list[Chain]:
        """As records of any data lead them, which --fresh does not read."""
        if options.fresh:
            return self._chains()
        return chains_so_far(self.experiment.cells, self.rule, store)

    def _cells_with_records(self, store: Store, fingerprints: Fingerprints | None) -> list[str]:
        """Identities of all cells whose records the chains and the baseline would read."""
        chains = chains_so_far(self.experiment.cells, self.rule, store, fingerprints)
        attempts = [cell for chain in chains for cell in chain.attempts]
        return [cell.id for cell in (*self.baseline, *attempts)]

    def _disk_bytes(self, facts: Mapping[Images, Facts], options: Options) -> int:
        """What checkpoints, records and kept networks take, as long as no network is restarted."""
        first = self.experiment.cells[0]
        checkpoint = planner.checkpoint_bytes(first, facts[first.data.images])
        kept = sum(
            planner.kept_bytes(cell, options.keep, facts[cell.data.images]) for cell in self.cells
        )
        return sum(map(planner.record_bytes, self.cells)) + kept + options.workers * checkpoint

    def _finished_baseline(self, store: Store, fingerprints: Fingerprints) -> list[Cell]:
        return [
            cell
            for cell in self.baseline
            if store.is_finished(cell.id, fingerprints[cell.data.images])
        ]

    def _write_run(
        self, run: dict[str, Any], store: Store, fingerprints: Fingerprints
    ) -> dict[str, list[Any]]:
        """Write run.json, and again while other shards have finished something meanwhile: whoever
        writes last has then seen everything. Returns what belongs to which seed."""
        written = None
        while True:
            chains = chains_so_far(self.experiment.cells, self.rule, store, fingerprints)
            state = self._state(chains, store, fingerprints)
            if state == written:
                return state
            store.write_run({**run, **state})
            written = state

    def _state(
        self, chains: Sequence[Chain], store: Store, fingerprints: Fingerprints
    ) -> dict[str, list[Any]]:
        """Which cells belong to which seed, and which are ends, as `run.json` keeps it."""
        ended = [chain for chain in chains if chain.ended]
        baseline = self._finished_baseline(store, fingerprints)
        return {
            "attempts": [[cell.id for cell in chain.attempts] for chain in chains],
            "tuned": [chain.latest.id for chain in ended if not chain.given_up],
            "given_up": [chain.latest.id for chain in ended if chain.given_up],
            "baseline": [cell.id for cell in baseline],
            BASELINE_ASKED_FOR: [cell.id for cell in self.baseline],
        }


def _model_to_start_from(build: str | None, blocks: str | None) -> dict[str, Any]:
    """The section of the settings. blocks: as they were typed, if they were."""
    if build is None:
        return {"family": "vgg", "blocks": BLOCKS if blocks is None else blocks}
    if blocks is None:
        return {"build": build}
    try:
        counts = [int(count) for count in blocks.split(",")]
    except ValueError:
        problem = "must be whole numbers with commas, one a stage, such as 3,8,3"
        raise InputError(f"--blocks {blocks}: {problem}") from None
    return {"build": build, BLOCKS_OF_BUILD: [counts]}  # one value, not an axis


def _check_seeds(seeds: int, overrides: Sequence[str]) -> None:
    """InputError for too many, and beside other seeds that were named."""
    if seeds > config.LARGEST_GRID:
        raise InputError(f"--seeds {seeds}: nearest valid: {config.LARGEST_GRID}")
    if any(override.partition("=")[0].strip() == "training.seed" for override in overrides):
        raise InputError(
            f"--seeds {seeds}: has no effect beside --set training.seed, which names the seeds; "
            "nearest valid: --set training.seed=[500,501,502], without --seeds"
        )


def _check_architecture(
    build: str, cells: Sequence[Cell], baseline: str | None, paper_rows: bool
) -> None:
    """InputError for what cannot be done with a user's architecture."""
    for flag, given in (("--baseline", baseline), ("--paper", paper_rows)):
        if given:
            raise InputError(f"{flag}: has no effect with {build}, which the paper does not know")
    for cell in cells:
        blocks = cell.model.other_keywords.get(BLOCKS_OF_BUILD)
        if blocks is None:
            raise InputError(
                f"autotune {build}: it needs a keyword {BLOCKS_OF_BUILD}, the number of blocks in "
                "each stage, with a list as its default or given by --blocks 3,8,3"
            )
        counts = blocks if isinstance(blocks, list) else []
        if not all(type(count) is int and count >= 0 for count in counts) or not sum(counts):
            raise InputError(
                f"autotune {build}: {BLOCKS_OF_BUILD} = {blocks}: must be a list of whole numbers, "
                "the blocks in each stage: none below 0, at least one above; such as --blocks 3,8,3"
            )


def _baseline_cells(baseline: str | None, cells: Sequence[Cell]) -> tuple[Cell, ...]:
    """The cells with another network, ``resnet-50``, that is trained to the end."""
    if baseline is None:
        return ()
    family, _, depth = baseline.partition("-")
    known = [f"resnet-{depth}" for depth in config.PAPER_BLOCKS]
    if baseline not in known:
        raise InputError(f"--baseline {baseline}: {did_you_mean(baseline, known)}")
    blocks = ",".join(map(str, config.PAPER_BLOCKS[int(depth)]))
    compared = []
    for cell in cells:
        model = dataclasses.replace(cell.model, family=family, blocks=blocks, depth=int(depth))
        training = dataclasses.replace(
            cell.training, stop_conflicting=criterion.ENTROPY, conflict_checks=0
        )  # as `config` makes networks that are never stopped
        compared.append(dataclasses.replace(cell, model=model, training=training))
    return tuple(dict.fromkeys(compared))


def _next_population(chain: Chain) -> list[Job]:
    """What has to be trained before the chain can go on, if anything."""
    return [] if chain.ended else [PopulationJob((chain.latest,))]


def _require_same_but_seeds(cells: Sequence[Cell]) -> None:
    """InputError for networks that differ in more than their seeds: a table has one row of them,
    with mean and deviation over seeds."""
    for section, settings in cells[0].settings.items():
        for key, value in settings.items():
            if (section, key) == ("training", "seed"):
                continue
            values = list(dict.fromkeys(str(cell.settings[section][key]) for cell in cells))
            if len(values) > 1:
                raise InputError(
                    f"{section}.{key} = {', '.join(values)}: networks of one auto-tuning differ in "
                    f"training.seed alone; nearest valid: {value}, and a command for each"
                )


def _plan_as_data(cell: Cell, seconds: float) -> dict[str, Any]:
    """For machines: the network that a seed is at, or one to compare with, trained to the end."""
    return {
        "label": cell.label,
        "blocks": _blocks_in_words(cell),
        "seed": cell.training.seed,
        "seconds": seconds,
        "compile_seconds": planner.compile_seconds(cell),
    }


def _size_and_time(cell: Cell, facts: Facts, whole: float) -> str:
    """whole: expected seconds of all its epochs"""
    shape, epochs = shape_of(cell.model, facts), cell.training.epochs
    return (
        f"{cell.label}: blocks {_blocks_in_words(cell)}, {shape.parameters:,} parameters, "
        f"{shape.bytes / 1e6:.1f} MB, {shape.flops / 1e9:.3f} GFLOP an image; one epoch about "
        f"{duration(whole / epochs)}, all {epochs} about {duration(whole)}"
    )


def _blocks_in_words(cell: Cell) -> str:
    return ",".join(map(str, cell.blocks))


def _tell(
    run: dict[str, Any],
    chains: Sequence[Chain],
    store: Store,
    failed: int,
    options: Options,
    console: Console,
) -> None:
    """The way of each seed, what came of it, and the table. run: what `run.json` says."""
    trained = [*run["baseline"], *(cell for chain in run["attempts"] for cell in chain)]
    records = [store.record(cell) for cell in trained if store.is_finished(cell, None)]
    made = Run(store, run, records)
    if options.as_json:
        _print_as_data(chains, made, failed)
        return
    _show_chains(chains, console)
    if tuned := [store.record(cell, SWEEPS) for cell in run["tuned"]]:
        say(console, answer.of_tuned(tuned))
    _show_table(made, console)
    say_failures(console, failed, store, fresh=options.fresh)


def _print_as_data(chains: Sequence[Chain], run: Run, failed: int) -> None:
    """For machines: the way of each seed, and the row of each network in the table."""
    table1.write_run(run)
    ways = [
        {
            "seed": chain.attempts[0].training.seed,
            "blocks": [_blocks_in_words(cell) for cell in chain.attempts],
            "ended": chain.ended,
            "given_up": chain.given_up,
        }
        | _layers_of(chain)
        for chain in chains
    ]
    rows = [table1.our_row(group) for group in table1.of_run(run)]
    folder = str(run.store.folder)
    done = {"event": "done", "failed": failed, "folder": folder, "chains": ways, "rows": rows}
    print(json.dumps(done))


def _layers_of(chain: Chain) -> dict[str, list[int]]:
    """Of a network of ours; what a user's blocks are made of is not known."""
    depths = [cell.model.depth for cell in chain.attempts if cell.model.depth is not None]
    return {} if chain.attempts[0].model.is_own else {"layers": depths}


def _show_chains(chains: Sequence[Chain], console: Console) -> None:
    for chain in chains:
        seed, restarts = chain.attempts[0].training.seed, len(chain.attempts) - 1
        if chain.attempts[0].model.is_own:
            way = " -> ".join(map(_blocks_in_words, chain.attempts)) + " blocks"
        else:
            way = " -> ".join(str(cell.model.depth) for cell in chain.attempts) + " layers"
        end = "" if chain.ended else ", not trained to its end"
        end = ", given up" if chain.given_up else end
        line = f"seed {seed}: {way}, {counted(restarts, 'restart')}{end}"
        console.print(line, highlight=False)


def _show_table(run: Run, console: Console) -> None:
    groups = table1.of_run(run)
    for group in groups:
        line = table1.our_row(group)
        text = ", ".join(f"{key} {line[key]}" for key in table1.MEASURED)
        say(console, f"{line['network']}: {text}")
    if groups:
        list_files(console, "table", table1.write_run(run))
