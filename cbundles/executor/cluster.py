"""Several processes that train one population together, each on its own machine or on its own share
of a machine's devices, by `jax.distributed`.

All of them are given the same command. The first one (process 0) does what the command always does:
it plans, writes records and draws. The others only compute: their workers are told by the first
one's what comes next.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from cbundles.errors import InputError

SLURM = "slurm"
SECONDS_TO_JOIN = 600  # the first process may have images to prepare, which the others wait for


@dataclass(frozen=True)
class Cluster:
    """coordinator: where the processes find the first one, HOST:PORT, or `SLURM`, which knows it;
    processes: how many there are; process: the number of this one, from 0."""

    coordinator: str
    processes: int
    process: int

    def asdict(self) -> dict[str, Any]:
        """Plain data, as `join` takes it in a worker."""
        return asdict(self)


def cluster_of(
    coordinator: str | None,
    processes: int | None,
    process: int | None,
    environment: Mapping[str, str] = os.environ,
) -> Cluster | None:
    """What was typed, with the numbers from SLURM where these were not; None where nothing was.
    InputError for what is missing or cannot be."""
    if coordinator is None:
        for flag, value in (("--processes", processes), ("--process", process)):
            if value is not None:
                raise InputError(
                    f"{flag} {value}: the processes need a place to meet; "
                    f"add --coordinator HOST:PORT, or --coordinator {SLURM}"
                )
        return None
    if coordinator != SLURM and not re.fullmatch(r"[^:\s]+:\d{1,5}", coordinator):
        raise InputError(f"--coordinator {coordinator}: must be HOST:PORT, or {SLURM}")
    if processes is None:
        processes = _number_from_slurm("--processes", "SLURM_NTASKS", coordinator, environment)
    if process is None:
        process = _number_from_slurm("--process", "SLURM_PROCID", coordinator, environment)
    if process >= processes:
        raise InputError(
            f"--process {process}: of {processes} processes, which count from 0; nearest valid: "
            f"{processes - 1}"
        )
    return Cluster(coordinator, processes, process)


def _number_from_slurm(
    flag: str, variable: str, coordinator: str, environment: Mapping[str, str]
) -> int:
    text = environment.get(variable, "")
    if not text.isdecimal():
        raise InputError(
            f"--coordinator {coordinator}: {flag} is missing, and SLURM does not say it "
            f"({variable} is not set)"
        )
    return int(text)


def join(cluster: Mapping[str, Any]) -> None:
    """Let JAX of this process find that of the others, before it computes anything. InputError
    where that fails."""
    import jax

    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    is_slurm = cluster["coordinator"] == SLURM
    try:
        jax.distributed.initialize(
            None if is_slurm else cluster["coordinator"],
            cluster["processes"],
            cluster["process"],
            cluster_detection_method=SLURM if is_slurm else None,
            initialization_timeout=SECONDS_TO_JOIN,
        )
    except (RuntimeError, ValueError) as error:
        raise InputError(
            f"process {cluster['process']} of {cluster['processes']} did not find the others at "
            f"{cluster['coordinator']}: {error}"
        ) from None
