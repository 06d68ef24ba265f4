"""The command line. Flags are read here; what a command does is in `commands`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

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
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Override, e.g. training.epochs=3."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Results folder [results/<name>].")
    ] = None,
    plan: Annotated[
        bool, typer.Option("--plan", help="Print cells and cost; run nothing.")
    ] = False,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Train again what is finished already.")
    ] = False,
    data_dir: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where TensorFlow Datasets keeps its data.")
    ] = None,
    manual_dir: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder with the publisher's archives (no internet)."),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or gpu.")] = "auto",
    workers: Annotated[
        int | None, typer.Option(min=1, help="Worker processes [one a CPU core; 1 on a GPU].")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object a line, for machines.")
    ] = False,
) -> None:
    """Train and measure every network of a grid: accuracy and bundle entropy by depth and width."""
    from rich.console import Console

    from cbundles import commands
    from cbundles.executor import local

    if device not in ("auto", "cpu", "gpu"):
        raise InputError(f"--device {device}: must be auto, cpu or gpu")
    experiment = config.load(config_file, set_ or [])
    device = local.detect_device() if device == "auto" else device
    default_workers = len(local.usable_cores()) if device == "cpu" else 1
    options = commands.Options(
        out=out or Path("results") / experiment.name,
        device=device,
        workers=workers or default_workers,
        fresh=fresh,
        as_json=as_json,
        data_dir=data_dir,
        manual_dir=manual_dir,
    )
    console = Console()
    if plan:
        commands.plan_sweep(experiment, options, console)
    else:
        raise typer.Exit(commands.run_sweep(experiment, options, console))


def main() -> None:
    """Entry point: an input error is one message and exit code 2."""
    try:
        app()
    except InputError as error:
        print(f"cbundles: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
