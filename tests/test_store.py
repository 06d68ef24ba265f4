"""Runs on disk."""

from __future__ import annotations

import pytest

from cbundles.errors import InputError
from cbundles.store import Store, write_atomically


def test_records_come_back(tmp_path):
    store = Store(tmp_path / "run")
    assert not store.is_finished("abc", "images")
    record = {"cell": "abc", "value": 1.5, "data_fingerprint": "images"}
    store.finish(record)
    assert store.is_finished("abc", "images")
    assert not store.is_finished("abc", "other images")
    assert store.record("abc") == {"format": 2, **record}
    store.forget(["abc"])
    assert not store.is_finished("abc", "images")


def test_what_a_killed_process_left_is_cleared_away(tmp_path):
    store = Store(tmp_path)
    store.finish({"cell": "abc"})
    litter = tmp_path / "cells" / ".abc.json.q1w2e3r4"
    litter.write_text("half a rec")
    with store.locked():
        pass
    assert not litter.exists() and store.record_path("abc").exists()


def test_views_are_cleared_and_records_stay(tmp_path):
    store = Store(tmp_path)
    store.finish({"cell": "abc"})
    for name in ("table.csv", "figures/fig1_x-2.png", "notes.txt"):
        write_atomically(tmp_path / name, "text")
    store.clear_views()
    left = {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()}
    assert left == {"cells/abc.json", "notes.txt"}


@pytest.mark.parametrize("content", ["", "{", "[]", '{"cell": "other"}'])
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

    monkeypatch.setattr("cbundles.store.os.fsync", full_disk)
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
