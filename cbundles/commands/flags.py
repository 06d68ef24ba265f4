"""The flags that several commands have, written once.

A command names those that it offers, `@with_flags("out", "fresh")`, and gets them together as its
argument `flags`; its own parameters are its own flags. Typer reads both from the signature that the
decorator makes.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import typing
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
import typer.core

from cbundles import dashboards
from cbundles.config import means_experiment
from cbundles.errors import InputError, did_you_mean
from cbundles.keeping import LAST, parse_epochs

if TYPE_CHECKING:
    from cbundles.commands.running import Options
    from cbundles.executor.on_ray import RayCluster

LOCAL, RAY = "local", "ray"
RESULTS = Path("results")  # where runs go, unless their own flags or `places` say otherwise
KEEP_WEIGHTS = "--keep-weights"
KeepOption = Annotated[
    str | None,
    typer.Option(
        KEEP_WEIGHTS,
        metavar="[EPOCHS]",
        help="Keep the networks (weights/*.npz): the trained ones, or those of epochs 0,1,last.",
    ),
]


@dataclass(frozen=True)
class Flags:
    """What was typed. A flag that a command does not offer keeps its default."""

    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Override, e.g. training.epochs=3."),
    ] = None
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Results folder [results/<name>, or reproduction/<name>]."
        ),
    ] = None
    plan: Annotated[
        bool,
        typer.Option("--plan", help="Print what would be done, and the cost; run nothing."),
    ] = False
    fresh: Annotated[
        bool,
        typer.Option(
            "--fresh",
            help="Train again what is finished; old results stay until the first new network is.",
        ),
    ] = False
    data_dir: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Where TensorFlow Datasets keeps its data."),
    ] = None
    manual_dir: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder with the publisher's archives (no internet)."),
    ] = None
    device: Annotated[
        str,
        typer.Option(help="Where networks are computed: auto, cpu or gpu."),
    ] = "auto"
    workers: Annotated[
        int | None,
        typer.Option(min=1, max=10_000, help="Worker processes [one a CPU core; 1 on a GPU]."),
    ] = None
    devices: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=100_000,
            help="Devices that share each network, or population [1; all with --coordinator].",
        ),
    ] = None
    coordinator: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT|slurm",
            help="Where processes on several machines meet, to train each network together.",
        ),
    ] = None
    processes: Annotated[
        int | None,
        typer.Option(
            min=1, max=100_000, help="With --coordinator: how many processes [as SLURM says]."
        ),
    ] = None
    process: Annotated[
        int | None,
        typer.Option(
            min=0, max=100_000, help="Which of these this one is, from 0 [as SLURM says]."
        ),
    ] = None
    keep_weights: KeepOption = None
    executor: Annotated[
        str,
        typer.Option(help="Where workers are: local, or ray for a cluster of Ray."),
    ] = LOCAL
    address: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="Of a Ray cluster, or auto [one is started here]."),
    ] = None
    shard: Annotated[
        str | None,
        typer.Option(
            metavar="NUMBER/COUNT", help="Do one share of the run, such as 3/8; others do the rest."
        ),
    ] = None
    print_sbatch: Annotated[
        bool,
        typer.Option("--print-sbatch", help="Print a job array of shards for SLURM; run nothing."),
    ] = False
    publish: Annotated[
        bool,
        typer.Option(
            "--publish",
            help="Write to results/ and mark the run as published: for the repository's own runs.",
        ),
    ] = False
    tensorboard: Annotated[
        bool,
        typer.Option(
            "--tensorboard", help="Also write event files for TensorBoard, a run a network."
        ),
    ] = False
    as_json: Annotated[
        bool,
        typer.Option("--json", help="One JSON object a line, for machines."),
    ] = False

    @property
    def overrides(self) -> list[str]:
        return self.set_ or []

    def options(self, folder: Path) -> Options:
        """How to run, with results in a folder; what was left open is decided by this machine."""
        from cbundles.commands.running import Options
        from cbundles.executor import local
        from cbundles.executor.cluster import cluster_of
        from cbundles.executor.shards import Shard
        from cbundles.executor.speed import Speed

        self.check_tensorboard()
        shard = None if self.shard is None else Shard.of_text(self.shard)
        if self.fresh and (shard is not None or self.print_sbatch):
            flag = "--print-sbatch" if shard is None else "--shard"
            raise InputError(
                f"{flag} with --fresh: shards only add to a run, so that they need not agree when "
                "it begins; start in another folder, with --out, or without --shard"
            )
        if self.device not in ("auto", "cpu", "gpu"):
            raise InputError(f"--device {self.device}: must be auto, cpu or gpu")
        local.refuse_double_precision()
        device = local.detect_device() if self.device == "auto" else self.device
        cluster = cluster_of(self.coordinator, self.processes, self.process)
        if cluster is not None and self.workers not in (None, 1):
            raise InputError(
                f"--workers {self.workers}: with --coordinator a process is one worker; "
                "nearest valid: 1"
            )
        alone = local.default_workers(device, self.devices or 1)
        return Options(
            out=folder,
            device=device,
            workers=1 if cluster is not None else self.workers or alone,
            devices=self.devices,
            cluster=cluster,
            fresh=self.fresh,
            as_json=self.as_json,
            data_dir=self.data_dir,
            manual_dir=self.manual_dir,
            keep=() if self.keep_weights is None else parse_epochs(self.keep_weights),
            publish=self.publish,
            ray=self._ray_cluster(),
            shard=shard,
            speed=Speed.known(device),
        )

    def check_tensorboard(self) -> None:
        """Raises InputError where event files are wanted that cannot be written."""
        if not self.tensorboard:
            return
        for flag, given in (("--shard", self.shard), ("--print-sbatch", self.print_sbatch)):
            if given:
                raise InputError(
                    f"--tensorboard with {flag}: shards only train; when all are done, "
                    "cbundles report --tensorboard"
                )
        try:
            dashboards.check_installed()
        except ValueError as error:
            raise InputError(f"--tensorboard: {error}") from None

    def _ray_cluster(self) -> RayCluster | None:
        """Where workers are, None for this machine. Ray itself is not imported yet."""
        from cbundles.executor import on_ray

        if self.executor not in (LOCAL, RAY):
            hint = did_you_mean(self.executor, (LOCAL, RAY))
            raise InputError(f"--executor {self.executor}: {hint}")
        if self.executor == RAY:
            for flag, value in (("--devices", self.devices), ("--coordinator", self.coordinator)):
                if value is not None:
                    raise InputError(
                        f"{flag} {value} with --executor {RAY}: a task of Ray trains a population "
                        "on one device; leave one of the two out"
                    )
            on_ray.require_ray()
            return on_ray.RayCluster(self.address, self.workers)
        if self.address is not None:
            raise InputError(f"--address has no effect without --executor {RAY}")
        return None


def _is_value(following: list[str]) -> bool:
    """Whether what follows a flag is meant as its value: no other flag, and no file or
    experiment."""
    if not following:
        return False
    text = following[0]
    if not text or text.removeprefix("-").isdecimal():
        return True  # nothing, or a number below zero: `parse_epochs` says what would be valid
    if text.startswith("-"):
        return False
    path = Path(text)
    if means_experiment(path) or ":" in text:  # or a function of a module
        return False
    try:
        return not path.exists()
    except OSError:  # too long for a name
        return True


class CommandsWithFlags(typer.core.TyperGroup):
    """Lets ``--keep-weights`` stand alone, which Typer's options cannot: it then means `LAST`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        completed: list[str] = []
        for place, argument in enumerate(args):
            completed.append(argument)
            if argument == KEEP_WEIGHTS and not _is_value(args[place + 1 : place + 2]):
                completed.append(LAST)
        return super().parse_args(ctx, completed)


# What commands that train offer.
TRAINING = (
    "set_",
    "out",
    "plan",
    "fresh",
    "data_dir",
    "manual_dir",
    "device",
    "workers",
    "executor",
    "address",
    "shard",
    "print_sbatch",
    "publish",
    "tensorboard",
    "as_json",
)

# What commands offer whose networks may be trained by several devices together.
TOGETHER = ("devices", "coordinator", "processes", "process")

CommandFunction = Callable[..., None]


def with_flags(*names: str) -> Callable[[CommandFunction], CommandFunction]:
    """Let a command offer some fields of `Flags`, besides its own parameters."""
    defaults = {field.name: field.default for field in dataclasses.fields(Flags)}
    annotations = typing.get_type_hints(Flags, include_extras=True)
    shared = [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=defaults[name],
            annotation=annotations[name],
        )
        for name in names
    ]

    def decorate(function: CommandFunction) -> CommandFunction:
        @functools.wraps(function)
        def command(**typed: Any) -> None:  # whatever Typer read, by the signature below
            flags = Flags(**{name: typed.pop(name) for name in names})
            function(**typed, flags=flags)

        # Annotations are text here; Typer must see the types behind them.
        own = dict(inspect.signature(function, eval_str=True).parameters)
        del own["flags"]
        signature = inspect.Signature([*own.values(), *shared])
        command.__signature__ = signature  # type: ignore[attr-defined]
        return command

    return decorate
