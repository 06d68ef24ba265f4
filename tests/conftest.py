"""Shared by all tests: where data is, a private cache, and the command line as a real process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parent.parent
GOLDEN = Path(__file__).parent / "data"
SHARED = ROOT.parent / "shared"

collect_ignore = ["tensorflow_pixels.py"]  # a script of its own: TensorFlow stays out of JAX


def pytest_configure() -> None:
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    # A shell starts background jobs with SIGINT ignored, and children inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Decoded data and compiled programs of this session only: no state leaks in or out."""
    folder = tmp_path_factory.mktemp("cache")
    os.environ["CBUNDLES_CACHE"] = str(folder)
    return folder


@pytest.fixture(scope="session")
def golden() -> Callable[[str], dict[str, np.ndarray]]:
    def load(name: str) -> dict[str, np.ndarray]:
        with np.load(GOLDEN / f"{name}.npz", allow_pickle=False) as archive:
            return dict(archive)

    return load


@pytest.fixture(scope="session")
def shared() -> Path:
    if not SHARED.is_dir():
        pytest.skip("skipped: ../shared not found")
    return SHARED


Cli = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    """Run `cbundles ARGUMENTS` in a process of its own, in an empty folder."""

    def run(
        *arguments: str, timeout: float = 300, environment: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "cbundles.cli", *arguments],
            cwd=tmp_path,
            env={**os.environ, **(environment or {})},
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    return run
