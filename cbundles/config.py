"""Experiments as data: the schema, YAML files, overrides, grids and the identity of a cell.

A configuration file describes a grid. Every field below may be given as a list and then becomes an
axis; a *cell* is one point of the grid, that is, one network trained once. The identity of a cell
is a hash of everything that determines its result (`identity`), so a finished cell is recognised
for ever.

Nothing here imports JAX: a mistake is answered before anything heavy is loaded.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from cbundles import identity
from cbundles.errors import InputError, did_you_mean

DATASETS = ("mnist_mini", "spirals", "mnist", "cifar10", "svhn_cropped", "imagenette")
PIPELINES = ("mnist", "cifar10", "svhn_cropped", "imagenette", "plain")
FOLDER_PREFIX = "folder:"
BLOCKS, ACTIVATIONS = ("plain", "residual1", "residual2"), ("relu", "tanh")
# What a layer is inserted by, or the network that this is compared with.
INSERTING = ("max", "min", "first", "random")
GROWTH_ARMS = ("none", *INSERTING, "small", "matched", "large")
TUNING_ARMS = ("none", "fixed", "remove", "insert", "both", "both-random")
NEVER_UNCHANGED = {
    "plain-tanh": "tanh of a layer's output is not that output",
    "residual1-relu": "with zero weights its gradient is zero: relu'(0) = 0, no position is scored",
}


def setting(
    default: Any = dataclasses.MISSING,
    *,
    why: str,
    low: float | None = None,
    high: float | None = None,
    above: float | None = None,
    choices: tuple[str, ...] | None = None,
    or_prefix: str | None = None,
    or_word: str | None = None,
) -> Any:
    """A field of the schema: its default, its bounds, and one line that says why it is so.

    or_prefix, or_word: text that is valid besides the choices, or instead of a number.
    """
    bounds = {"low": low, "high": high, "above": above}
    text = {"choices": choices, "prefix": or_prefix, "word": or_word}
    return field(default=default, metadata={**bounds, **text, "why": why})


@dataclass(frozen=True, kw_only=True)
class Data:
    """Which images."""

    name: str = setting(
        "mnist_mini",
        choices=DATASETS,
        or_prefix=FOLDER_PREFIX,
        why="the default ships with the package; folder:PATH is any folder of images",
    )
    augmentation: str = setting(
        "original",
        choices=("original", "none"),
        why="what the original code does per data set (for MNIST: enlarge to 32, crop, brightness)",
    )
    pipeline: str = setting(
        "auto",
        choices=("auto", *PIPELINES),
        why="whose preprocessing the images get; auto: the data set's own, plain for a folder",
    )


def own_pipeline(name: str) -> str:
    """The pipeline, one of `PIPELINES`, that the original has for a data set; none for a folder."""
    if name.startswith(FOLDER_PREFIX) or name == "spirals":
        return "plain"
    return "mnist" if name == "mnist_mini" else name


@dataclass(frozen=True, kw_only=True)
class Model:
    """Which network."""

    family: str = setting(
        "fc",
        choices=("fc", "vgg", "resnet"),
        why="fully connected with ReLU (paper, sec. 3.3), or convolutional (sec. 3.4 to 3.6)",
    )
    depth: int = setting(
        None, low=1, high=10_000, why="fc: hidden layers L; vgg, resnet: 2 + 2 x blocks"
    )
    width: int = setting(None, low=1, high=100_000, why="fc: neurons in every hidden layer")
    block: str = setting(
        "plain-relu",
        choices=tuple(f"{kind}-{function}" for kind in BLOCKS for function in ACTIVATIONS),
        why="fc: hidden layers after the first: s(Wh + b), h + s(Wh + b) or h + W2 s(Wh + b)",
    )
    blocks: str = setting(
        None, why="vgg, resnet: blocks of the four stages, as 3,12,41,3; given by depth otherwise"
    )
    base_filters: int = setting(
        64, low=1, high=10_000, why="vgg, resnet: filters of the first stage, 64 in the paper"
    )


@dataclass(frozen=True, kw_only=True)
class Training:
    """How it is trained. Defaults are the paper's (sec. 3.1)."""

    epochs: int = setting(50, low=1, why="50 for fully connected networks")
    batch_size: int = setting(64, low=1, why="also sets the resolution of the metric (eq. 1)")
    learning_rate: float = setting(1e-3, above=0.0, high=10.0, why="RAdam's step")
    weight_decay: float = setting(1e-2, low=0.0, high=10.0, why="decoupled, times learning rate")
    seed: int = setting(0, low=0, high=2**32 - 1, why="initial weights, order, augmentation")
    accuracy_epochs: int = setting(
        5, low=1, why="the paper averages the last 5 epochs; the original code averages 4"
    )
    conflict_checks: int = setting(
        0, low=0, why="stop when the last layer conflicts after one of so many epochs; 0: never"
    )


@dataclass(frozen=True, kw_only=True)
class Probe:
    """On which examples bundles are measured."""

    samples: int | str = setting(
        2048,
        low=1,
        or_word="all",
        why="the paper's |B|; the original command line uses 64; all: the whole training set",
    )
    selection: str = setting(
        "uniform",
        choices=("uniform", "first"),
        why="a uniform draw, as the paper says; the original takes the first of a short buffer",
    )
    images: str = setting(
        "plain",
        choices=("plain", "augmented"),
        why="un-augmented, as the original's evaluation; its auto-tuning uses augmented ones",
    )
    seed: int = setting(0, low=0, high=2**32 - 1, why="one probe set for all cells of a run")
    equality: str = setting(
        "weight_amplitude",
        choices=("weight_amplitude", "gamma"),
        why="what a weight update can tell apart, as in the original code; gamma: eq. 1 literally",
    )
    gamma: float = setting(1e-8, low=0.0, high=1.0, why="the tolerance of eq. 1")
    resolution: str = setting(
        "float32",
        choices=("float32", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2"),
        why="the format that updated weights are rounded to; sec. 5 asks about coarser ones",
    )

    batch_norm: str = setting(
        "batch",
        choices=("batch", "running"),
        why="vgg, resnet: by the statistics of the probe set, or running ones (ARCHITECTURE.md)",
    )

    def count(self, available: int) -> int:
        """How many samples that is, of so many training images."""
        return available if isinstance(self.samples, str) else self.samples


@dataclass(frozen=True, kw_only=True)
class Growth:
    """Inserting layers while training (the third work), and what that is compared with."""

    arm: str = setting(
        "none",
        choices=GROWTH_ARMS,
        why="position by sensitivity (max), controls min, first, random; or no insertion: small "
        "(the start), matched (its final depth from the start), large (large_depth)",
    )
    first_epoch: int = setting(100, low=1, why="after this epoch the first layer is inserted")
    every: int = setting(100, low=1, why="epochs from one insertion, or check, to the next")
    insertions: int = setting(1, low=1, high=1000, why="at most so many layers are inserted")
    threshold: float = setting(
        0.0,
        low=0.0,
        high=1e6,
        why="insert only when the largest sensitivity exceeds this many times the mean of the "
        "existing layers'; 0: always, at fixed epochs",
    )
    large_depth: int = setting(None, low=1, high=10_000, why="layers of the arm large")
    learning_rate_factor: float = setting(
        1.0, above=0.0, high=100.0, why="times the learning rate, at each insertion"
    )
    scale: str = setting(
        "none", choices=("none", "size"), why="size: sensitivity per number of weights"
    )
    zero: str = setting(
        "outer", choices=("outer", "inner"), why="residual2: which weights of a new block are zero"
    )
    backtrack: int = setting(
        0, low=0, why="undo an insertion when the loss is no lower so many epochs later; 0: never"
    )


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """Removing and inserting layers while training, from a depth that may be wrong."""

    arm: str = setting(
        "none",
        choices=TUNING_ARMS,
        why="which edits are allowed; both-random inserts at a random position",
    )
    budget_depth: int = setting(
        None, low=1, high=10_000, why="compute of every arm: training.epochs at this depth"
    )
    every: int = setting(10, low=1, why="epochs from one check to the next")
    trial: int = setting(10, low=1, why="epochs after which an edit must have lowered the loss")
    cooldown: int = setting(10, low=0, why="epochs without edits after one was judged")
    memory: int = setting(
        100, low=0, why="epochs in which an edit is neither reversed nor, undone, repeated"
    )
    threshold: float = setting(
        1.0, low=0.0, high=1e6, why="insert when max S exceeds this many times the mean of layers"
    )
    saturated: float = setting(
        0.99, above=0.0, high=1.0, why="no insertion above this accuracy on the training images"
    )
    min_depth: int = setting(1, low=1, high=10_000, why="never fewer layers")
    max_depth: int = setting(None, low=1, high=10_000, why="never more layers; twice the budget's")
    held_out: float = setting(
        0.2, above=0.0, high=0.5, why="share of the training images on which edits are judged"
    )


@dataclass(frozen=True)
class Cell:
    """One network, trained and measured once."""

    data: Data
    model: Model
    training: Training
    probe: Probe
    growth: Growth = field(default_factory=Growth)
    tuning: Tuning = field(default_factory=Tuning)

    @property
    def id(self) -> str:
        """12 hex digits that identify the result: the same for the same settings, whatever becomes
        of the schema's defaults."""
        return identity.identity(self.asdict())

    @property
    def label(self) -> str:
        """How people call it: its shape and seed, and whatever else is unusual, but for how a
        network is edited while it is trained."""
        m = self.model
        size = f"width={m.width}" if m.family == "fc" else f"filters={m.base_filters}"
        label = f"{m.family} {size} depth={m.depth} seed={self.training.seed}"
        for path, value in self.unusual.items():
            section, key = path.split(".")
            if section not in ("growth", "tuning") or key == "arm":
                label += f" {key}={value}"
        return label

    @property
    def unusual(self) -> dict[str, Any]:
        """Key paths and values of what differs from the first values (`identity`), besides data
        set, epochs, seed and the size of the network; blocks that are not the paper's for this
        depth. The names of groups and captions come from here, so they last as identities do."""
        differing = identity.differences(self.asdict())
        usual = ("data.name", "training.epochs", "training.seed")
        found = {
            path: value
            for path, value in differing.items()
            if path not in usual and not path.startswith("model.")
        }
        if "model.block" in differing:
            found["model.block"] = self.model.block
        if self.model.family != "fc" and self.blocks != PAPER_BLOCKS.get(self.model.depth):
            found["model.blocks"] = self.model.blocks
        return found

    @property
    def blocks(self) -> tuple[int, int, int, int]:
        """Of a VGG or ResNet, in each of its stages."""
        return parse_blocks(self.model.blocks)

    def asdict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def fromdict(cls, content: identity.Settings) -> Cell:
        """From what `asdict` returned, perhaps in a version that had fewer settings."""
        whole = identity.completed(content)
        return cls(**{name: kind(**whole[name]) for name, kind in SECTIONS.items()})

    @property
    def kind(self) -> str:
        """Which command it is for: TRAIN, GROW or TUNE."""
        if self.growth.arm != "none":
            return GROW
        return TUNE if self.tuning.arm != "none" else TRAIN


# Blocks of the depths that the paper names (sec. 3.1).
PAPER_BLOCKS = {
    4: (1, 0, 0, 0),
    10: (1, 1, 1, 1),
    20: (2, 2, 3, 2),
    30: (3, 3, 5, 3),
    50: (3, 6, 12, 3),
    76: (3, 6, 25, 3),
    100: (3, 12, 31, 3),
    120: (3, 12, 41, 3),
}
STAGES = 4


def layers_of_block(block: int) -> tuple[int, int]:
    """The numbers of the two layers in a block of a VGG or ResNet, all counted from 1 as in the
    paper: the stem is layer 1, blocks of two convolutions follow."""
    return 2 * block, 2 * block + 1


TRAIN, GROW, TUNE = "train", "grow", "tune"
SECTIONS: dict[str, type] = {
    "data": Data, "model": Model, "training": Training, "probe": Probe, "growth": Growth,
    "tuning": Tuning,
}  # fmt: skip


@dataclass(frozen=True)
class Experiment:
    """A named grid of cells. `grid` holds the resolved fields, lists where they are axes."""

    name: str
    cells: tuple[Cell, ...]
    grid: dict[str, Any]


def load(path: Path, overrides: list[str]) -> Experiment:
    """Read a YAML file, apply ``key.path=value`` overrides, validate, and expand the grid."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        nearby = sorted(str(p) for p in path.parent.glob("*.yaml")) if path.parent.is_dir() else []
        hint = f"; {did_you_mean(path, nearby)}" if nearby else ""
        raise InputError(f"{path}: no such file{hint}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read: {error}") from None
    content = parse_yaml(text, str(path))
    if not isinstance(content, dict):
        raise InputError(f"{path}: expected sections ({', '.join(SECTIONS)}), found {content!r}")
    return override(content, overrides, default_name=path.stem, file=str(path))


def override(
    content: dict[str, Any], overrides: list[str], *, default_name: str, file: str
) -> Experiment:
    """Apply ``key.path=value`` overrides to a nested mapping, then `build` it. file: its name."""
    origin = dict.fromkeys(_key_paths(content), file)
    for given in overrides:
        place = f"{file} with --set {given}"
        for key_path in _prefixes(_apply(content, given)):
            origin[key_path] = place
    return build(content, default_name=default_name, origin=origin, file=file)


def build(
    content: dict[str, Any],
    *,
    default_name: str,
    origin: dict[str, str] | None = None,
    file: str = "config",
) -> Experiment:
    """Validate a nested mapping and expand it. `origin` tells where each key path came from."""
    where = _Where(file, origin or {})
    _reject_unknown(content, {"name", *SECTIONS}, "", where)
    name = content.get("name", default_name)
    if not isinstance(name, str) or not name or "/" in name or name.startswith("."):
        raise where.error("name", name, "must be a plain name that can be a folder")

    axes: dict[str, list[Any]] = {}
    grid: dict[str, Any] = {"name": name}
    for section, kind in SECTIONS.items():
        given = content.get(section)
        given = {} if given is None else given
        if not isinstance(given, dict):
            raise where.error(section, given, "must be a section with keys")
        types_ = typing.get_type_hints(kind)
        fields = {f.name: f for f in dataclasses.fields(kind)}
        _reject_unknown(given, set(fields), f"{section}.", where)
        grid[section] = {}
        for key, spec in fields.items():
            path = f"{section}.{key}"
            value = given.get(key, spec.default)
            values = value if isinstance(value, list) else [value]
            if not values:
                raise where.error(path, value, "an axis needs at least one value")
            checked = [
                None
                if v is None and spec.default is None
                else _checked(v, types_[key], spec.metadata, path, where)
                for v in values
            ]
            if len(set(checked)) < len(checked):
                raise where.error(path, value, "an axis must not repeat a value")
            axes[path] = checked
            grid[section][key] = checked if isinstance(value, list) else checked[0]

    points = itertools.product(*axes.values())
    cells = tuple(
        dict.fromkeys(_cell(dict(zip(axes, point, strict=True)), where) for point in points)
    )
    _reject_useless(content.get("probe") or {}, {c.probe.equality for c in cells}, where)
    for section in ("growth", "tuning"):
        given = content.get(section)
        if given and all(getattr(cell, section).arm == "none" for cell in cells):
            for key in (key for key in given if key != "arm"):
                problem = f"has no effect without {section}.arm"
                raise where.error(f"{section}.{key}", given[key], problem)
    return Experiment(name=name, cells=cells, grid=grid)


def _reject_useless(probe: dict[str, Any], equalities: set[str], where: _Where) -> None:
    """A setting without effect is a misunderstanding; streaming cannot compare with leaders."""
    for key, wanted in (("gamma", "gamma"), ("resolution", "weight_amplitude")):
        if key in probe and wanted not in equalities:
            problem = f"has no effect unless probe.equality is {wanted}"
            raise where.error(f"probe.{key}", probe[key], problem)
    samples = probe.get("samples")
    if "gamma" in equalities and "all" in (samples if isinstance(samples, list) else [samples]):
        problem = (
            "the whole training set is measured in batches, but probe.equality = gamma compares "
        )
        problem += "all samples with one another; nearest valid: a number"
        raise where.error("probe.samples", samples, problem)


def _model(model: dict[str, Any], where: _Where) -> None:
    """Check what a family needs, and leave out what it has no use for."""
    family = model["family"]
    needed: tuple[str, ...] = ("depth", "width")
    useless: tuple[str, ...] = ("blocks", "base_filters")
    if family != "fc":
        needed, useless = (), ("width", "block")
        if model["blocks"] is None and model["depth"] is None:
            raise InputError(f"{where.file}: model.depth: missing; or model.blocks = 3,6,12,3")
    defaults = {f.name: f.default for f in dataclasses.fields(Model)}
    for key in needed:
        if model[key] is None:
            why = Model.__dataclass_fields__[key].metadata["why"]
            raise InputError(f"{where.file}: model.{key}: missing; {why}")
    for key in useless:
        if model[key] != defaults[key]:
            problem = f"has no effect for model.family = {family}"
            raise where.error(f"model.{key}", model[key], problem)
        del model[key]
    if family == "fc":
        return
    if model["blocks"] is None:
        if model["depth"] not in PAPER_BLOCKS:
            nearest = min(PAPER_BLOCKS, key=lambda depth: abs(depth - model["depth"]))
            problem = f"has no blocks in the paper; nearest valid: {nearest}, or give model.blocks"
            raise where.error("model.depth", model["depth"], problem)
        model["blocks"] = ",".join(map(str, PAPER_BLOCKS[model["depth"]]))
    try:
        blocks = parse_blocks(model["blocks"])
    except ValueError as error:
        raise where.error("model.blocks", model["blocks"], str(error)) from None
    model["blocks"] = ",".join(map(str, blocks))
    depth = 2 + 2 * sum(blocks)
    if model["depth"] not in (None, depth):
        problem = (
            f"but model.blocks = {model['blocks']} makes {depth} layers; leave one of them out"
        )
        raise where.error("model.depth", model["depth"], problem)
    model["depth"] = depth


def parse_blocks(text: str) -> tuple[int, int, int, int]:
    """``3,12,41,3`` as numbers; ValueError says what is wrong."""
    parts = text.split(",")
    if len(parts) != STAGES or not all(part.strip().isdecimal() for part in parts):
        raise ValueError(f"must be {STAGES} whole numbers with commas, such as 3,12,41,3")
    first, second, third, fourth = map(int, parts)
    if not 1 <= first + second + third + fourth <= 5_000:
        raise ValueError("must be 1 to 5000 blocks in all")
    return first, second, third, fourth


def _cell(point: dict[str, Any], where: _Where) -> Cell:
    sections: dict[str, dict[str, Any]] = {name: {} for name in SECTIONS}
    for path, value in point.items():
        section, key = path.split(".")
        sections[section][key] = value
    # What has no effect is left out, so that two cells which differ in it are one: `fromdict` gives
    # it its first value, whatever the schema's default is.
    _model(sections["model"], where)
    data, probe = sections["data"], sections["probe"]
    if sections["model"]["family"] == "fc":
        probe.pop("batch_norm")
    if data["pipeline"] == own_pipeline(data["name"]):
        data.pop("pipeline")
    probe.pop("resolution" if probe["equality"] == "gamma" else "gamma")
    if probe["samples"] == "all":
        probe.pop("selection")
        if probe["images"] == "plain":
            probe.pop("seed")
    _edits(sections, where)
    return Cell.fromdict(sections)


def _edits(sections: dict[str, dict[str, Any]], where: _Where) -> None:
    """Check the sections of networks that change their depth, and empty those of others."""
    growth, tuning, model = sections["growth"], sections["tuning"], sections["model"]
    epochs = sections["training"]["epochs"]
    for section in (growth, tuning):
        if section["arm"] == "none":
            section.clear()
    if growth and tuning:
        raise where.error("tuning.arm", tuning["arm"], "leave out growth, or tuning")
    if not growth and not tuning:
        return
    checks = sections["training"]["conflict_checks"]
    if checks:
        problem = "has no effect on networks that change their depth; nearest valid: 0"
        raise where.error("training.conflict_checks", checks, problem)
    if model["family"] == "fc" and model["block"] in NEVER_UNCHANGED:
        nearest = "plain-relu" if model["block"] == "plain-tanh" else "residual1-tanh"
        problem = f"no layer can be inserted without changing it: {NEVER_UNCHANGED[model['block']]}"
        raise where.error("model.block", model["block"], f"{problem}; nearest valid: {nearest}")
    if growth:
        _growth(growth, model, epochs, where)
    else:
        _tuning(tuning, model, where)


def _growth(growth: dict[str, Any], model: dict[str, Any], epochs: int, where: _Where) -> None:
    last = growth["first_epoch"] + (growth["insertions"] - 1) * growth["every"]
    if growth["threshold"] == 0 and last >= epochs:
        problem = f"the last insertion, after epoch {last}, must come before the end"
        raise where.error("training.epochs", epochs, f"{problem}; nearest valid: {last + 1}")
    if model["family"] != "fc" and growth["arm"] in ("matched", "large"):
        problem = "no ordinary vgg or resnet has an inserted layer; nearest valid: 'small'"
        raise where.error("growth.arm", growth["arm"], problem)
    if growth["threshold"] > 0 and growth["first_epoch"] >= epochs:
        problem = f"nothing is inserted in {epochs} epochs; nearest valid: {max(1, epochs - 1)}"
        raise where.error("growth.first_epoch", growth["first_epoch"], problem)
    if growth["backtrack"]:
        _backtrack(growth, last, epochs, where)
    if growth["arm"] == "large" and growth["large_depth"] is None:
        raise where.error("growth.large_depth", None, "missing; layers of the arm large")
    if growth["large_depth"] is not None and growth["large_depth"] <= (model["depth"] or 0):
        problem = f"must be more than the small network's; nearest valid: {model['depth'] + 1}"
        raise where.error("growth.large_depth", growth["large_depth"], problem)
    if growth["zero"] == "inner" and model.get("block") != "residual2-tanh":
        problem = "inner weights of zero need model.block = residual2-tanh: with relu, or without "
        problem += "two weights, no position is scored; nearest valid: 'outer'"
        raise where.error("growth.zero", "inner", problem)


def _backtrack(growth: dict[str, Any], last: int, epochs: int, where: _Where) -> None:
    """Every insertion must be judged before the next one, and before the end."""
    wait = growth["backtrack"]
    if growth["insertions"] > 1 and growth["every"] < wait:
        problem = f"an insertion is judged {wait} epochs later (backtrack); nearest valid: {wait}"
        raise where.error("growth.every", growth["every"], problem)
    if growth["threshold"] == 0 and last + wait > epochs:
        problem = f"the last insertion, after epoch {last}, is judged after {last + wait}"
        raise where.error("training.epochs", epochs, f"{problem}; nearest valid: {last + wait}")


def _tuning(tuning: dict[str, Any], model: dict[str, Any], where: _Where) -> None:
    if model["family"] != "fc":
        raise where.error(
            "model.family", model["family"], "tune takes fully connected networks: fc"
        )
    if model["block"] != "plain-relu":
        raise where.error("model.block", model["block"], "tune takes plain fc networks: plain-relu")
    if tuning["budget_depth"] is None:
        raise where.error("tuning.budget_depth", None, "missing; the depth whose compute all get")
    if tuning["max_depth"] is None:
        tuning["max_depth"] = 2 * max(tuning["budget_depth"], model["depth"])
    if tuning["min_depth"] > model["depth"]:
        problem = f"the network starts with fewer; nearest valid: {model['depth']}"
        raise where.error("tuning.min_depth", tuning["min_depth"], problem)
    if tuning["max_depth"] < tuning["min_depth"]:
        problem = f"less than tuning.min_depth; nearest valid: {tuning['min_depth']}"
        raise where.error("tuning.max_depth", tuning["max_depth"], problem)
    if tuning["max_depth"] < model["depth"]:
        problem = f"the network starts with more; nearest valid: {model['depth']}"
        raise where.error("tuning.max_depth", tuning["max_depth"], problem)


@dataclass(frozen=True)
class _Where:
    """Knows which file or flag a key path came from, so that a message can say so."""

    file: str
    origin: dict[str, str]

    def error(self, path: str, value: object, problem: str) -> InputError:
        return InputError(f"{self.origin.get(path, self.file)}: {path} = {value!r}: {problem}")


def _reject_unknown(content: dict[str, Any], valid: set[str], prefix: str, where: _Where) -> None:
    for key, value in content.items():
        if key not in valid:
            raise where.error(f"{prefix}{key}", value, f"unknown key; {did_you_mean(key, valid)}")


def _checked(
    value: Any, kind: type[Any], bounds: typing.Mapping[str, Any], path: str, where: _Where
) -> Any:
    """The value in the field's own type, or an InputError with the nearest valid choice."""
    word = bounds["word"]
    if word is not None and value == word:
        return value
    kind = next(iter(typing.get_args(kind)), kind)
    if kind is float and isinstance(value, str):
        value = _number_from_text(value)  # YAML reads 1e-3 (no dot) as text
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if type(value) is not kind:
        expected = {int: "a whole number", float: "a number", str: "text"}[kind]
        raise where.error(path, value, f"must be {expected}" + (f" or {word}" if word else ""))
    choices, prefix = bounds["choices"], bounds["prefix"]
    if choices and value not in choices and not (prefix and str(value).startswith(prefix)):
        valid = [*choices, f"{prefix}PATH"] if prefix else choices
        raise where.error(path, value, did_you_mean(value, valid))
    if kind is float and not math.isfinite(value):
        raise where.error(path, value, "must be finite")
    low, high, above = bounds["low"], bounds["high"], bounds["above"]
    if low is not None and value < low:
        raise where.error(path, value, f"must be at least {low}; nearest valid: {low}")
    if above is not None and value <= above:
        raise where.error(path, value, f"must be greater than {above}")
    if high is not None and value > high:
        raise where.error(path, value, f"must be at most {high}; nearest valid: {high}")
    return value


def _number_from_text(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


class _StrictLoader(yaml.SafeLoader):
    """SafeLoader that refuses a key given twice instead of silently keeping the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, (str, int, float)) and key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key!r} is given twice", key_node.start_mark
                )
            seen.add(key if isinstance(key, (str, int, float)) else str(key))
        return super().construct_mapping(node, deep)


def parse_yaml(text: str, place: str) -> Any:
    try:
        return yaml.load(text, _StrictLoader)  # a SafeLoader: plain data only
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or error
        raise InputError(f"{place}{line}: not valid YAML: {problem}") from None
    except ValueError as error:  # for example a date that does not exist
        raise InputError(f"{place}: not valid YAML: {error}") from None


def _key_paths(content: dict[str, Any], prefix: str = "") -> list[str]:
    paths = []
    for key, value in content.items():
        paths.append(f"{prefix}{key}")
        if isinstance(value, dict):
            paths += _key_paths(value, f"{prefix}{key}.")
    return paths


def _prefixes(path: str) -> list[str]:
    parts = path.split(".")
    return [".".join(parts[: i + 1]) for i in range(len(parts))]


def _apply(content: dict[str, Any], override: str) -> str:
    """Set one ``section.key=value`` in place; returns the key path."""
    path, equals, text = override.partition("=")
    path = path.strip()
    if not equals or not path:
        raise InputError(f"--set {override}: expected section.key=value")
    *parents, last = path.split(".")
    target = content
    for parent in parents:
        child = target.get(parent)
        if child is None:
            child = target[parent] = {}
        if not isinstance(child, dict):
            raise InputError(f"--set {override}: {parent} is not a section")
        target = child
    target[last] = parse_yaml(text, f"--set {override}")
    return path
