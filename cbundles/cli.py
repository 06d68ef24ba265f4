"""The command line. What was typed is read here; what a command does is in `commands`."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cbundles import __version__, config, stopping, streams
from cbundles.commands.flags import (
    RESULTS,
    TOGETHER,
    TRAINING,
    CommandsWithFlags,
    Flags,
    with_flags,
)
from cbundles.errors import InputError

if TYPE_CHECKING:
    from rich.console import Console

    from cbundles.commands.running import Command, Options, PlannedCommand, SharedCommand

OBJECTS_BEFORE_COLLECTING = 100_000  # by the garbage collector; its own choice is 700

app = typer.Typer(
    cls=CommandsWithFlags,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help=(
        "Measure where the layers of a classifier mix classes. To begin: cbundles sweep "
        "quickstart; with a model of yours: cbundles audit -h. In [brackets] stands what is taken "
        "where an option is left out."
    ),
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"cbundles {__version__}")
        raise typer.Exit()


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


@app.command()
@with_flags(*TRAINING, *TOGETHER, "keep_weights")
def sweep(
    config_file: Annotated[
        Path, typer.Argument(metavar="CONFIG", help="A file, or a name that init lists.")
    ],
    *,
    flags: Flags,
) -> None:
    """Train every network of a grid and measure all its layers."""
    from cbundles.commands.sweep import Sweep

    _plan_or_train(Sweep.of_file(config_file, flags.overrides), flags)


@app.command()
@with_flags(*TRAINING, *TOGETHER, "keep_weights")
def autotune(
    build: Annotated[
        str | None,
        typer.Argument(
            metavar="[PACKAGE.MODULE:FUNCTION]",
            help="What makes your networks of a number of blocks in each stage [our VGG].",
        ),
    ] = None,
    dataset: Annotated[
        str | None, typer.Option(metavar="NAME", help="A data set, or folder:PATH; as data.name.")
    ] = None,
    blocks: Annotated[
        str | None,
        typer.Option(
            metavar="N,N,N,N",
            help="Blocks of each stage to start from [3,12,41,3; the default of your function].",
        ),
    ] = None,
    seeds: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="How many networks are tuned, of seeds 0, 1, ... [3]; --set training.seed=[...] "
            "names other seeds.",
        ),
    ] = None,
    baseline: Annotated[
        str | None,
        typer.Option(metavar="resnet-DEPTH", help="Also train and measure this ResNet."),
    ] = None,
    rule: Annotated[
        str,
        typer.Option(
            help="What goes: stage (as the paper says), next (as its code does: a block goes by "
            "the one behind it), or conflicting (a later revision)."
        ),
    ] = "stage",
    paper: Annotated[
        bool, typer.Option("--paper", help="Set the rows of the paper's Table 1 beside yours.")
    ] = False,
    *,
    flags: Flags,
) -> None:
    """Find the depth that a data set needs, as the paper does."""
    from cbundles.commands.autotune import Autotune
    from cbundles.commands.checks import refuse_said_twice
    from cbundles.commands.models import DATASET_IS_MISSING

    if dataset is None:
        raise InputError(f"autotune: {DATASET_IS_MISSING}")
    given = {"data.name": ("--dataset", dataset), "model.blocks": ("--blocks", blocks)}
    refuse_said_twice(given, flags.overrides)
    command = Autotune.of_choices(
        dataset,
        blocks,
        seeds,
        baseline,
        rule,
        flags.overrides,
        paper_rows=paper,
        build=build,
    )
    _plan_or_train(command, flags)


@app.command()
@with_flags(*TRAINING)
def lesion(
    run: Annotated[
        Path | None,
        typer.Argument(
            metavar="[RUN|CONFIG]",
            help="Folder of a sweep that kept its ResNets, or a grid of them to train first.",
        ),
    ] = None,
    config_file: Annotated[
        Path | None,
        typer.Option("--config", metavar="FILE", help="Such a grid, too."),
    ] = None,
    dataset: Annotated[
        str | None, typer.Option(metavar="NAME", help="Train three ResNets on this first.")
    ] = None,
    depth: Annotated[
        int | None, typer.Option(help="With --dataset: how many layers these have [120].")
    ] = None,
    draws: Annotated[
        int, typer.Option(min=1, help="Random draws for each number of removed blocks.")
    ] = 15,
    every: Annotated[int, typer.Option(min=1, help="Remove so many blocks more each time.")] = 1,
    seed: Annotated[int, typer.Option(min=0, help="Of the random draws.")] = 0,
    fair: Annotated[
        bool,
        typer.Option(
            "--fair",
            help="Also with batch-norm statistics taken anew, in further orders, greedily, and "
            "beside controls; takes several times as long.",
        ),
    ] = False,
    *,
    flags: Flags,
) -> None:
    """Remove blocks of trained ResNets: which can go at no cost?"""
    from cbundles.commands.checks import refuse_said_twice
    from cbundles.commands.lesion import DEPTH, Lesion
    from cbundles.decisions.removal import Settings

    if (run is not None) + (config_file is not None) + (dataset is not None) != 1:
        raise InputError("lesion: name one of RUN, CONFIG or --dataset NAME")
    if run is not None and not run.is_dir() and config.means_experiment(run):
        run, config_file = None, run
    if depth is not None and dataset is None:
        raise InputError("lesion: --depth has no effect without --dataset")
    if run is not None and (flags.overrides or flags.out):
        raise InputError("lesion RUN: the networks are trained; --set and --out change nothing")
    try:
        settings = Settings(draws=draws, every=every, seed=seed, fair=fair)
    except ValueError as error:
        raise InputError(f"lesion: --{error}") from None
    if run is not None:
        _plan_or_train(Lesion.of_run(run, settings), flags, folder=run)
    elif config_file is not None:
        _plan_or_train(Lesion.of_file(config_file, settings, flags.overrides), flags)
    elif dataset is not None:
        layers = DEPTH if depth is None else depth
        given = {"data.name": ("--dataset", dataset), "model.depth": ("--depth", layers)}
        refuse_said_twice(given, flags.overrides)
        command = Lesion.of_dataset(dataset, layers, settings, flags.overrides)
        _plan_or_train(command, flags)


@app.command()
@with_flags("out", "plan", "fresh", "data_dir", "manual_dir", "device", "publish", "as_json")
def prune(
    model: Annotated[
        str,
        typer.Argument(
            metavar="RUN|PACKAGE.MODULE:FUNCTION",
            help="Folder of a lesion study. Or a function that returns a model, or a model and its "
            "params; it is looked for from here.",
        ),
    ],
    blocks: Annotated[
        str,
        typer.Option(
            metavar="WHICH",
            help="conflicting; numbers from 1, as 4,7,12; RANKING:COUNT, as first-order:30 or, of "
            "a model, greedy:5; of a model also names or patterns, as 'blocks/[13]/branch'.",
        ),
    ] = "conflicting",
    epochs: Annotated[
        int | None,
        typer.Option(min=0, max=10**6, help="Of a RUN: of the fine-tune afterwards [1]."),
    ] = None,
    dataset: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Of a model: a data set, or folder:PATH."),
    ] = None,
    image_size: Annotated[
        int | None,
        typer.Option(min=4, metavar="PIXELS", help="To which images of a folder are scaled."),
    ] = None,
    samples: Annotated[
        int | None,
        typer.Option(min=3, help="Of a model: images that are looked at, of each kind [2048]."),
    ] = None,
    recalibrate: Annotated[
        bool,
        typer.Option(
            "--recalibrate",
            help="Of a model: take statistics of batch normalisation anew, on training images.",
        ),
    ] = False,
    output: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Of a model: which part of its output are the scores."),
    ] = None,
    *,
    flags: Flags,
) -> None:
    """Write networks, or your own model, without some blocks."""
    if ":" in model and not Path(model).exists():
        from cbundles.commands.prune_model import SAMPLES, PruneModel

        for_runs = {
            "--epochs": epochs is not None,
            "--plan": flags.plan,
            "--fresh": flags.fresh,
            "--publish": flags.publish,
        }
        _refuse_flags(for_runs, "prune MODEL: there is no such flag for a model")
        if flags.out is None:
            raise InputError(f"prune {model}: --out is missing: a folder for the smaller model")
        command = PruneModel.of_name(
            model, dataset, image_size, blocks, samples or SAMPLES, output, recalibrate
        )
        _execute(command, flags)
    else:
        from cbundles.commands.prune import Prune
        from cbundles.user_functions import FORM

        if not Path(model).exists():
            raise InputError(f"prune {model}: neither the folder of a run nor {FORM}")
        for_models = {
            "--dataset": dataset is not None,
            "--image-size": image_size is not None,
            "--samples": samples is not None,
            "--recalibrate": recalibrate,
            "--output": output is not None,
            "--out": flags.out is not None,
        }
        _refuse_flags(for_models, "prune RUN: its networks have their own data and folder")
        run = Path(model)
        tuned = 1 if epochs is None else epochs
        _plan_or_execute(Prune.of_run(run, blocks, tuned), flags, folder=run)


@app.command()
@with_flags("plan", "fresh", "data_dir", "manual_dir", "device", "workers", "publish", "as_json")
def measure(
    run: Annotated[
        Path, typer.Argument(metavar="RUN", help="Folder of a sweep that kept networks.")
    ],
    readings: Annotated[
        str,
        typer.Option(
            metavar="NAMES", help="With commas: paper, pooled, hidden, running, pooled+running, ..."
        ),
    ] = "none",
    headroom: Annotated[
        bool,
        typer.Option(
            "--headroom",
            help="Also say by how many bits the learning rate may fall before it conflicts.",
        ),
    ] = False,
    samples: Annotated[
        str,
        typer.Option(
            metavar="NUMBERS", help="Also with other probe sets, with commas: 128,512,8192,all."
        ),
    ] = "none",
    *,
    flags: Flags,
) -> None:
    """Measure kept networks in other readings or on more samples."""
    from cbundles.commands.measure import Measure

    _plan_or_execute(Measure.of_run(run, readings, headroom, samples), flags, folder=run)


@app.command()
@with_flags("data_dir", "manual_dir", "device", "as_json")
def audit(
    model: Annotated[
        str,
        typer.Argument(
            metavar="PACKAGE.MODULE:FUNCTION|RUN",
            help="A function that returns a model, or a model and its params; it is looked for "
            "from here. Or the folder of a sweep that kept networks.",
        ),
    ],
    dataset: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="A data set, or folder:PATH, for a model."),
    ] = None,
    image_size: Annotated[
        int | None,
        typer.Option(min=4, metavar="PIXELS", help="To which images of a folder are scaled."),
    ] = None,
    samples: Annotated[int, typer.Option(min=1, help="Training images that are looked at.")] = 2048,
    layers: Annotated[
        str | None,
        typer.Option(metavar="NAMES", help="Names, patterns or kinds, with commas [outputs]."),
    ] = None,
    amplitude: Annotated[
        str, typer.Option(help="The weight that sets the scale: global, consumer or a number.")
    ] = "global",
    learning_rate: Annotated[
        float | None, typer.Option(help="That the model is trained with [1e-3; of a RUN its own].")
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Batch size of training [64; of a RUN its own].")
    ] = None,
    headroom: Annotated[
        bool,
        typer.Option(
            help="Also say by how many bits the learning rate may fall before it conflicts."
        ),
    ] = True,
    lesion: Annotated[
        bool,
        typer.Option(
            "--lesion", help="Also switch off each residual branch, alone and many at once."
        ),
    ] = False,
    insert: Annotated[
        bool, typer.Option("--insert", help="Also say where one more layer would help.")
    ] = False,
    peers: Annotated[
        bool, typer.Option("--peers", help="Also measure rank, cosine, gradients and others.")
    ] = False,
    output: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Which part of a model's output are the class scores."),
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a picture, such as audit.png.")
    ] = None,
    *,
    flags: Flags,
) -> None:
    """Say which layers of your own model conflict, and why."""
    from cbundles.commands.audit import AuditModel, AuditRun, Choices, names_in, number_or_word

    choices = Choices(
        samples=samples,
        layers=None if layers is None else names_in(layers),
        amplitude=number_or_word(amplitude),
        learning_rate=learning_rate,
        batch_size=batch_size,
        headroom=headroom,
        lesion=lesion,
        insert=insert,
        peers=peers,
        output=output,
        plot=plot,
    )
    if Path(model).is_dir():
        if dataset is not None or image_size is not None:
            given = "--dataset" if dataset is not None else "--image-size"
            raise InputError(f"audit RUN: its networks have their own data; leave out {given}")
        _execute(AuditRun.of_folder(Path(model), choices), flags)
    else:
        _execute(AuditModel.of_name(model, dataset, image_size, choices), flags)


@app.command()
@with_flags(*TRAINING, *TOGETHER, "keep_weights")
def grow(
    config_file: Annotated[
        Path, typer.Argument(metavar="CONFIG", help="A file, or a name that init lists.")
    ],
    *,
    flags: Flags,
) -> None:
    """Insert layers while training, where the sensitivity says."""
    from cbundles.commands.grow import Editing

    _plan_or_train(Editing.of_file(config_file, flags.overrides, config.GROW), flags)


@app.command()
@with_flags(*TRAINING, *TOGETHER, "keep_weights")
def tune(
    config_file: Annotated[
        Path, typer.Argument(metavar="CONFIG", help="A file, or a name that init lists.")
    ],
    *,
    flags: Flags,
) -> None:
    """Remove and insert layers while training, from any depth."""
    from cbundles.commands.grow import Editing

    _plan_or_train(Editing.of_file(config_file, flags.overrides, config.TUNE), flags)


@app.command()
@with_flags("out", "plan", "fresh", "device", "publish", "tensorboard", "as_json")
def toy(
    precision: Annotated[
        str, typer.Option(metavar="FORMAT", help="Train it in float32 or float64.")
    ] = config.FLOAT32,
    *,
    flags: Flags,
) -> None:
    """Train a toy with a fully conflicting bundle: does it learn?"""
    from cbundles.commands.toy import Toy

    _plan_or_execute(Toy.in_precision(precision, "--precision"), flags)


@app.command()
@with_flags("tensorboard", "as_json")
def report(
    results: Annotated[Path, typer.Argument(metavar="DIR", help="Folder with the runs.")] = RESULTS,
    *,
    flags: Flags,
) -> None:
    """Write tables, figures and claims from records; train nothing."""
    from cbundles.commands.profiles import runs_named_for
    from cbundles.commands.report import write_event_files, write_report

    flags.check_tensorboard()
    gathered = write_report(results, _console(), runs_named_for(results), as_json=flags.as_json)
    if flags.tensorboard:
        found = [*gathered.presented, *gathered.own]
        write_event_files(found, _console(), as_json=flags.as_json)


@app.command()
@with_flags("plan", "data_dir", "manual_dir", "device", "workers", "executor", "address", "publish")
def reproduce(
    profile: Annotated[
        str,
        typer.Argument(
            help="cpu, paper, table1-small, smoke, or a file; by default cpu, paper on a GPU."
        ),
    ] = "auto",
    images: Annotated[
        list[str] | None,
        typer.Option(
            metavar="DATASET=FOLDER",
            help="Take the images of mnist, cifar10, svhn_cropped or imagenette from a folder.",
        ),
    ] = None,
    *,
    flags: Flags,
) -> None:
    """Train a profile from nothing; compare with the published runs."""
    from cbundles.commands.reproduce import Reproduction

    if profile == "auto":
        profile = "cpu" if flags.options(RESULTS).device == "cpu" else "paper"
    path = Path(profile if profile.endswith(".yaml") else f"configs/reproduce/{profile}.yaml")
    _plan_or_execute(Reproduction.of_file(path, images or ()), flags)


@app.command("config")
@with_flags("as_json")
def show_config(
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="A section, or one setting of it.")
    ] = None,
    *,
    flags: Flags,
) -> None:
    """Every setting: its default, what is valid, and why."""
    from cbundles.commands.settings import show_settings

    show_settings(name, flags.as_json, _console())


@app.command("init")
def copy_config(
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="An experiment; without, all are listed.")
    ] = None,
    target: Annotated[
        Path | None, typer.Argument(metavar="[FILE]", help="Where to [./NAME.yaml].")
    ] = None,
) -> None:
    """Copy an experiment that comes with the package to edit it."""
    from cbundles.commands.init import copy_shipped, list_shipped

    if name is None:
        list_shipped(_console())
    else:
        copy_shipped(name, target, _console())


@app.command()
@with_flags("as_json")
def status(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run.")],
    *,
    flags: Flags,
) -> None:
    """How far a run is: finished, half done, at which epoch."""
    from cbundles.commands.status import show_status

    show_status(run, flags.as_json, _console())


@app.command()
def doctor() -> None:
    """What this machine has, what is missing, how to get it."""
    from cbundles.commands.doctor import examine

    raise typer.Exit(examine(_console()))


def _refuse_flags(given: Mapping[str, bool], why: str) -> None:
    """Raise InputError for a flag that was given, and that cannot be."""
    for flag, is_given in given.items():
        if is_given:
            raise InputError(f"{why}; leave out {flag}")


def _plan_or_train(command: SharedCommand, flags: Flags, folder: Path | None = None) -> None:
    if flags.print_sbatch:
        from cbundles.commands.slurm import print_job_array

        print_job_array(command, _options(command, flags, folder))
    else:
        _plan_or_execute(command, flags, folder)


def _plan_or_execute(command: PlannedCommand, flags: Flags, folder: Path | None = None) -> None:
    from cbundles.store import Store

    options = _options(command, flags, folder)
    Store(options.out).require_usable()
    if flags.plan:
        command.show_plan(options, _console())
    else:
        _execute(command, flags, options)


def _execute(command: Command, flags: Flags, options: Options | None = None) -> None:
    """Do what a command says and leave with its exit code."""
    options = options or _options(command, flags)
    if options.cluster is not None and options.cluster.process > 0:
        from cbundles.commands.running import compute_for_first

        raise typer.Exit(compute_for_first(options))
    exit_code = command.execute(options, _console())
    if flags.tensorboard:
        from cbundles.commands.report import write_event_files
        from cbundles.report import runs

        write_event_files([runs.read(options.out)], _console(), as_json=flags.as_json)
    raise typer.Exit(exit_code)


def _options(command: Command, flags: Flags, folder: Path | None = None) -> Options:
    """What a command is told. folder: of the results, where neither --out nor the command's name
    decides."""
    from cbundles.commands.output import say_beside_results
    from cbundles.commands.places import place_for
    from cbundles.store import Store

    place = place_for(command.name, folder or flags.out, publish=flags.publish)
    options = flags.options(place.folder)
    if options.out.exists() and not options.out.is_dir():
        raise InputError(f"{options.out}: is a file; nearest valid: a folder, with --out")
    Store(options.out).recover()
    if place.note:
        say_beside_results(place.note, options, _console())
    return options


def _console() -> Console:
    """Tables need some room where nobody has said how wide a line may be."""
    from rich.console import Console

    known = sys.stdout.isatty() or "COLUMNS" in os.environ
    # Brackets and colons in the name of a folder are brackets and colons.
    return Console(width=None if known else 120, markup=False, emoji=False)


def main() -> None:
    """Entry point. Exit code 2: what was typed or named cannot work; 1: a run failed; 130, 143 and
    129: stopped by SIGINT, SIGTERM or SIGHUP. Each time one message says where and why."""
    streams.make_usable()
    # Cells and records live to the end: looking for circles among them again and again takes a
    # tenth of the plan of a large grid.
    gc.set_threshold(OBJECTS_BEFORE_COLLECTING)
    try:
        with stopping.told():
            try:
                app()
            finally:
                sys.stdout.flush()  # a full disk shows here, not when the interpreter has ended
    except InputError as error:
        print(f"cbundles: {error}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        streams.silence_output()
        print(f"cbundles: {streams.told(error)}", file=sys.stderr)
        sys.exit(1 if error.errno in streams.EXHAUSTED else 2)


if __name__ == "__main__":
    main()
