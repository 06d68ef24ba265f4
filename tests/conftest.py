"""Shared by all tests: where data is, a private cache, and the command line as a real process."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parent.parent
GOLDEN = Path(__file__).parent / "data"
SHARED = ROOT.parent / "shared"

# Scripts of their own: TensorFlow stays out of JAX, and a process that freezes is not this one.
collect_ignore = ["tensorflow_pixels.py", "freezing"]


def pytest_configure() -> None:
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    # A shell starts background jobs with SIGINT ignored, and children inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Decoded data and compiled programs of this session only: no state leaks in or out. All its
    processes share them, for what takes most of the time is to compile."""
    import jax

    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    folder /= "cache"
    os.environ["CBUNDLES_CACHE"] = str(folder)
    jax.config.update("jax_compilation_cache_dir", str(folder / "tests"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
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
Process = subprocess.Popen[str]


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


@pytest.fixture
def frozen(tmp_path: Path) -> Callable[..., contextlib.AbstractContextManager[Process]]:
    """Start `cbundles ARGUMENTS`; it stands still right after a worker has written the file `at`
    (a glob) `after` times, until it is killed: at the latest when the `with` block ends."""

    @contextlib.contextmanager
    def start(*arguments: str, at: str, after: int = 1) -> Iterator[Process]:
        sign = tmp_path / "frozen"
        paths = [str(Path(__file__).parent / "freezing"), os.environ.get("PYTHONPATH", "")]
        environment = {
            "FREEZE_AT": str(tmp_path / at), "FREEZE_AFTER": str(after), "FREEZE_SIGN": str(sign),
            "CBUNDLES_CHECKPOINT_SECONDS": "0", "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        }  # fmt: skip
        with subprocess.Popen(
            [sys.executable, "-m", "cbundles.cli", *arguments],
            cwd=tmp_path,
            env={**os.environ, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as process:
            try:
                deadline = time.monotonic() + 600
                while not sign.exists() and process.poll() is None and time.monotonic() < deadline:
                    time.sleep(0.05)
                assert sign.exists(), process.poll()
                yield process
            finally:
                process.kill()

    return start
