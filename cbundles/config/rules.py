"""What a configuration must not say, and the answer to each mistake.

First single values against the bounds of their setting (`valid_value`), then the settings of one
cell against one another (`valid_cell`), then whole sections that have no effect in any cell
(`reject_settings_without_effect`). Every message names the place, the value and, where there is
one, the nearest valid choice.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import typing
import unicodedata
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from cbundles import bits, criterion, early_steps, identity, readings
from cbundles.config.schema import (
    AS_COMPUTED,
    FLOAT32,
    FOLDER_PREFIX,
    NO_EDITS,
    OF_BUILD,
    OWN,
    PAPER_BLOCKS,
    SECTIONS,
    SIZES_OF_OWN,
    SMALLEST,
    Cell,
    layers_with,
    own_pipeline,
    parse_blocks,
)
from cbundles.errors import InputError, did_you_mean, quoted

Section = dict[str, Any]  # key -> value

CHARACTERS = "must be text without control characters, in UTF-8"
LARGEST_WHOLE = 2**31 - 1  # where a setting names no bound: what a step counter can hold

# Blocks that nothing can be inserted between: why not, and the nearest block that allows it.
NEVER_UNCHANGED = {
    "plain-tanh": ("tanh of a layer's output is not that output", "plain-relu"),
    "plain-gelu": ("gelu of a layer's output is not that output", "plain-relu"),
    "plain-leaky_relu": ("leaky_relu of a layer's output is not that output", "plain-relu"),
    "residual1-relu": (
        "with zero weights its gradient is zero: relu'(0) = 0, no position is scored",
        "residual1-tanh",
    ),
    "residual1-leaky_relu": (
        "with zero weights it stands where leaky_relu has a kink, no position is scored",
        "residual1-tanh",
    ),
}


@dataclass(frozen=True)
class Origins:
    """Knows which file or flag a key path came from, so that a message can say so."""

    file: str
    places: Mapping[str, str]  # key path -> the file, or the file with the flag

    def place_of(self, path: str) -> str:
        """Where a key path was given, and the path."""
        return f"{self.places.get(path, self.file)}: {path}"

    def error(self, path: str, value: object, problem: str) -> InputError:
        return InputError(f"{self.place_of(path)} = {quoted(value)}: {problem}")


def reject_unknown_keys(
    given: Section, valid: Collection[str], prefix: str, origins: Origins
) -> None:
    for key, value in given.items():
        if key not in valid:
            path = f"{prefix}{key}"
            problem = f"unknown key; {_right_place(key, path) or did_you_mean(key, valid)}"
            raise origins.error(path, value, problem)


def _right_place(key: str, path: str) -> str | None:
    """Where a setting belongs that was given without its section, or in another one."""
    homes = [
        f"{name}.{key}"
        for name, section in SECTIONS.items()
        if key in {field.name for field in dataclasses.fields(section)}
    ]
    if path in homes:  # it is known, and yet nobody may give it here
        return "it is made of model.build; leave it out"
    return f"did you mean {' or '.join(homes)}?" if homes else None


def valid_value(
    value: Any, annotation: Any, bounds: Mapping[str, Any], path: str, origins: Origins
) -> Any:
    """The value in the setting's own type, or an InputError with the nearest valid choice.

    annotation: the type of the setting, such as ``float`` or ``int | str``
    bounds: the metadata of the setting, see `schema.setting`
    """
    word = bounds["word"]
    if word is not None and value == word:
        return value
    value = _in_type(value, annotation, word, path, origins)
    if isinstance(value, str):
        _check_characters(value, path, origins)
        _check_choice(value, bounds, path, origins)
    else:
        _check_bounds(value, bounds, path, origins)
    return value


def valid_set(value: Any, set_of: Callable[[Any], str], path: str, origins: Origins) -> str:
    """A set of names or numbers as one text. set_of: see `schema.setting`."""
    try:
        return set_of(value)
    except ValueError as error:
        raise origins.error(path, value, str(error)) from None


def _in_type(value: Any, annotation: Any, word: str | None, path: str, origins: Origins) -> Any:
    kind = next(iter(typing.get_args(annotation)), annotation)  # of a union its first member
    if kind is float and isinstance(value, str):
        value = _number_from_text(value)  # YAML reads 1e-3 (no dot) as text
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = _number_from_whole(value)
    if kind is float and isinstance(value, float):
        value += 0.0  # -0.0 is 0.0: one network, one identity
    if type(value) is not kind:  # not isinstance: True is no number
        expected = {int: "a whole number", float: "a number", str: "text"}[kind]
        if word is not None:
            expected += f" or {word}"
        raise origins.error(path, value, f"must be {expected}")
    return value


def _number_from_text(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def _number_from_whole(number: int) -> float:
    try:
        return float(number)
    except OverflowError:
        return math.inf if number > 0 else -math.inf


def _check_characters(value: str, path: str, origins: Origins) -> None:
    """A text ends in names of files and in tables."""
    if not can_be_written(value):
        raise origins.error(path, value, CHARACTERS)


def can_be_written(text: str) -> bool:
    """Whether a text has neither control characters nor halves of a character (surrogates, which
    also stand for bytes that are not UTF-8)."""
    return not any(unicodedata.category(character) in ("Cc", "Cs") for character in text)


def _check_choice(value: str, bounds: Mapping[str, Any], path: str, origins: Origins) -> None:
    choices, prefix = bounds["choices"], bounds["prefix"]
    if not choices or value in choices:
        return
    if prefix is None:
        raise origins.error(path, value, did_you_mean(value, choices))
    if not value.startswith(prefix):
        raise origins.error(path, value, did_you_mean(value, [*choices, f"{prefix}PATH"]))


def _check_bounds(value: float, bounds: Mapping[str, Any], path: str, origins: Origins) -> None:
    if isinstance(value, float) and not math.isfinite(value):
        raise origins.error(path, value, "must be finite")
    low, high, above = bounds["low"], bounds["high"], bounds["above"]
    if high is None and isinstance(value, int):
        high = LARGEST_WHOLE
    if above is not None and value <= above:
        raise origins.error(path, value, f"must be greater than {above}")
    if low is not None and value < low:
        raise origins.error(path, value, f"must be at least {low}; nearest valid: {low}")
    if high is not None and value > high:
        raise origins.error(path, value, f"must be at most {high}; nearest valid: {high}")


def valid_cell(sections: dict[str, Section], origins: Origins) -> Cell:
    """The cell of these settings, every one of which is given and valid by itself.

    What has no effect is left out, so that two cells which differ in it are one: it gets its first
    value, whatever the schema's default is.
    """
    _check_images(sections["data"], origins)
    _settle_model(sections["model"], origins)
    _settle_number_formats(sections, origins)
    _check_what_only_sweeps_measure(sections, origins)
    _check_readings(sections, origins)
    _check_headroom(sections, origins)
    _check_peers(sections, origins)
    _leave_out_what_has_no_effect(sections)
    _settle_edits(sections, origins)
    made = {
        name: _section_of(SECTIONS[name], name, tuple(keys), tuple(keys.values()))
        for name, keys in sections.items()
    }
    return Cell(**made)


@functools.cache
def _section_of(kind: type, name: str, keys: tuple[str, ...], values: tuple[Any, ...]) -> Any:
    """The section that these settings make, with the first values of those that are missing. Most
    sections of a grid are the same in many cells: making each once halves the time of a plan."""
    return kind(**{**identity.FIRST_VALUES[name], **dict(zip(keys, values, strict=True))})


def _leave_out_what_has_no_effect(sections: dict[str, Section]) -> None:
    data, probe, training = sections["data"], sections["probe"], sections["training"]
    for key in _settings_of_reading_without_effect(sections):
        probe.pop(key)
    if training["stop_conflicting"] == criterion.OFF:
        training.pop("stop_conflicting")
        training.pop("conflict_checks")
    if data["pipeline"] == own_pipeline(data["name"]):
        data.pop("pipeline")
    probe.pop("resolution" if probe["equality"] == "gamma" else "gamma")
    if probe["samples"] == "all":
        probe.pop("selection")
        if probe["images"] == "plain":
            probe.pop("seed")


def _settings_of_reading_without_effect(sections: dict[str, Section]) -> set[str]:
    """Those of the run's own reading that its networks have nothing for."""
    if sections["growth"]["arm"] != "none":
        return {"last", "amplitude", "batch_norm"}  # no bundles are measured
    without = set()
    if sections["model"]["family"] == "fc":
        without |= {"last", "batch_norm"}
    if sections["model"]["family"] == OWN:
        without |= {"last", "amplitude"}
    if sections["probe"]["equality"] == "gamma":
        without.add("amplitude")
    return without


def _check_images(data: Section, origins: Origins) -> None:
    size = data["image_size"]
    if size is not None and not data["name"].startswith(FOLDER_PREFIX):
        problem = f"images of {data['name']} have one size; only those of folders are scaled"
        raise origins.error("data.image_size", size, problem)


def _check_what_only_sweeps_measure(sections: dict[str, Section], origins: Origins) -> None:
    """Refuse further readings, early steps, headroom and peers where the depth changes: nobody
    would take them."""
    probe = sections["probe"]
    if sections["growth"]["arm"] == "none" and sections["tuning"]["arm"] == "none":
        return
    if probe["readings"] != readings.NONE:
        problem = "networks that change their depth have no further readings; nearest valid: none"
        raise origins.error("probe.readings", probe["readings"], problem)
    if probe["steps"] != early_steps.NONE:
        problem = "networks that change their depth are measured after epochs; nearest valid: none"
        raise origins.error("probe.steps", probe["steps"], problem)
    if probe["headroom"] != bits.OFF:
        problem = f"is not measured while networks change their depth; nearest valid: {bits.OFF}"
        raise origins.error("probe.headroom", probe["headroom"], problem)
    if probe["peers"] == "on":
        problem = "are not measured while networks change their depth; nearest valid: off"
        raise origins.error("probe.peers", probe["peers"], problem)


def _check_readings(sections: dict[str, Section], origins: Origins) -> None:
    probe = sections["probe"]
    names = probe["readings"]
    if names == readings.NONE:
        return
    impossible = readings.why_impossible(names, sections["model"]["family"], probe["equality"])
    if impossible is not None:
        raise origins.error("probe.readings", names, impossible)


def _check_headroom(sections: dict[str, Section], origins: Origins) -> None:
    """Also the lowest learning rate at which layers are looked at has to be a number."""
    rate, lowest = sections["training"]["learning_rate"], SMALLEST * 2**bits.HIGHEST
    if sections["probe"]["headroom"] != bits.OFF and rate < lowest:
        problem = f"probe.headroom looks {bits.HIGHEST:g} bits below it; nearest valid: {lowest}"
        raise origins.error("training.learning_rate", rate, problem)


def _check_peers(sections: dict[str, Section], origins: Origins) -> None:
    probe, family = sections["probe"], sections["model"]["family"]
    if probe["peers"] == "on" and family != "fc":
        others = "a user's architecture" if family == OWN else f"a {family}"
        problem = f"are measured of fully connected networks, not of {others}; nearest valid: off"
        raise origins.error("probe.peers", probe["peers"], problem)


def _settle_model(model: Section, origins: Origins) -> None:
    """Check what a family needs, and leave out what it has no use for."""
    if model["family"] == "fc":
        for key in ("depth", "width"):
            if model[key] is None:
                why = _model_settings()[key].metadata["why"]
                raise InputError(f"{origins.file}: model.{key}: missing; {why}")
        _reject_and_drop(model, ("blocks", "base_filters"), origins)
        model["block"] = _block_with_activation(model["block"], model.pop("activation"))
        return
    if model["family"] == OWN:
        _settle_architecture(model, origins)
        return
    if model["blocks"] is None and model["depth"] is None:
        raise InputError(f"{origins.file}: model.depth: missing; or model.blocks = 3,6,12,3")
    _reject_and_drop(model, ("width", "block", "activation", "normalisation"), origins)
    _settle_depth_and_blocks(model, origins)


def _settle_architecture(model: Section, origins: Origins) -> None:
    """Of a user's architecture: put all keywords but the sizes together, as the one text that a
    cell has for them."""
    if model.get("build") is None:
        problem = "missing; PACKAGE.MODULE:FUNCTION, which returns a Flax module"
        raise InputError(f"{origins.place_of('model.build')}: {problem}")
    names = [name for name in model if name not in ("family", *OF_BUILD, *SIZES_OF_OWN)]
    keywords = {name: model.pop(name) for name in names}
    model["keywords"] = json.dumps(keywords, sort_keys=True)


def _block_with_activation(block: str, activation: str | None) -> str:
    """``plain-gelu``: the one name that a cell has for both, whichever way they were written. That
    a block names another function than the activation, `reject_settings_without_effect` says."""
    kind, _, function = block.partition("-")
    return f"{kind}-{activation or function or 'relu'}"


def _settle_number_formats(sections: dict[str, Section], origins: Origins) -> None:
    """Refuse formats that a network cannot be trained in; storage in the format of the arithmetic
    is no rounding at all."""
    training, family = sections["training"], sections["model"]["family"]
    if training["precision"] != FLOAT32 and family != "fc":
        problem = f"only fc is trained in it, not {family}; nearest valid: {FLOAT32}"
        raise origins.error("training.precision", training["precision"], problem)
    if training["storage"] == training["precision"]:
        training["storage"] = AS_COMPUTED


def _reject_and_drop(model: Section, keys: tuple[str, ...], origins: Origins) -> None:
    """Drop settings without use for the family; InputError where one was given another value than
    its default."""
    for key in keys:
        if model[key] != _model_settings()[key].default:
            problem = f"has no effect for model.family = {model['family']}"
            raise origins.error(f"model.{key}", model[key], problem)
        del model[key]


def _model_settings() -> dict[str, dataclasses.Field[Any]]:
    return _fields_of(SECTIONS["model"])


@functools.cache
def _fields_of(section: type) -> dict[str, dataclasses.Field[Any]]:
    return {field.name: field for field in dataclasses.fields(section)}


def _settle_depth_and_blocks(model: Section, origins: Origins) -> None:
    """Of a VGG or ResNet: each follows from the other, and both must agree where both are given."""
    if model["blocks"] is None:
        if model["depth"] not in PAPER_BLOCKS:
            nearest = min(PAPER_BLOCKS, key=lambda depth: abs(depth - model["depth"]))
            problem = f"has no blocks in the paper; nearest valid: {nearest}, or give model.blocks"
            raise origins.error("model.depth", model["depth"], problem)
        model["blocks"] = ",".join(map(str, PAPER_BLOCKS[model["depth"]]))
    try:
        blocks = parse_blocks(model["blocks"])
    except ValueError as error:
        raise origins.error("model.blocks", model["blocks"], str(error)) from None
    model["blocks"] = ",".join(map(str, blocks))  # without the spaces that were typed
    depth = layers_with(blocks)
    if model["depth"] not in (None, depth):
        made = f"model.blocks = {model['blocks']} makes {depth} layers"
        raise origins.error("model.depth", model["depth"], f"but {made}; leave one of them out")
    model["depth"] = depth


def _settle_edits(sections: dict[str, Section], origins: Origins) -> None:
    """Check the sections of networks that change their depth, and empty those of others."""
    growth, tuning, model = sections["growth"], sections["tuning"], sections["model"]
    training = sections["training"]
    for section in (growth, tuning):
        if section["arm"] == "none":
            section.clear()
    if growth and tuning:
        raise origins.error("tuning.arm", tuning["arm"], "leave out growth, or tuning")
    if not growth and not tuning:
        return
    if model["family"] == OWN:
        raise origins.error("model.build", model["build"], NO_EDITS)
    if "stop_conflicting" in training:
        problem = "has no effect on networks that change their depth; nearest valid: off"
        raise origins.error("training.stop_conflicting", training["stop_conflicting"], problem)
    _check_number_formats_of_edited(training, origins)
    if model["family"] == "fc":
        _check_insertable(model, origins)
    if growth:
        _check_growth(growth, model, training["epochs"], origins)
    else:
        _settle_tuning(tuning, model, origins)


def _check_number_formats_of_edited(training: Section, origins: Origins) -> None:
    for key, usual in (("precision", FLOAT32), ("storage", AS_COMPUTED)):
        if training[key] != usual:
            problem = f"networks that change their depth have no other; nearest valid: {usual}"
            raise origins.error(f"training.{key}", training[key], problem)


def _check_insertable(model: Section, origins: Origins) -> None:
    """A layer that is inserted into a fully connected network must be able to be the identity."""
    if model["normalisation"] != "none":
        problem = "no layer can be inserted without changing it: it would be standardised"
        nearest = "nearest valid: none"
        raise origins.error("model.normalisation", model["normalisation"], f"{problem}; {nearest}")
    if model["block"] in NEVER_UNCHANGED:
        reason, nearest = NEVER_UNCHANGED[model["block"]]
        problem = f"no layer can be inserted without changing it: {reason}"
        raise origins.error("model.block", model["block"], f"{problem}; nearest valid: {nearest}")


def _check_growth(growth: Section, model: Section, epochs: int, origins: Origins) -> None:
    last = growth["first_epoch"] + (growth["insertions"] - 1) * growth["every"]
    if growth["threshold"] == 0 and last >= epochs:
        problem = f"the last insertion, after epoch {last}, must come before the end"
        raise origins.error("training.epochs", epochs, f"{problem}; nearest valid: {last + 1}")
    if model["family"] != "fc" and growth["arm"] in ("matched", "large"):
        problem = "no ordinary vgg or resnet has an inserted layer; nearest valid: 'small'"
        raise origins.error("growth.arm", growth["arm"], problem)
    if growth["threshold"] > 0 and growth["first_epoch"] >= epochs:
        problem = f"nothing is inserted in {epochs} epochs; nearest valid: {max(1, epochs - 1)}"
        if epochs == 1:
            problem = "nothing is inserted; nearest valid: 2"
            raise origins.error("training.epochs", epochs, problem)
        raise origins.error("growth.first_epoch", growth["first_epoch"], problem)
    if growth["backtrack"]:
        _check_backtrack(growth, last, epochs, origins)
    if growth["arm"] == "large" and growth["large_depth"] is None:
        raise origins.error("growth.large_depth", None, "missing; layers of the arm large")
    if growth["large_depth"] is not None and growth["large_depth"] <= (model["depth"] or 0):
        problem = f"must be more than the small network's; nearest valid: {model['depth'] + 1}"
        raise origins.error("growth.large_depth", growth["large_depth"], problem)
    if growth["zero"] == "inner" and model.get("block") != "residual2-tanh":
        problem = (
            "inner weights of zero need model.block = residual2-tanh: with relu, or without two "
            "weights, no position is scored; nearest valid: 'outer'"
        )
        raise origins.error("growth.zero", "inner", problem)


def _check_backtrack(growth: Section, last: int, epochs: int, origins: Origins) -> None:
    """Every insertion must be judged before the next one, and before the end."""
    wait = growth["backtrack"]
    if growth["insertions"] > 1 and growth["every"] < wait:
        problem = f"an insertion is judged {wait} epochs later (backtrack); nearest valid: {wait}"
        raise origins.error("growth.every", growth["every"], problem)
    if growth["threshold"] == 0 and last + wait > epochs:
        problem = f"the last insertion, after epoch {last}, is judged after {last + wait}"
        raise origins.error("training.epochs", epochs, f"{problem}; nearest valid: {last + wait}")


def _settle_tuning(tuning: Section, model: Section, origins: Origins) -> None:
    """Check the section, and give `max_depth` its value where none was given."""
    if model["family"] != "fc":
        problem = "tune takes fully connected networks: fc"
        raise origins.error("model.family", model["family"], problem)
    if model["block"] != "plain-relu":
        problem = "tune takes plain fc networks: plain-relu"
        raise origins.error("model.block", model["block"], problem)
    if tuning["budget_depth"] is None:
        raise origins.error("tuning.budget_depth", None, "missing; the depth whose compute all get")
    if tuning["max_depth"] is None:
        tuning["max_depth"] = 2 * max(tuning["budget_depth"], model["depth"])
    if tuning["min_depth"] > model["depth"]:
        problem = f"the network starts with fewer; nearest valid: {model['depth']}"
        raise origins.error("tuning.min_depth", tuning["min_depth"], problem)
    if tuning["max_depth"] < tuning["min_depth"]:
        problem = f"less than tuning.min_depth; nearest valid: {tuning['min_depth']}"
        raise origins.error("tuning.max_depth", tuning["max_depth"], problem)
    if tuning["max_depth"] < model["depth"]:
        problem = f"the network starts with more; nearest valid: {model['depth']}"
        raise origins.error("tuning.max_depth", tuning["max_depth"], problem)


def reject_settings_without_effect(
    content: Mapping[str, Any], cells: Collection[Cell], origins: Origins
) -> None:
    """A setting that was written down and has no effect in any cell is a misunderstanding."""
    _check_probe(content.get("probe") or {}, {cell.probe.equality for cell in cells}, origins)
    _check_reading(content.get("probe") or {}, cells, origins)
    training = content.get("training") or {}
    if "conflict_checks" in training and not any(cell.training.checks for cell in cells):
        problem = (
            "has no effect while training.stop_conflicting is off; nearest valid: entropy, or "
            "conflict_rate"
        )
        raise origins.error("training.conflict_checks", training["conflict_checks"], problem)
    model = content.get("model") or {}
    if model.get("build") is None:  # or these are keywords of a user's, which may have these names
        _check_activation(model, origins)
    for section in ("growth", "tuning"):
        given = content.get(section) or {}
        if any(getattr(cell, section).arm != "none" for cell in cells):
            continue
        for key, value in given.items():
            if key != "arm":
                problem = f"has no effect without {section}.arm"
                if any(cell.model.is_own for cell in cells):
                    problem = f"has no effect with model.build: {NO_EDITS}"
                raise origins.error(f"{section}.{key}", value, problem)


def _check_reading(probe: Section, cells: Collection[Cell], origins: Origins) -> None:
    for key in ("last", "amplitude"):
        if key in probe and all(cell.model.is_own for cell in cells):
            problem = "has no effect with model.build: its last layer counts, beside all weights"
            raise origins.error(f"probe.{key}", probe[key], problem)
    for key in ("last", "batch_norm"):
        if key in probe and all(cell.model.family == "fc" for cell in cells):
            problem = "has no effect for model.family = fc"
            raise origins.error(f"probe.{key}", probe[key], problem)
    if "amplitude" in probe and all(cell.probe.equality == "gamma" for cell in cells):
        problem = "has no effect unless probe.equality is weight_amplitude"
        raise origins.error("probe.amplitude", probe["amplitude"], problem)


def _check_activation(model: Section, origins: Origins) -> None:
    """A function that is named twice is one too many."""
    blocks = model.get("block", [])
    naming = [block for block in (blocks if isinstance(blocks, list) else [blocks]) if "-" in block]
    if naming and model.get("activation") is not None:
        kind = naming[0].partition("-")[0]
        problem = f"model.block = {naming[0]} names one already; write model.block = {kind}"
        raise origins.error("model.activation", model["activation"], problem)


def _check_probe(probe: Section, equalities: set[str], origins: Origins) -> None:
    for key, wanted in (("gamma", "gamma"), ("resolution", "weight_amplitude")):
        if key in probe and wanted not in equalities:
            problem = f"has no effect unless probe.equality is {wanted}"
            raise origins.error(f"probe.{key}", probe[key], problem)
    samples = probe.get("samples")
    if "gamma" in equalities and "all" in (samples if isinstance(samples, list) else [samples]):
        problem = (
            "the whole training set is measured in batches, but probe.equality = gamma compares "
            "all samples with one another; nearest valid: a number"
        )
        raise origins.error("probe.samples", samples, problem)
