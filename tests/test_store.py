"""Runs on disk."""

from __future__ import annotations

import pytest

from cbundles.errors import InputError
from cbundles.store import Store, write_atomically


def test_records_come_back(tmp_path):
    store = Store(tmp_path / "run")
    assert not store.is_finished("abc")
    store.finish({"cell": "abc", "value": 1.5})
    assert store.is_finished("abc")
    assert store.record("abc") == {"cell": "abc", "value": 1.5}
    store.forget(["abc"], [])
    assert not store.is_finished("abc")


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
