"""Shared by all tests: where data is, a private cache, and the command line as a real process."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import jaxtyping
import numpy as np
import pytest
from beartype import BeartypeConf, beartype
from hypothesis import HealthCheck, settings

# Annotations of these modules, with the shapes that stand there, are checked at every call in all
# tests, as mypy reads them (an int is a float too). The rest of `observe` is about programs, not
# arrays, and its many small calls would slow the tests by another 5 %. This must come before
# anything of cbundles is imported.
CHECKED = (
    "auditing.counting",
    "auditing.layer_sums",
    "peer_measures",
    "auditing.peer_sums",
    "auditing.signing",
    "auditing.weights",
    "bundles",
    "measure",
    "networks",
    "observe.observed",
    "optim",
    "train",
)
check = beartype(conf=BeartypeConf(is_pep484_tower=True))
jaxtyping.install_import_hook([f"cbundles.{name}" for name in CHECKED], "conftest.check")

# On a machine that is busy, what is slow is no fault of the test.
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")

ROOT = Path(__file__).parent.parent
GOLDEN = Path(__file__).parent / "data"
SHARED = ROOT.parent / "shared"
PROGRAMS = ROOT / ".programs"  # compiled; git-ignored
MEMORY_MAPS, MANY_MAPS = Path("/proc/self/maps"), 20_000

# Scripts of their own: TensorFlow stays out of JAX, and a process that freezes is not this one.
collect_ignore = ["tensorflow_pixels.py", "freezing"]


def pytest_configure() -> None:
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    worker = os.environ.get("PYTEST_XDIST_WORKER", "")
    if worker and hasattr(os, "sched_setaffinity"):
        # One core each, as the product's workers have it: the same bits, and no faster with two.
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[int(worker.removeprefix("gw")) % len(cores)]})
    # A shell starts background jobs with SIGINT ignored, and children inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Decoded data of this session only: no state leaks in or out. Compiled programs, which take
    most of the time, stay in the working tree between sessions and are shared by all processes; a
    program is found by what it computes, so none can be stale. One that a killed process wrote half
    is compiled again whenever it is wanted, as JAX never replaces it (see filterwarnings)."""
    import jax

    from cbundles.executor import local

    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    folder /= "cache"
    folder.mkdir(exist_ok=True)
    PROGRAMS.mkdir(exist_ok=True)
    with contextlib.suppress(FileExistsError):  # another process of this session was first
        (folder / "xla").symlink_to(PROGRAMS)
    os.environ["CBUNDLES_CACHE"] = str(folder)
    jax.config.update("jax_compilation_cache_dir", str(PROGRAMS / local.host_key()))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_default_matmul_precision", "highest")  # as workers have it
    return folder


@pytest.fixture(scope="module", autouse=True)
def room_for_programs() -> Iterator[None]:
    """Forget compiled programs behind a file of tests that leaves many. Each takes memory maps, of
    which Linux allows a process 65,530; with none left, compiling ends in a segmentation fault."""
    yield
    if MEMORY_MAPS.exists() and len(MEMORY_MAPS.read_bytes().splitlines()) > MANY_MAPS:
        import jax

        jax.clear_caches()


@pytest.fixture
def unchecked() -> Iterator[None]:
    """No check of annotations: what a user does wrong is answered by the product itself."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


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
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """Run `cbundles ARGUMENTS` in this process, in an empty folder, with an executor that starts no
    other: the same result as `process` gives, without the seconds that interpreters need. Figures
    are made, but what is written are empty files; that they can be drawn is tested elsewhere."""
    import inline
    import jax
    from matplotlib.figure import Figure

    from cbundles import cli as command_line
    from cbundles.executor import local
    from cbundles.report import drawing

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(local, "run_jobs", inline.run_jobs)
    monkeypatch.setattr(jax, "clear_caches", lambda: None)  # other tests want these programs
    monkeypatch.setattr(Figure, "draw_without_rendering", lambda figure: None)
    monkeypatch.setattr(Figure, "savefig", lambda figure, file, **_: None)
    monkeypatch.setattr(drawing, "_pixels_of", drawing.blank_pixels)

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        monkeypatch.setattr(sys, "argv", ["cbundles", *arguments])
        out, err, code = io.StringIO(), io.StringIO(), 0
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                command_line.main()
            except SystemExit as end:
                code = end.code if isinstance(end.code, int) else int(end.code is not None)
        return subprocess.CompletedProcess(arguments, code, out.getvalue(), err.getvalue())

    return run


@pytest.fixture
def process(tmp_path: Path) -> Cli:
    """Run `cbundles ARGUMENTS` in a process of its own, in an empty folder, with real workers."""

    def run(*arguments: str, timeout: float = 600) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "cbundles.cli", *arguments],
            cwd=tmp_path,
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
        sign.unlink(missing_ok=True)  # of an earlier one in this test
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


@pytest.fixture
def tiny(tmp_path: Path, request: pytest.FixtureRequest) -> str:
    """The file of a small grid, which is the text `TINY` of the test's module."""
    (tmp_path / "tiny.yaml").write_text(request.module.TINY)
    return "tiny.yaml"


@pytest.fixture
def captured(monkeypatch: pytest.MonkeyPatch) -> object:
    """What audits measure, caught for `brute_force.audit_and_compare`."""
    import brute_force

    return brute_force.capture(monkeypatch)
