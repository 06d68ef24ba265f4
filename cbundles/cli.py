"""The command line. Flags are read here; what a command does is in `commands`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from cbundles import __version__, config
from cbundles.errors import InputError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Find the layers that keep a deep classifier from learning, after one epoch.",
)

# Flags that several commands have.
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override, e.g. training.epochs=3."),
]
OutOption = Annotated[
    Path | None, typer.Option(metavar="DIR", help="Results folder [results/<name>].")
]
PlanOption = Annotated[bool, typer.Option("--plan", help="Print cells and cost; run nothing.")]
FreshOption = Annotated[bool, typer.Option("--fresh", help="Train again what is finished already.")]
DataDirOption = Annotated[
    Path | None, typer.Option(metavar="DIR", help="Where TensorFlow Datasets keeps its data.")
]
ManualDirOption = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="Folder with the publisher's archives (no internet)."),
]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu or gpu.")]
WorkersOption = Annotated[
    int | None, typer.Option(min=1, help="Worker processes [one a CPU core; 1 on a GPU].")
]
KeepOption = Annotated[
    bool, typer.Option("--keep-weights", help="Keep the trained networks (weights/*.npz).")
]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON object a line, for machines.")]


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
def sweep(
    config_file: Annotated[
        Path, typer.Argument(metavar="CONFIG.yaml", help="The grid; see configs/.")
    ],
    set_: SetOption = None,
    out: OutOption = None,
    plan: PlanOption = False,
    fresh: FreshOption = False,
    data_dir: DataDirOption = None,
    manual_dir: ManualDirOption = None,
    device: DeviceOption = "auto",
    workers: WorkersOption = None,
    keep_weights: KeepOption = False,
    as_json: JsonOption = False,
) -> None:
    """Train and measure every network of a grid: accuracy and bundle entropy by depth and width."""
    from cbundles.commands import sweep as command
    from cbundles.commands.running import require

    experiment = config.load(config_file, set_ or [])
    require(experiment, config.TRAIN)
    options = _options(
        out or Path("results") / experiment.name,
        device, workers, fresh, as_json, data_dir, manual_dir, keep_weights,
    )  # fmt: skip
    if plan:
        command.plan_sweep(experiment, options, _console())
    else:
        raise typer.Exit(command.run_sweep(experiment, options, _console()))


@app.command()
def autotune(
    dataset: Annotated[
        str, typer.Option(metavar="NAME", help="A data set, or folder:PATH; as data.name.")
    ],
    blocks: Annotated[
        str, typer.Option(metavar="N,N,N,N", help="Blocks of the four stages to start from.")
    ] = "3,12,41,3",
    seeds: Annotated[int, typer.Option(min=1, help="How many networks are tuned.")] = 3,
    baseline: Annotated[
        str | None,
        typer.Option(metavar="resnet-DEPTH", help="Also train and measure this ResNet."),
    ] = None,
    rule: Annotated[
        str,
        typer.Option(help="What goes: stage (as the paper says), or conflicting (original code)."),
    ] = "stage",
    set_: SetOption = None,
    out: OutOption = None,
    plan: PlanOption = False,
    fresh: FreshOption = False,
    data_dir: DataDirOption = None,
    manual_dir: ManualDirOption = None,
    device: DeviceOption = "auto",
    workers: WorkersOption = None,
    as_json: JsonOption = False,
) -> None:
    """Find the depth that a data set needs: remove conflicting layers after the first epochs."""
    from cbundles.commands import autotune as command

    tuning = command.describe(dataset, blocks, seeds, baseline, rule, set_ or [])
    options = _options(
        out or Path("results") / tuning.experiment.name,
        device, workers, fresh, as_json, data_dir, manual_dir,
    )  # fmt: skip
    if plan:
        command.plan(tuning, options, _console())
    else:
        raise typer.Exit(command.run(tuning, options, _console()))


@app.command()
def lesion(
    run: Annotated[
        Path | None,
        typer.Argument(metavar="[RUN]", help="Folder of a sweep that kept its ResNets."),
    ] = None,
    config_file: Annotated[
        Path | None,
        typer.Option("--config", metavar="FILE", help="Train the ResNets of this grid first."),
    ] = None,
    dataset: Annotated[
        str | None, typer.Option(metavar="NAME", help="Train three ResNets on this first.")
    ] = None,
    depth: Annotated[int | None, typer.Option(help="Their layers, with --dataset [120].")] = None,
    draws: Annotated[int, typer.Option(min=1, help="Draws of each number of blocks.")] = 15,
    every: Annotated[int, typer.Option(min=1, help="Which numbers of blocks: multiples.")] = 1,
    seed: Annotated[int, typer.Option(min=0, help="Of the draws.")] = 0,
    set_: SetOption = None,
    out: OutOption = None,
    plan: PlanOption = False,
    fresh: FreshOption = False,
    data_dir: DataDirOption = None,
    manual_dir: ManualDirOption = None,
    device: DeviceOption = "auto",
    workers: WorkersOption = None,
    as_json: JsonOption = False,
) -> None:
    """Remove blocks of trained ResNets: which ones can go, and how many, at no cost?"""
    from cbundles.commands import lesion as command
    from cbundles.experiments.removal import Settings

    if (run is not None) + (config_file is not None) + (dataset is not None) != 1:
        raise InputError("lesion: name one of RUN, --config FILE or --dataset NAME")
    if depth is not None and dataset is None:
        raise InputError("lesion: --depth has no effect without --dataset")
    if run is not None and (set_ or out):
        raise InputError("lesion RUN: the networks are trained; --set and --out change nothing")
    if run is not None:
        experiment, folder = command.of_run(run), run
    else:
        overrides = set_ or []
        experiment = (
            command.of_flags(dataset, depth or command.DEPTH, overrides) if dataset is not None
            else command.of_file(config_file or Path(), overrides)
        )  # fmt: skip
        folder = out or Path("results") / experiment.name
    options = _options(folder, device, workers, fresh, as_json, data_dir, manual_dir)
    settings, trains = Settings(draws=draws, every=every, seed=seed), run is None
    if plan:
        command.plan(experiment, settings, trains, options, _console())
    else:
        raise typer.Exit(command.run(experiment, settings, trains, options, _console()))


@app.command()
def prune(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a lesion study.")],
    blocks: Annotated[
        str,
        typer.Option(
            metavar="WHICH",
            help="conflicting; RANKING:COUNT, as first-order:30; or numbers from 1, as 4,7,12.",
        ),
    ] = "conflicting",
    epochs: Annotated[int, typer.Option(min=0, help="Of the fine-tune afterwards.")] = 1,
    fresh: FreshOption = False,
    data_dir: DataDirOption = None,
    manual_dir: ManualDirOption = None,
    device: DeviceOption = "auto",
) -> None:
    """Write the networks of a lesion study without some blocks: smaller and faster for real."""
    from cbundles.commands import lesion
    from cbundles.commands import prune as command

    options = _options(run, device, 1, fresh, False, data_dir, manual_dir)
    raise typer.Exit(command.run(lesion.of_run(run), blocks, epochs, options, _console()))


@app.command()
def grow(
    config_file: Annotated[
        Path, typer.Argument(metavar="CONFIG.yaml", help="Networks and arms; see configs/.")
    ],
    set_: SetOption = None,
    out: OutOption = None,
    plan: PlanOption = False,
    fresh: FreshOption = False,
    data_dir: DataDirOption = None,
    manual_dir: ManualDirOption = None,
    device: DeviceOption = "auto",
    workers: WorkersOption = None,
    keep_weights: KeepOption = False,
    as_json: JsonOption = False,
) -> None:
    """Insert layers while training, where the sensitivity says; compare with other positions."""
    _editing(config.GROW, config_file, set_, out, plan,
             device, workers, fresh, as_json, data_dir, manual_dir, keep_weights)  # fmt: skip


@app.command()
def tune(
    config_file: Annotated[
        Path, typer.Argument(metavar="CONFIG.yaml", help="Networks and arms; see configs/.")
    ],
    set_: SetOption = None,
    out: OutOption = None,
    plan: PlanOption = False,
    fresh: FreshOption = False,
    data_dir: DataDirOption = None,
    manual_dir: ManualDirOption = None,
    device: DeviceOption = "auto",
    workers: WorkersOption = None,
    keep_weights: KeepOption = False,
    as_json: JsonOption = False,
) -> None:
    """Remove layers that conflict and insert layers that help, from any depth, while training."""
    _editing(config.TUNE, config_file, set_, out, plan,
             device, workers, fresh, as_json, data_dir, manual_dir, keep_weights)  # fmt: skip


def _editing(
    kind: str,
    config_file: Path,
    overrides: list[str] | None,
    out: Path | None,
    plan: bool,
    *how: Any,
) -> None:
    """`grow` and `tune`: the same command for networks of another kind. how: the other options."""
    from cbundles.commands import grow as command
    from cbundles.commands.running import require

    experiment = config.load(config_file, overrides or [])
    require(experiment, kind)
    options = _options(out or Path("results") / experiment.name, *how)
    if plan:
        command.plan(experiment, options, _console())
    else:
        raise typer.Exit(command.run(experiment, options, _console()))


@app.command()
def toy(out: OutOption = None, fresh: FreshOption = False, device: DeviceOption = "auto") -> None:
    """Train a toy with and without a fully conflicting bundle: does learning stop, as proved?"""
    from cbundles.commands import toy as command

    options = _options(out or Path("results/toy"), device, 1, fresh, False, None, None)
    raise typer.Exit(command.run(options, _console()))


@app.command()
def report(
    results: Annotated[Path, typer.Argument(metavar="DIR", help="Folder with the runs.")] = Path(
        "results"
    ),
) -> None:
    """Tables, figures and every claim of the paper beside ours, from records; trains nothing."""
    from cbundles.commands import report as command

    raise typer.Exit(command.run(results, _console()))


@app.command()
def reproduce(
    profile: Annotated[
        str,
        typer.Argument(help="cpu, paper, smoke, or a file; by default cpu, paper on a GPU."),
    ] = "auto",
    plan: PlanOption = False,
    data_dir: DataDirOption = None,
    manual_dir: ManualDirOption = None,
    device: DeviceOption = "auto",
    workers: WorkersOption = None,
) -> None:
    """Run every experiment of a profile that is not finished, then the report."""
    from cbundles.commands import reproduce as command

    options = _options(Path("results"), device, workers, False, False, data_dir, manual_dir)
    if profile == "auto":
        profile = "cpu" if options.device == "cpu" else "paper"
    path = Path(profile if profile.endswith(".yaml") else f"configs/reproduce/{profile}.yaml")
    steps = command.load(path)
    if plan:
        command.plan(steps, options, _console())
    else:
        raise typer.Exit(command.run(steps, options, _console()))


def _console() -> Any:
    """Tables need some room where nobody has said how wide a line may be."""
    from rich.console import Console

    known = sys.stdout.isatty() or "COLUMNS" in os.environ
    return Console(width=None if known else 120)


def _options(
    out: Path,
    device: str,
    workers: int | None,
    fresh: bool,
    as_json: bool,
    data_dir: Path | None,
    manual_dir: Path | None,
    keep_weights: bool = False,
) -> Any:
    from cbundles.commands.running import Options
    from cbundles.executor import local

    if device not in ("auto", "cpu", "gpu"):
        raise InputError(f"--device {device}: must be auto, cpu or gpu")
    device = local.detect_device() if device == "auto" else device
    default_workers = len(local.usable_cores()) if device == "cpu" else 1
    return Options(
        out=out,
        device=device,
        workers=workers or default_workers,
        fresh=fresh,
        as_json=as_json,
        data_dir=data_dir,
        manual_dir=manual_dir,
        keep_weights=keep_weights,
    )


def main() -> None:
    """Entry point: an input error is one message and exit code 2."""
    try:
        app()
    except InputError as error:
        print(f"cbundles: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
