"""Records: what is written is read, what is damaged is named, earlier forms stay readable."""

from __future__ import annotations

import copy
import json
import re

import msgspec
import pytest
from conftest import ROOT
from records import (
    changed,
    entries_of,
    growth_record,
    lesion_record,
    measured_record,
    pruned_record,
    record,
    toy_record,
    tuning_record,
)

from cbundles.errors import InputError
from cbundles.records import reading, sealed
from cbundles.report import runs
from cbundles.store import CELLS, KINDS, LESIONS, MEASURED, PRUNED, SWEEPS, Store

MADE = {
    "sweep": (CELLS, record(3, 4, first=2)),
    "grow": (CELLS, growth_record("max")),
    "tune": (CELLS, tuning_record("both", end=3)),
    "toy": (CELLS, toy_record("separate", 0)),
    "plain toy": (CELLS, toy_record("plain", 0)),
    "lesion": (LESIONS, lesion_record(0, conflicting=(1,), depth=10)),
    "prune": (PRUNED, pruned_record()),
    "measure": (MEASURED, measured_record()),
}


@pytest.fixture(params=MADE)
def kept(request):
    return MADE[request.param]


def content_of(made):
    return json.loads(reading.encode(made))


def written(folder, made, kind, content):
    """A store that holds this content in the place of a record."""
    store = Store(folder)
    path = store.record_path(made.id, kind)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return store


def test_a_record_of_every_kind_is_read_as_it_was_written(tmp_path, kept):
    kind, made = kept
    store = Store(tmp_path)
    store.finish(made, kind)
    assert store.record(made.id, kind) == made and made.kind in content_of(made)["kind"]
    store.seal()
    assert Store(tmp_path).record(made.id, kind) == made
    assert not (tmp_path / kind.folder).exists()


def test_committed_records_are_read_as_they_are_written():
    total = 0
    for path in sorted(ROOT.glob("results/*/*.jsonl.gz")):
        (kind,) = [kind for kind in KINDS if kind.sealed_file == path.stem]
        records = sealed.decode(path, kind.unsaid)
        for made in records.values():
            assert isinstance(made, kind.types)
            assert reading.decode(reading.encode(made), "nothing", "here") == made
        total += len(records)
    assert total >= 1584


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("flops", ..., "missing required field `flops`"),
        ("flops", "9", "Expected `int`, got `str` - at `$.flops`"),
        ("flops", 1.5, "Expected `int`, got `float` - at `$.flops`"),
        ("flops", True, "Expected `int`, got `bool` - at `$.flops`"),
        ("flips", 9, "unknown field `flips`"),
        ("kind", "swep", "Invalid value 'swep' - at `$.kind`"),
        ("kind", "grow", "unknown field"),
        ("origin.versions.jax", 1, "Expected `str`, got `int` - at `$.origin.versions[...]`"),
        ("history", [], "Expected `object`, got `array` - at `$.history`"),
        ("history.entropy", {}, "Expected `array`, got `object` - at `$.history.entropy`"),
        ("history.test_accuracy.1", None, "got `null` - at `$.history.test_accuracy[1]`"),
        ("history.test_accuracy", [0.1] * 3, "test_accuracy has 3 values, entropy has 4 - at"),
        ("history.entropy.2.0", "0.5", "Expected `float | null`, got `str` - at"),
        ("history.entropy.2", [0.0], "entropy[2] has 1 layers, entropy[0] 3 - at `$.history`"),
        ("history.num_bundles.0.1", None, "got `null` - at `$.history.num_bundles[0][1]`"),
        ("seconds", [1.0], "seconds has 1 values, history has 4"),
        ("config.model.depth", "3", "Expected `int | null`, got `str` - at `$.config.model.depth`"),
        ("config.model.depth", None, "config.model.depth is missing; every fc has one"),
        ("config.model.width", ..., "config.model.width is missing; every fc has one"),
        ("config.data.name", 3, "Expected `str`, got `int` - at `$.config.data.name`"),
        ("config.training.seed", None, "Expected `int`, got `null` - at `$.config.training.seed`"),
        ("config.growth.arm", "max", "kind is sweep, but its settings are of grow"),
        ("cell", "other", "it is the record of other"),
        ("cell", 3, "Expected `str`, got `int` - at `$.cell`"),
    ],
)  # fmt: skip
def test_a_wrong_field_is_named_with_what_belongs_there(cli, tmp_path, path, value, message):
    """By one line, from the report too, in a file of its own and in that of a complete run."""
    kind, made = MADE["sweep"]
    content = content_of(made)
    *parents, last = path.split(".")
    place = content
    for name in parents:
        place = place[int(name) if isinstance(place, list) else name]
    if value is ...:
        del place[last]
    else:
        place[int(last) if isinstance(place, list) else last] = value

    store = written(tmp_path / "results" / "run", made, kind, content)
    store.write_run({"name": "run", "cells": [made.id], "data": {}})
    with pytest.raises(InputError) as refused:
        store.record(made.id)
    assert re.search(r"run/cells/\w+\.json: damaged record \(", str(refused.value))
    assert message in str(refused.value) and "delete it to make it again" in str(refused.value)
    done = cli("report", "results")
    assert (done.returncode, done.stderr) == (
        2,
        f"cbundles: {refused.value}; no run is left to report\n".replace(f"{tmp_path}/", ""),
    )

    store.record_path(made.id).unlink()
    store.finish(changed(made, id="before"))
    store.finish(made)
    store.seal()
    lines = (tmp_path / "results/run/records.jsonl").read_text().splitlines()
    del content["format"]
    content["origin"] = 0 if not path.startswith("origin") else 7
    lines[-1] = json.dumps(content)
    (tmp_path / "results/run/records.jsonl").write_text("\n".join(lines))
    if path != "cell" or value == 3:
        with pytest.raises(InputError, match=r"jsonl:3: damaged record .*delete that line"):
            Store(store.folder).record(made.id)


def places_in(content, path=()):
    """The path of everything inside, but for all but the first two of a list."""
    inside = content.items() if isinstance(content, dict) else enumerate(content[:2])
    for key, value in inside:
        yield (*path, key)
        if isinstance(value, dict | list):
            yield from places_in(value, (*path, key))


@pytest.mark.parametrize("earlier", [False, True])
def test_nothing_of_a_wrong_structure_gets_in_or_makes_a_traceback(tmp_path, kept, earlier):
    """Everything in a record is replaced by everything else, and left out."""
    kind, made = kept
    whole = as_first_format(made) if earlier else content_of(made)
    wrong = ["text", True, None, -1.5, [], {}, [None], [["text"]], {"text": {}}]
    refused = 0
    for path in places_in(whole):
        for value in [..., *wrong]:
            content = copy.deepcopy(whole)
            place = content
            for key in path[:-1]:
                place = place[key]
            if value is ...:
                del place[path[-1]]
            else:
                place[path[-1]] = value
            store = written(tmp_path, made, kind, content)
            try:
                found = store.record(made.id, kind)
            except InputError as error:
                refused += 1
                assert str(store.record_path(made.id, kind)) in str(error)
            else:  # then it is a record like any other, and can be kept
                assert reading.decode(reading.encode(found), "nothing", "here") == found
    assert refused > 4 * len(list(places_in(whole)))


def test_a_record_of_another_kind_is_not_what_was_asked_for(tmp_path):
    store, (_, made) = Store(tmp_path), MADE["grow"]
    store.finish(made)
    assert store.record(made.id) == made
    for sealing in (False, True):
        if sealing:
            store.seal()
        with pytest.raises(InputError, match="its kind is grow"):
            store.record(made.id, SWEEPS)


def test_a_run_of_one_kind_has_no_records_of_another(tmp_path):
    store, (_, made) = Store(tmp_path / "run"), MADE["grow"]
    store.finish(made)
    store.write_run({"name": "run", "kind": "sweep", "cells": [made.id]})
    run = runs.read(store.folder)
    with pytest.raises(InputError, match=r"of kind sweep, but its record .* is of kind grow"):
        _ = run.sweeps


def as_first_format(made):
    """A record as it was written before there were kinds: its origin among its own keys, and its
    history as a list of measurements."""
    content = content_of(made)
    del content["format"]
    content |= content.pop("origin")
    kind = content.pop("kind")
    if kind in ("grow", "tune", "toy"):
        content["experiment"] = kind
    for part in ("trained", "plain", "compared"):
        content |= content.pop(part, {})
    if kind == "toy":
        gradients = content.pop("gradients")
        content["gradient_inputs"] = gradients["inputs"]
        content["gradients"] = gradients["values"]
        content["autocorrelation"] = gradients["autocorrelation"]
    if "history" in content:
        history = made.training.history if kind == "toy" else made.history
        content["history"] = entries_of(history)
    return content


@pytest.mark.parametrize("number", [1, 2])
def test_a_record_of_an_earlier_format_says_the_same(tmp_path, kept, number):
    kind, made = kept
    content = as_first_format(made)
    if number == 1 and kind in (LESIONS, PRUNED):  # it named a file
        made = changed(made, network=f"file:{made.network}")
    if number > 1:
        content = {"format": number, **content}
    store = written(tmp_path, made, kind, content)
    assert store.record(made.id, kind) == made
    store.seal()
    assert Store(tmp_path).record(made.id, kind) == made


def test_what_the_first_records_do_not_have_is_not_invented(tmp_path):
    _, made = MADE["sweep"]
    content = as_first_format(made)
    for entry in content["history"]:
        del entry["conflict_rate"]
    for name in ("largest_entropy", "data_fingerprint"):
        del content[name]
    store = written(tmp_path, made, CELLS, content)
    found = store.record(made.id)
    assert found.history == made.history  # whose rates are not known either
    assert found.origin.data_fingerprint is None and store.is_finished(made.id, "any images")
    assert found.largest_entropy == pytest.approx(2.302585)


def test_training_that_went_on_from_an_old_checkpoint_knows_some_rates(tmp_path):
    _, made = MADE["sweep"]
    content = as_first_format(made)
    content["history"][-1]["conflict_rate"] = [0.25] * 3
    for entry in content["history"][:-1]:
        del entry["conflict_rate"]
    found = written(tmp_path, made, CELLS, content).record(made.id)
    assert found.history.conflict_rate == [[None] * 3] * 3 + [[0.25] * 3]


def test_what_was_not_finite_is_none(tmp_path):
    """Earlier versions wrote NaN and infinity, which no JSON has; this one writes null."""
    _, made = MADE["grow"]
    content = as_first_format(made)
    content["scores"][0]["sensitivities"] = [float("nan"), float("inf")]
    found = written(tmp_path, made, CELLS, content).record(made.id)
    assert found.scores[0].sensitivities == [None, None]
    scores = [changed(made.scores[0], sensitivities=[float("nan"), 1.0])]
    store = Store(tmp_path)
    store.finish(changed(made, scores=scores))
    assert store.record(made.id).scores[0].sensitivities == [None, 1.0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content.pop("num_classes"), "num_classes is missing"),
        (lambda content: content.update(history=3), "Expected `object`, got `int`"),
        (lambda content: content.update(history=[3]), "Expected `object`, got `array`"),
        (lambda content: content["history"][1].pop("entropy"), "entropy is missing in some"),
        (lambda content: content["history"][1].update(train_loss="1"), r"history.train_loss\[1\]"),
        (lambda content: content.pop("device"), "missing required field `device` - at `$.origin`"),
    ],
)
def test_a_damaged_record_of_the_first_format_is_named(tmp_path, change, message):
    _, made = MADE["sweep"]
    content = as_first_format(made)
    del content["largest_entropy"]
    change(content)
    store = written(tmp_path, made, CELLS, content)
    with pytest.raises(InputError, match=f"damaged record .*{message.replace('$', '.')}"):
        store.record(made.id)


def test_a_setting_of_a_newer_version_is_named_with_its_place(tmp_path):
    _, made = MADE["sweep"]
    content = content_of(made)
    content["config"]["model"]["later"] = 3
    store = written(tmp_path, made, CELLS, content)
    with pytest.raises(InputError, match=r"\.json: model.later = 3: not a setting of this version"):
        store.record(made.id)


def test_settings_of_a_record_by_their_paths():
    _, made = MADE["sweep"]
    assert made.settings_by_path["training.learning_rate"] == 1e-3
    assert (made.dataset, made.family, made.depth, made.width) == ("mnist_mini", "fc", 3, 4)
    assert (made.seed, made.epochs, made.epochs_trained) == (0, 3, 3)


def test_records_are_not_changed_by_accident():
    _, made = MADE["sweep"]
    with pytest.raises(AttributeError):
        made.flops = 3
    assert msgspec.structs.replace(made, flops=3).flops == 3
