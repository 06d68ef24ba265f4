"""`cbundles doctor`: what this machine has, what is missing, and how to get it."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

from rich.console import Console

from cbundles import provenance
from cbundles.commands.output import say
from cbundles.config import DATASETS
from cbundles.data import dataset, storage_of
from cbundles.data.sources import PACKAGED, cache_root
from cbundles.executor import local

# Asked in a process of its own, since a broken installation of a GPU can end the one that asks.
ASK_JAX = "import jax; print(', '.join(f'{d.platform}: {d.device_kind}' for d in jax.devices()))"
GPU_EXTRA = 'pip install "cbundles[cuda]"'
PREPARE_EXTRA = 'pip install "cbundles[prepare]"'


def examine(console: Console) -> int:
    """Print what there is; returns 1 when something needs attention that was asked for."""
    problems = [*_show_machine(console), *_show_data(console)]
    say(console, "")
    for problem in problems:
        say(console, f"needs attention: {problem}")
    if not problems:
        say(console, "Nothing is missing. To begin: cbundles sweep quickstart")
    return 1 if problems else 0


def _show_machine(console: Console) -> list[str]:
    """Print processor, memory and devices; returns what is wrong with them."""
    problems = []
    versions = provenance.versions()
    _line(
        console, "python", f"{versions.pop('python')} on {platform.system()} {platform.machine()}"
    )
    _line(console, "packages", ", ".join(f"{name} {number}" for name, number in versions.items()))
    cores = len(local.usable_cores())
    _line(console, "processor", f"{provenance.processor()}, {cores} cores usable")
    asked = subprocess.run(
        [sys.executable, "-c", ASK_JAX], capture_output=True, text=True, check=False
    )
    if asked.returncode == 0:
        _line(console, "jax finds", asked.stdout.strip().splitlines()[-1])
    else:
        reason = (asked.stderr.strip().splitlines() or ["no message"])[-1]
        _line(console, "jax finds", f"nothing: {reason}")
        problems.append(f"jax cannot be used: {reason}")
    if _has_nvidia_card() and local.detect_device() == "cpu":
        problems.append(f"there is an NVIDIA card, but JAX has no CUDA: {GPU_EXTRA}")
    return problems


def _has_nvidia_card() -> bool:
    return Path("/dev/nvidia0").exists() or shutil.which("nvidia-smi") is not None


def _show_data(console: Console) -> list[str]:
    """Print the state of every data set and of the cache; returns what is wrong with them."""
    problems = []
    tensorflow = importlib.util.find_spec("tensorflow") is not None
    for name in DATASETS:
        _line(console, name, _state_of(name, tensorflow))
    root = cache_root()
    nearest = next(folder for folder in (root, *root.parents) if folder.exists())
    if nearest.is_dir() and os.access(nearest, os.W_OK):
        free = shutil.disk_usage(nearest).free
        _line(console, "cache", f"{root}, {free / 1e9:.0f} GB free")
    else:
        _line(console, "cache", f"{root}, which cannot be written")
        problems.append(f"{nearest} cannot be written; name another cache with CBUNDLES_CACHE")
    return problems


def _state_of(name: str, tensorflow: bool) -> str:
    """Whether a data set can be used now, and if not, what it takes."""
    stored = dataset.read(storage_of(name), verify=False)
    if stored is not None:
        return f"ready: {stored.facts.train:,} training and {stored.facts.test:,} test images"
    if name in PACKAGED:
        return "comes with the package, made at first use"
    download = "downloaded at first use, or read from archives that --manual-dir names"
    return download if tensorflow else f"not prepared, which needs TensorFlow: {PREPARE_EXTRA}"


def _line(console: Console, what: str, text: str) -> None:
    say(console, f"{what:<13}{text}")
