"""The identity of a cell: frozen, whatever becomes of the schema."""

from __future__ import annotations

import dataclasses
import hashlib
import json

import pytest
from conftest import ROOT

from cbundles import config, identity
from cbundles.errors import InputError
from cbundles.store import CELLS, LESIONS, Store

# Toys have no configuration; pruned networks are named after the cell that they were made from.
STORES = [
    Store(path.parent)
    for path in sorted(ROOT.glob("results/*/run.json"))
    if not path.parent.name.startswith("toy")
]


@pytest.fixture(scope="module")
def committed():
    """Of every committed record its folder, the cell it says it is of, and its configuration."""
    return [
        (store.folder, record.id, record.config)
        for store in STORES
        for kind in (CELLS, LESIONS)
        for record in store.records(kind)
    ]


def redefined(kind, values=(), **more):
    """A section of the schema with other defaults, or with more settings."""
    fields = [
        (f.name, f.type, dataclasses.field(default=dict(values).get(f.name, f.default),
                                           metadata=f.metadata))
        for f in dataclasses.fields(kind)
    ]  # fmt: skip
    added = [(name, "int", config.setting(default, why="a test")) for name, default in more.items()]
    made = dataclasses.make_dataclass(kind.__name__, [*fields, *added], frozen=True, kw_only=True)
    made.__module__ = config.__name__  # where the names in its annotations are looked up
    return made


@pytest.fixture
def schema(monkeypatch):
    """Replaces sections of the schema for one test."""

    def replace(**kinds):
        for name, kind in kinds.items():
            monkeypatch.setitem(config.SECTIONS, name, kind)
            monkeypatch.setattr(config, kind.__name__, kind)

    return replace


def other(value):
    """Another value of the same kind."""
    if isinstance(value, str):
        return f"not {value}"
    return 3 if value is None else value + 1


def test_every_setting_has_a_first_value():
    schema = {name: [f.name for f in dataclasses.fields(kind)]
              for name, kind in config.SECTIONS.items()}  # fmt: skip
    assert {name: list(keys) for name, keys in identity.FIRST_VALUES.items()} == schema


def test_first_values_are_frozen():
    """A line for a new setting changes this hash; the lines that were there before never may."""
    until_now = json.dumps(identity.FIRST_VALUES, sort_keys=True)
    assert hashlib.sha256(until_now.encode()).hexdigest()[:16] == "53d811a35044ca6e"


def test_a_setting_that_is_not_known_is_named():
    for unknown in ({"model": {"depht": 3}}, {"optimizer": {"name": "sgd"}}):
        with pytest.raises(InputError, match=r"(depht = 3|name = 'sgd'): not a setting of this"):
            config.Cell.fromdict(unknown)


def test_committed_records_have_the_identity_of_their_configuration(committed):
    assert len(committed) >= 1500
    for path, cell, settings in committed:
        assert config.Cell.fromdict(settings).id == cell, path


def test_no_two_networks_share_an_identity(committed):
    known = {}
    for path, cell, settings in committed:
        whole = json.dumps(identity.completed(settings), sort_keys=True)
        assert known.setdefault(cell, whole) == whole, path
    assert len(set(known.values())) == len(known)


def test_changing_any_default_changes_no_identity(committed, schema):
    """Each default is changed in its turn; and records are read and grids written as before."""
    kinds = {}
    for path, cell, settings in committed:  # two of each run: every family, arm and reading
        kinds.setdefault(path.parts[-3], []).append((path, cell, settings))
    sample = [record for records in kinds.values() for record in (records[0], records[-1])]
    for name, kind in list(config.SECTIONS.items()):
        for field in dataclasses.fields(kind):
            schema(**{name: redefined(kind, {field.name: other(field.default)})})
            for path, cell, settings in sample:
                assert config.Cell.fromdict(settings).id == cell, (path, name, field.name)
        schema(**{name: kind})


def test_what_has_no_use_for_a_setting_does_not_follow_its_default(schema):
    """A fully connected network has no filters and no statistics, whatever their defaults are."""
    grid = {"model": {"width": 4, "depth": 2}}
    (before,) = config.build(grid, default_name="test").cells
    schema(
        model=redefined(config.Model, {"base_filters": 8}),
        probe=redefined(config.Probe, {"batch_norm": "running"}),
        tuning=redefined(config.Tuning, {"every": 7}),
    )
    (after,) = config.build(grid, default_name="test").cells
    assert after.id == before.id
    # A setting of its own does: what is trained now is another network.
    schema(training=redefined(config.Training, {"batch_size": 32}))
    (changed,) = config.build(grid, default_name="test").cells
    assert changed.id != before.id
    named = {**grid, "training": {"batch_size": 64}}
    assert config.build(named, default_name="test").cells[0].id == before.id


def test_settings_that_came_later_change_no_identity_until_they_are_used(
    committed, schema, monkeypatch
):
    """Two of them, with defaults that are not what was before: records lack them and mean that."""
    first = json.loads(json.dumps(identity.FIRST_VALUES))
    first["probe"]["later"], first["training"]["last"] = 0, 5
    monkeypatch.setattr(identity, "FIRST_VALUES", first)
    schema(
        probe=redefined(config.Probe, later=1),
        training=redefined(config.Training, last=6),
    )
    for path, cell, settings in committed[::50]:
        found = config.Cell.fromdict(settings)
        assert found.id == cell, path
        assert (found.probe.later, found.training.last) == (0, 5)
        used = dataclasses.replace(found, probe=dataclasses.replace(found.probe, later=1))
        assert used.id != cell


def test_names_of_networks_do_not_follow_the_defaults(schema):
    settings = {"model": {"width": 4, "depth": 2}, "probe": {"samples": 64}}
    before = config.Cell.fromdict(settings).label
    schema(probe=redefined(config.Probe, {"samples": 64}))
    named = "fc width=4 depth=2 seed=0 samples=64 reading=all"  # which the first ones were
    assert config.Cell.fromdict(settings).label == before == named
