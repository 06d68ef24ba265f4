"""Where a result comes from: versions, device, commit."""

from __future__ import annotations

import importlib.metadata
import platform
import re
import subprocess
from pathlib import Path

PACKAGES = ("cbundles", "jax", "jaxlib", "flax", "optax", "numpy", "tensorflow-datasets")


def versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def processor() -> str:
    """The processor's name, as the operating system gives it."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        text = ""
    told = dict(re.findall(r"^([\w ]+?)\s*: (.+)$", text, re.MULTILINE))
    if "model name" in told:
        return told["model name"].strip()
    # ARM gives numbers: of who designed it, and which of theirs it is.
    numbers = [told[name].strip() for name in ("CPU implementer", "CPU part") if name in told]
    return " ".join([platform.processor() or platform.machine(), *numbers])


def commit() -> str | None:
    """The commit of the source tree this package runs from, ``+changes`` when it is modified."""
    here = Path(__file__).parent

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(here), *arguments], capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", __file__)  # else it is the repository of someone else
        changed = git("status", "--porcelain", "--untracked-files=no", "--", str(here))
        return git("rev-parse", "HEAD") + ("+changes" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return None
