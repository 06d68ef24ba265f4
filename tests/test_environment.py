"""Streams, disks and variables that a command finds and did not choose."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

from cbundles.commands import report
from cbundles.data import sources
from cbundles.data.dataset import write as write_dataset
from cbundles.data.spirals import arrays
from cbundles.errors import InputError
from cbundles.experiments.pace import seconds_named
from cbundles.files import write_atomically
from cbundles.store import Store

ONE = """
data: {name: spirals}
model: {width: 6, depth: 3}
training: {epochs: 1}
probe: {samples: 300}
"""


@pytest.fixture
def one(tmp_path) -> str:
    (tmp_path / "one.yaml").write_text(ONE)
    return "one.yaml"


def full(*_, **__):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.faults
def test_a_full_disk_in_a_worker_is_told_though_no_traceback_can_be_kept(
    cli, one, tmp_path, monkeypatch
):
    monkeypatch.setattr("cbundles.files.os.fsync", full)
    write_text = Path.write_text

    def write_no_traceback(path, *arguments, **how):
        return full() if "failed-" in path.name else write_text(path, *arguments, **how)

    monkeypatch.setattr(Path, "write_text", write_no_traceback)
    monkeypatch.setattr(Store, "write_run", lambda store, content: None)
    done = cli("sweep", one)
    assert done.returncode == 1
    assert "No space left on device" in done.stdout and "see None" not in done.stdout
    assert "Traceback" not in done.stdout


@pytest.mark.faults
def test_a_full_disk_in_the_command_is_one_message(cli, one, tmp_path, monkeypatch):
    monkeypatch.setattr("cbundles.files.os.fsync", full)
    done = cli("sweep", one)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "cbundles: results/one/run.json: No space left on device\n"


@pytest.mark.faults
def test_a_place_that_cannot_be_written_is_named(cli, one, tmp_path, monkeypatch):
    def read_only(path, *arguments, **how):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

    monkeypatch.setattr(Path, "replace", read_only)
    done = cli("sweep", one)
    assert done.returncode == 2 and "Read-only file system" in done.stderr
    monkeypatch.setattr("cbundles.data.dataset.np.save", full)
    with pytest.raises(InputError, match="CBUNDLES_CACHE"):
        write_dataset(tmp_path / "cache", "spirals", ("a", "b"), arrays())


@pytest.mark.parametrize(("umask", "mode"), [(0o077, 0o600), (0o002, 0o664), (0, 0o666)])
def test_files_heed_the_umask(tmp_path, umask, mode):
    before = os.umask(umask)
    try:
        write_atomically(tmp_path / "file", "text")
        write_dataset(tmp_path / "data", "spirals", ("a", "b"), arrays())
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == mode
    assert (tmp_path / "data").stat().st_mode & 0o777 == 0o777 & ~umask


@pytest.mark.parametrize("folder", ["a[red]b[/red]", ":smile:", "a\udcffb"])
def test_the_name_of_a_folder_is_shown_as_it_is(cli, one, tmp_path, folder):
    done = cli("sweep", one, "--out", folder)
    assert done.returncode == 0 and f"{folder}/table.csv" in done.stdout
    assert f"of disk in {folder}." in cli("sweep", one, "--out", folder, "--plan").stdout


@pytest.mark.parametrize("value", ["1", "True", "maybe"])
def test_double_precision_is_refused(cli, one, monkeypatch, value):
    monkeypatch.setenv("JAX_ENABLE_X64", value)
    done = cli("sweep", one, "--plan")
    assert done.returncode == 2 and "JAX_ENABLE_X64" in done.stderr
    monkeypatch.setenv("JAX_ENABLE_X64", "0")
    assert cli("sweep", one, "--plan").returncode == 0


def test_a_cache_that_is_named_needs_no_home(monkeypatch, tmp_path):
    def unknown():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", unknown)
    assert sources.cache_root() == Path(os.environ["CBUNDLES_CACHE"])
    monkeypatch.delenv("CBUNDLES_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert sources.cache_root() == tmp_path / "cbundles"
    monkeypatch.delenv("XDG_CACHE_HOME")
    with pytest.raises(InputError, match="HOME is unset"):
        sources.cache_root()


@pytest.mark.parametrize("text", ["x", "nan", "inf", "-1", ""])
def test_times_in_the_environment_are_checked(monkeypatch, text):
    monkeypatch.setenv("CBUNDLES_PAUSE_SECONDS", text)
    with pytest.raises(InputError, match="CBUNDLES_PAUSE_SECONDS"):
        seconds_named("CBUNDLES_PAUSE_SECONDS", 10)
    monkeypatch.setenv("CBUNDLES_PAUSE_SECONDS", "2.5")
    assert seconds_named("CBUNDLES_PAUSE_SECONDS", 10) == 2.5


@pytest.mark.parametrize("output", ["full", "closed", "gone"])
def test_output_that_leads_nowhere(one, tmp_path, output):
    """A closed one is as good as /dev/null; a full or broken one is told, without a traceback."""
    redirection = {"full": ">/dev/full", "closed": ">&-", "gone": ""}[output]
    reader, gone = os.pipe()
    os.close(reader)
    done = subprocess.run(
        ["sh", "-c", f'exec "$0" -m cbundles.cli sweep {one} --plan {redirection}', sys.executable],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=gone,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(gone)
    assert done.returncode == (0 if output == "closed" else 1)
    assert "Traceback" not in done.stderr and "Exception" not in done.stderr
    assert ("No space left" in done.stderr) == (output == "full")


def test_a_worker_that_cannot_start_says_why(process, one, monkeypatch):
    monkeypatch.setenv("CBUNDLES_CHECKPOINT_SECONDS", "soon")
    done = process("sweep", one)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "could not start: CBUNDLES_CHECKPOINT_SECONDS = 'soon': must be seconds" in done.stderr


DAMAGED = [
    ("[]", "a mapping is expected"),
    ('{"cells": "abc"}', "cells = 'abc': must be a list of texts"),
    ('{"cells": [1]}', "must be a list of texts"),
    ("{}", "without cells"),
    ('{"cells": [], "kind": "autotune"}', "without attempts"),
    ('{"cells": [], "kind": "autotune", "attempts": [[]]}', "a list of lists"),
    ('{"cells": [], "kind": "sweeep"}', "kind"),
    ('{"cells": [], "data": {"mnist": 1}}', "texts by texts"),
    ('{"cells": [], "data": []}', "texts by texts"),
    ('{"cells": [], "config": 1}', "must be a mapping"),
    ("[" * 100_000, "RecursionError"),
    ("\xff", "damaged"),
]


@pytest.mark.parametrize(("content", "message"), DAMAGED)
def test_a_damaged_run_json_is_named(cli, tmp_path, content, message):
    (tmp_path / "results/run").mkdir(parents=True)
    (tmp_path / "results/run/run.json").write_text(content, encoding="latin-1")
    for arguments in (["report"], ["lesion", "results/run"]):
        done = cli(*arguments)
        assert done.returncode == 2 and "Traceback" not in done.stderr
        assert "results/run/run.json: damaged" in done.stderr and message in done.stderr


def test_a_process_that_draws_and_is_killed_is_told():
    told = pytest.raises(InputError, match="was killed, perhaps for lack of memory")
    with told, report._helpers() as helpers:
        helpers.submit(os._exit, 9).result()


def test_figures_need_no_backend_that_somebody_named(tmp_path):
    code = "from cbundles.report import drawing; import matplotlib; print(matplotlib.get_backend())"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "MPLBACKEND": "foo"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True
    )
    assert done.stdout.strip() == "agg"


def test_checkpoints_of_networks_that_are_finished_do_not_stay(cli, one, tmp_path):
    """As after a kill between the last record and the removal of its checkpoint."""
    assert cli("sweep", one).returncode == 0
    run = json.loads((tmp_path / "results/one/run.json").read_text())
    (cell,), (fingerprint,) = run["cells"], run["data"].values()
    store = Store(tmp_path / "results/one")
    store.save_checkpoint(f"{cell}-{fingerprint}", b"spent")
    store.save_checkpoint("another", b"wanted")
    assert cli("sweep", one).returncode == 0
    left = [path.name for path in (tmp_path / "results/one/checkpoints").iterdir()]
    assert left == ["another.msgpack"]
