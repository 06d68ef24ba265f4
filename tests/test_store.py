"""Runs on disk."""

from __future__ import annotations

import gzip
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from records import ORIGIN, changed, lesion_record, record

from cbundles.errors import InputError
from cbundles.files import write_atomically
from cbundles.records import sealed
from cbundles.store import CELLS, LESIONS, Store


def named(cell, *, accuracy=0.9, commit="abc"):
    """A record with this id, made at a commit from some images."""
    origin = changed(ORIGIN, commit=commit, data_fingerprint="images")
    return changed(record(2, 3, accuracy=accuracy), id=cell, origin=origin)


def test_records_come_back(tmp_path):
    store, made = Store(tmp_path / "run"), named("abc")
    assert not store.is_finished("abc", "images")
    store.finish(made)
    assert store.is_finished("abc", "images")
    assert not store.is_finished("abc", "other images")
    assert store.record("abc") == made
    store.forget(["abc"])
    assert not store.is_finished("abc", "images")


WRITES_FOR_EVER = """
import os, sys, time
from pathlib import Path
from cbundles import files

def sleep(handle):
    print("writing", flush=True)
    time.sleep(600)

os.fsync = sleep  # between the content and the move into place
files.write_atomically(Path(sys.argv[1]), "whole")
"""


def staging_files(folder):
    return [path for path in folder.rglob(".*") if path.name != ".lock"]


@pytest.mark.faults
def test_what_a_killed_process_left_is_cleared_away(tmp_path):
    """And nothing of one that still writes: real processes, one of which is killed."""
    store = Store(tmp_path)
    path = store.record_path("abc")
    command = [sys.executable, "-c", WRITES_FOR_EVER, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        try:
            assert writer.stdout.readline() == "writing\n"
            (staging,) = staging_files(tmp_path)
            with store.locked():
                assert staging_files(tmp_path) == [staging]
        finally:
            writer.kill()
    with store.locked():
        assert staging_files(tmp_path) == []
    assert not path.exists()


def test_only_staging_files_that_nobody_writes_are_cleared_away(tmp_path):
    ours, gone = socket.gethostname(), subprocess.Popen(["true"])
    gone.wait()
    left = {
        f".abc.json.{os.getpid()}@{ours}.q1w2e3r4",
        f".abc.json.{gone.pid}@another.machine.q1w2e3r4",
        f".abc.json.1@{ours}.q1w2e3r4",  # of the first process there is, which is not ours
        f".abc.json.{10**20}@{ours}.q1w2e3r4",
        ".abc.json.q1w2e3r4",
        ".env.template",
        ".gitignore",
        ".notes.txt",
    }
    cleared = {f".abc.json.{gone.pid}@{ours}.q1w2e3r4"}
    for name in left | cleared:
        write_atomically(tmp_path / "cells" / name, "half a rec")
    with Store(tmp_path).locked():
        pass
    assert {path.name for path in (tmp_path / "cells").iterdir()} == left


def test_views_are_cleared_and_records_stay(tmp_path):
    store = Store(tmp_path)
    store.finish(named("abc"))
    for name in ("table.csv", "figures/fig1_x-2.png", "figures/figure_paper.png", "notes.txt"):
        write_atomically(tmp_path / name, "text")
    store.clear_views()
    left = {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()}
    assert left == {"cells/abc.json", "figures/figure_paper.png", "notes.txt"}


@pytest.mark.parametrize("name", ["table.csv", "figures/fig1_overview.svg"])
def test_a_run_does_not_begin_where_it_would_write_over_files(tmp_path, name):
    write_atomically(tmp_path / name, "by somebody else")
    refusal = f"holds no run, but {name}, which a run would write over"
    with pytest.raises(InputError, match=refusal), Store(tmp_path).locked():
        pass
    assert (tmp_path / name).read_text() == "by somebody else"
    store = Store(tmp_path)
    store.finish(named("abc"))  # the same files beside a record are those of a run
    with store.locked():
        pass


@pytest.mark.parametrize("content", ["", "{", "[]", '{"cell": "other"}', "\xff"])
def test_a_damaged_record_is_named(tmp_path, content):
    store = Store(tmp_path)
    write_atomically(store.record_path("abc"), content)
    with pytest.raises(InputError, match=r"cells/abc\.json: damaged record .* delete it"):
        store.record("abc")


def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_atomically(path, "old")

    def full_disk(handle):
        raise OSError("no space left on device")

    monkeypatch.setattr("cbundles.files.os.fsync", full_disk)
    with pytest.raises(OSError, match="no space"):
        write_atomically(path, "new")
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_one_process_at_a_time(tmp_path):
    first, second = Store(tmp_path), Store(tmp_path)
    refusal = pytest.raises(InputError, match="another cbundles process")
    with first.locked(), refusal, second.locked():
        pass
    with second.locked():
        pass


def test_checkpoints_are_kept_until_dropped(tmp_path):
    store = Store(tmp_path)
    assert store.load_checkpoint("key") is None
    store.save_checkpoint("key", b"one")
    store.save_checkpoint("key", b"two")
    assert store.load_checkpoint("key") == b"two"
    assert len(list((tmp_path / "checkpoints").iterdir())) == 1
    store.drop_checkpoint("key")
    store.drop_checkpoint("key")
    assert store.load_checkpoint("key") is None


def test_a_complete_run_is_one_file_and_says_the_same(tmp_path):
    store = Store(tmp_path)
    for cell in ("b", "a", "c"):
        store.finish(named(cell, commit="of its own" if cell == "c" else "of two"))
    study = changed(lesion_record(0, conflicting=()), id="b")
    store.finish(study, LESIONS)
    before = {kind: store.records(kind) for kind in (CELLS, LESIONS)}
    store.seal()
    files = {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()}
    assert files == {"records.jsonl", "lesions.jsonl"}
    again = Store(tmp_path)
    for one in (store, again):
        assert {kind: one.records(kind) for kind in (CELLS, LESIONS)} == before
        assert one.is_finished("c", "images") and not one.is_finished("c", "others")
        assert one.has("b", LESIONS) and not one.has("a", LESIONS)
    header, *lines = (tmp_path / "records.jsonl").read_text().splitlines()
    assert len(json.loads(header)["origins"]) == 2 and len(lines) == 3  # shared ones stand once
    assert "of two" not in "".join(lines)


def accuracies(store):
    return [round(made.history.test_accuracy[-1], 6) for made in store.records(CELLS)]


def test_a_run_that_grows_is_opened_and_sealed_again(tmp_path):
    store = Store(tmp_path)
    store.finish(named("a", accuracy=0.1))
    store.seal()
    store.finish(named("a", accuracy=0.2))  # the newer one counts
    store.finish(named("b", accuracy=0.3))
    assert accuracies(store) == [0.2, 0.3]
    store.seal()
    assert accuracies(Store(tmp_path)) == [0.2, 0.3]
    store.forget(["a"])
    assert store.ids() == Store(tmp_path).ids() == ["b"]


def test_what_other_processes_write_while_a_run_is_sealed_survives(tmp_path, monkeypatch):
    """A record of another cell, and a newer one of a cell that is being sealed."""
    store, other = Store(tmp_path), Store(tmp_path)
    store.finish(named("a", accuracy=0.1))
    store.finish(named("b", accuracy=0.2))
    encode = sealed.encode

    def slowly(records, packed):
        other.finish(named("b", accuracy=0.3))
        other.finish(named("c", accuracy=0.4))
        return encode(records, packed)

    monkeypatch.setattr(sealed, "encode", slowly)
    store.seal()
    monkeypatch.undo()
    assert {path.stem for path in tmp_path.glob("cells/*.json")} == {"b", "c"}
    for one in (store, Store(tmp_path)):
        assert accuracies(one) == [0.1, 0.3, 0.4]
    store.seal()
    assert accuracies(Store(tmp_path)) == [0.1, 0.3, 0.4] and not (tmp_path / "cells").exists()


def test_a_damaged_record_stays_for_people_to_see(tmp_path):
    """Also beside a good one that was sealed before."""
    store = Store(tmp_path)
    store.finish(named("b"))
    store.seal()
    store.finish(named("a"))
    write_atomically(store.record_path("b"), "{")
    store.seal()
    assert store.has("a") and not store.record_path("a").exists()
    with pytest.raises(InputError, match=r"cells/b\.json: damaged record"):
        store.records(CELLS)


@pytest.mark.faults
def test_a_kill_while_sealing_loses_nothing(tmp_path, monkeypatch):
    store = Store(tmp_path)
    for cell in ("a", "b"):
        store.finish(named(cell))
    before = store.records(CELLS)
    unlink, calls = Path.unlink, []

    def dying(path, **how):
        calls.append(path)
        if len(calls) == 3:  # the first one is of the packed file
            raise KeyboardInterrupt
        unlink(path, **how)

    monkeypatch.setattr(Path, "unlink", dying)
    with pytest.raises(KeyboardInterrupt):
        store.seal()
    monkeypatch.undo()
    assert len(list(tmp_path.glob("cells/*.json"))) == 1  # the other one is in the file alone
    again = Store(tmp_path)
    assert again.records(CELLS) == before
    again.seal()
    assert Store(tmp_path).records(CELLS) == before and not (tmp_path / "cells").exists()


@pytest.mark.parametrize(
    ("line", "content", "message"),
    [
        (0, "", "damaged"),
        (0, '{"format": 99, "origins": []}', "file of records of format 99"),
        (2, "{", r"records\.jsonl:3: damaged record"),
        (2, '{"cell": "b", "origin": 7}', r"records\.jsonl:3: damaged record"),
    ],
)
def test_a_damaged_line_is_named(tmp_path, line, content, message):
    store = Store(tmp_path)
    for cell in ("a", "b"):
        store.finish(named(cell))
    store.seal()
    lines = (tmp_path / "records.jsonl").read_text().splitlines()
    lines[line] = content
    (tmp_path / "records.jsonl").write_text("\n".join(lines))
    with pytest.raises(InputError, match=message):
        Store(tmp_path).record("a")


def test_a_published_run_is_packed_and_says_the_same(tmp_path):
    """As lines before it is published, packed afterwards; never both."""
    store = Store(tmp_path)
    store.finish(named("a"))
    store.seal()
    store.write_run({"cells": ["a", "b"], "published": True})
    assert store.has("a") and (tmp_path / "records.jsonl").is_file()
    store.finish(named("b"))
    before = store.records(CELLS)
    store.seal()
    assert [path.name for path in tmp_path.glob("records*")] == ["records.jsonl.gz"]
    assert Store(tmp_path).records(CELLS) == before
    packed = (tmp_path / "records.jsonl.gz").read_bytes()
    plain = sealed.encode(before)
    assert gzip.decompress(packed) == plain and packed == sealed.encode(before, packed=True)
    Store(tmp_path).forget(["a"])
    assert Store(tmp_path).ids(CELLS) == ["b"]
    Store(tmp_path).forget(["b"])
    assert not list(tmp_path.glob("records*"))


@pytest.mark.parametrize("damage", ["cut", "a byte", "a line"])
def test_damage_of_a_packed_run_is_one_message(tmp_path, damage):
    store = Store(tmp_path)
    store.write_run({"cells": ["a"], "published": True})
    store.finish(named("a"))
    store.seal()
    path = tmp_path / "records.jsonl.gz"
    content = path.read_bytes()
    if damage == "cut":
        path.write_bytes(content[:-30])
        message = r"records\.jsonl\.gz: damaged \(EOFError.*restore it from a copy"
    elif damage == "a byte":
        path.write_bytes(content[:100] + bytes([content[100] ^ 255]) + content[101:])
        message = r"records\.jsonl\.gz: damaged \(.*restore it from a copy"
    else:
        path.write_bytes(gzip.compress(gzip.decompress(content)[:-20]))
        message = r"records\.jsonl\.gz:2: damaged record .* `gunzip records\.jsonl\.gz`, then"
    with pytest.raises(InputError, match=message):
        Store(tmp_path).record("a")
