"""`--print-sbatch`: a job array for SLURM, in which each task does one shard of a run."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence

from cbundles.commands.checks import check_against_data, require_epochs
from cbundles.commands.running import (
    Options,
    SharedCommand,
    costs,
    describe_data,
    devices,
)
from cbundles.config import Images
from cbundles.console import duration
from cbundles.data.dataset import Facts
from cbundles.executor import planner
from cbundles.executor.planner import PopulationJob
from cbundles.executor.shards import Shard
from cbundles.wording import counted

SHARDS = 8  # where --shard does not say how many, and there are so many populations
SPARE_MEMORY = 1.5  # a job that asks for too little is killed; predictions are not that exact


def print_job_array(command: SharedCommand, options: Options) -> None:
    """Print a script for `sbatch`; run nothing. InputError for what no task of it could train."""
    populations = command.populations(options)
    cells = [cell for population in populations for cell in population.cells]
    facts = describe_data(cells)
    check_against_data(cells, facts)
    require_epochs(cells, options.keep)
    count = min(SHARDS, len(populations)) if options.shard is None else options.shard.count
    again = _command_again(sys.argv[1:], options)
    # Workers may share a GPU; how many GPUs there are is told by --devices alone.
    gpu = [f"#SBATCH --gres=gpu:{options.devices or 1}"] if options.device == "gpu" else []
    about = (
        f"# {counted(len(populations), 'population')}, dealt by predicted cost: the longest of "
        f"{counted(count, 'shard')} takes about "
        f"{duration(_longest(populations, facts, count, options))} on {devices(options)}."
    )
    lines = [
        "#!/bin/bash",
        f"#SBATCH --job-name={shlex.quote(f'cbundles-{command.name}')}",
        f"#SBATCH --array=1-{count}",
        f"#SBATCH --cpus-per-task={options.workers}",
        *gpu,
        f"#SBATCH --mem={_gigabytes(populations, facts, options)}G",
        "#SBATCH --requeue",
        "#SBATCH --open-mode=append",
        about,
        "# Add what your cluster asks for, such as --partition, --account and --time. A shard that",
        "# is stopped goes on from its checkpoints when it is submitted again.",
        "#",
        "# job=$(sbatch --parsable THIS_FILE)",
        f"# sbatch --dependency=afterany:$job --wrap {shlex.quote(shlex.join(again))}",
        "#",
        "# The second command, when all shards have ended, completes and seals the run.",
        f'exec {shlex.join(again)} --shard "$SLURM_ARRAY_TASK_ID/{count}"',
    ]
    print("\n".join(lines))


def _command_again(arguments: Sequence[str], options: Options) -> list[str]:
    """The command that was typed, without what is about shards. Device and workers are those of
    this machine, so that all shards make the same populations and use what was asked for."""
    again, skipped = [sys.executable, "-m", "cbundles"], False
    for argument in arguments:
        is_value, skipped = skipped, argument == "--shard"
        if is_value or skipped or argument in ("--print-sbatch", "--plan"):
            continue
        if not argument.startswith("--shard="):
            again.append(argument)
    for flag, value in (("--device", options.device), ("--workers", str(options.workers))):
        if not any(argument.split("=")[0] == flag for argument in arguments):
            again += [flag, value]
    return again


def _longest(
    populations: Sequence[PopulationJob], facts: dict[Images, Facts], count: int, options: Options
) -> float:
    """Predicted seconds of the shard that has most to do."""
    of_each = costs(populations, facts)  # bare: the array runs on other machines than this one
    shards = [Shard(number + 1, count) for number in range(min(count, len(populations)))]
    shares = [[of_each[job.key] for job in one.share(populations, of_each)] for one in shards]
    return max(planner.wall_seconds(share, options.workers) for share in shares)


def _gigabytes(
    populations: Sequence[PopulationJob], facts: dict[Images, Facts], options: Options
) -> int:
    """Memory of all workers of a shard, whichever populations they get."""
    workers = [planner.worker_bytes(p, facts[p.cells[0].data.images]) for p in populations]
    at_once = min(options.workers, len(workers))
    return int(SPARE_MEMORY * at_once * max(workers) / 1e9) + 1
