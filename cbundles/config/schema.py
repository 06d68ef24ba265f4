"""The settings of one trained network: six sections of them, and the cell that they make.

A setting is a field with a default, with bounds or choices, and with a line that says why it is
there (`setting`). The sections `Data`, `Model`, `Training`, `Probe`, `Growth` and `Tuning` hold the
settings, and a `Cell` holds one of each. What may not go together is in `rules`.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from cbundles import bits, criterion, early_steps, identity, readings
from cbundles.readings import Reading

DATASETS = ("mnist_mini", "spirals", "mnist", "cifar10", "svhn_cropped", "imagenette")
PIPELINES = ("mnist", "cifar10", "svhn_cropped", "imagenette", "plain")
FOLDER_PREFIX = "folder:"
SMALLEST = 1.2e-38  # about the smallest float32 that is no zero for a processor
BLOCKS = ("plain", "residual1", "residual2")
ACTIVATIONS = ("relu", "tanh", "gelu", "leaky_relu")
NORMALISATIONS = ("none", "layer")
CONVOLUTIONAL = ("vgg", "resnet")
OWN = "own"  # the family of a user's architectures
SIZES_OF_OWN = ("depth", "width")  # keywords of such names are the settings that all models have
BLOCKS_OF_BUILD = "blocks"  # the keyword by which a user's function is auto-tuned
# Why a user's architecture does not grow.
NO_EDITS = "where a layer can come or go, its own function does not say; sweep it instead"
OF_BUILD = ("build", "keywords", "source")  # settings of theirs alone
FLOAT32, FLOAT64 = "float32", "float64"
AS_COMPUTED = "precision"  # of `training.storage`
# What a layer is inserted by, or the network that this is compared with.
INSERTING = ("max", "min", "first", "random")
GROWTH_ARMS = ("none", *INSERTING, "small", "matched", "large")
TUNING_ARMS = ("none", "fixed", "remove", "insert", "both", "both-random")
# What kind a run is: by the command that makes it. The first three are those of cells, too.
SWEEP = "sweep"
GROW = "grow"
TUNE = "tune"
AUTOTUNE = "autotune"  # whose cells are those of a sweep
TOY = "toy"  # which has no cells
# What kind a study of trained networks is, likewise.
LESION = "lesion"
PRUNE = "prune"
MEASURE = "measure"


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
    set_of: Callable[[Any], str] | None = None,
) -> Any:
    """A field of the schema.

    default: None stands for "not given"; without any the setting must be given
    why: one line for readers: what it does, or why its default is what it is
    low, high: the smallest and the largest valid number
    above: numbers must be larger than this one
    choices: the valid texts
    or_prefix: texts that begin so are valid besides the choices
    or_word: this text is valid instead of a number
    set_of: a list is no axis but one value, a set of names or numbers, and this makes one text of
        it; its ValueError says what is wrong
    """
    metadata = {
        "low": low,
        "high": high,
        "above": above,
        "choices": choices,
        "prefix": or_prefix,
        "word": or_word,
        "set_of": set_of,
        "why": why,
    }
    return field(default=default, metadata=metadata)


class Images(NamedTuple):
    """The images of a data set.

    size: pixels of either side; None: as they are
    """

    name: str
    size: int | None = None

    def __str__(self) -> str:
        return self.name if self.size is None else f"{self.name}, image_size {self.size}"


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
    image_size: int = setting(
        None,
        low=4,
        high=4096,
        why="folders of images: each is scaled until its shorter side has so many pixels, and the "
        "square in its middle is taken; as they are where it is not given",
    )

    @property
    def images(self) -> Images:
        """What has to be loaded."""
        return Images(self.name, self.image_size)


def own_pipeline(name: str) -> str:
    """The pipeline, one of `PIPELINES`, that the original has for a data set; none for a folder."""
    if name.startswith(FOLDER_PREFIX) or name == "spirals":
        return "plain"
    return "mnist" if name == "mnist_mini" else name


def short_name(name: str) -> str:
    """What a data set is called in the names of folders: of a folder of images its last part."""
    return name.removeprefix(FOLDER_PREFIX).rstrip("/").rsplit("/", 1)[-1]


def conv_epochs(name: str) -> int:
    """For how long VGGs and ResNets are trained on a data set where nothing is said: as the paper
    does (sec. 3.6); on the embedded images, a sixth of MNIST, for a first look."""
    return 20 if name == "mnist_mini" else 120


@dataclass(frozen=True, kw_only=True)
class Model:
    """Which network."""

    family: str = setting(
        "fc",
        choices=("fc", *CONVOLUTIONAL, OWN),
        why="fully connected with ReLU (paper, sec. 3.3), convolutional (sec. 3.4 to 3.6), or what "
        "model.build makes, which says so by itself",
    )
    depth: int = setting(
        None, low=1, high=10_000, why="fc: hidden layers L; vgg, resnet: 2 + 2 x blocks"
    )
    width: int = setting(None, low=1, high=100_000, why="fc: neurons in every hidden layer")
    block: str = setting(
        "plain-relu",
        choices=(
            *(f"{kind}-{function}" for kind in BLOCKS for function in ACTIVATIONS),
            *BLOCKS,
        ),
        why="fc: hidden layers after the first: s(Wh + b), h + s(Wh + b) or h + W2 s(Wh + b); "
        "without a function s, which then is model.activation",
    )
    blocks: str = setting(
        None, why="vgg, resnet: blocks of the four stages, as 3,12,41,3; given by depth otherwise"
    )
    base_filters: int = setting(
        64, low=1, high=10_000, why="vgg, resnet: filters of the first stage, 64 in the paper"
    )
    # A cell has none: `rules` writes it into the block, which named both from the beginning.
    activation: str = setting(
        None,
        choices=ACTIVATIONS,
        why="fc: the function s of all hidden layers, where model.block names none",
    )
    normalisation: str = setting(
        "none",
        choices=NORMALISATIONS,
        why="fc: layer standardises Wh + b over the neurons before the activation, with a learned "
        "scale and shift",
    )
    gain: float = setting(
        1.0,
        above=0.0,
        low=1e-3,
        high=1e3,
        why="times the initial kernels of all layers, the output layer's, too; biases stay zero",
    )
    build: str = setting(
        None,
        why="a user's architecture: PACKAGE.MODULE:FUNCTION, which returns a Flax module; its "
        "keywords are keys beside this one and may be axes, and are all that there is beside it",
    )
    # What `config.own` makes of a function: nobody writes these two.
    keywords: str = setting(
        None, why="not to be given: the keywords of model.build but depth and width, as JSON"
    )
    source: str = setting(
        None,
        why="not to be given: a digest of the file that defines model.build, and part of the "
        "identity of its networks; comments are not in it, nor is what that file imports",
    )

    @property
    def is_own(self) -> bool:
        """Whether it is a user's architecture."""
        return self.family == OWN

    @property
    def is_convolutional(self) -> bool:
        """Whether it is a VGG or ResNet, which has blocks, of two layers each."""
        return self.family in CONVOLUTIONAL

    @property
    def keywords_of_build(self) -> dict[str, Any]:
        """All that a user's function is called with, by name."""
        sizes = {name: getattr(self, name) for name in SIZES_OF_OWN}
        given = {name: size for name, size in sizes.items() if size is not None}
        return {**given, **self.other_keywords}

    @property
    def other_keywords(self) -> dict[str, Any]:
        """Those of a user's function that are no settings of every model."""
        keywords: dict[str, Any] = json.loads(self.keywords)
        return keywords


@dataclass(frozen=True, kw_only=True)
class Training:
    """How it is trained. Defaults are the paper's (sec. 3.1)."""

    epochs: int = setting(50, low=1, why="50 for fully connected networks")
    batch_size: int = setting(64, low=1, why="also sets the resolution of the metric (eq. 1)")
    learning_rate: float = setting(1e-3, above=0.0, low=SMALLEST, high=10.0, why="RAdam's step")
    weight_decay: float = setting(1e-2, low=0.0, high=10.0, why="decoupled, times learning rate")
    seed: int = setting(0, low=0, high=2**32 - 1, why="initial weights, order, augmentation")
    accuracy_epochs: int = setting(
        5,
        low=1,
        why="the paper averages the last 5 epochs, the original code 4; never over more than a "
        "quarter of the training",
    )
    stop_conflicting: str = setting(
        criterion.OFF,
        choices=criterion.CHOICES,
        why="stop a network when its last layer conflicts after one of the first conflict_checks "
        "epochs: by H > 0, as the paper's auto-tuning, or by a conflict rate above 0.001; off: "
        "train all to the end",
    )
    conflict_checks: int = setting(
        1, low=1, why="with stop_conflicting: after so many of the first epochs it is looked at"
    )
    precision: str = setting(
        FLOAT32,
        choices=(FLOAT32, FLOAT64),
        why="fc: in which format weights, activations, gradients and the optimizer are computed; "
        "measured is always in float32",
    )
    storage: str = setting(
        AS_COMPUTED,
        choices=(AS_COMPUTED, FLOAT32, "float16", "bfloat16"),
        why="the format that weights are rounded to after every step, fast and slow ones; the "
        "optimizer's moments are not. precision: as they were computed",
    )

    @property
    def checks(self) -> int:
        """After how many of the first epochs the network may be stopped."""
        return 0 if self.stop_conflicting == criterion.OFF else self.conflict_checks


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

    last: str = setting(
        readings.POOLED,
        choices=readings.LASTS,
        why="vgg, resnet: what H^L is of: the pooled features behind the last block, as in the "
        "paper's revision of the original code, or the last block's output",
    )
    amplitude: str = setting(
        readings.HIDDEN,
        choices=readings.AMPLITUDES,
        why="largest weight, which sets the resolution: but for the output layer (vgg, resnet: the "
        "stem's normalisation), as in the paper's revision; or of all trainable weights",
    )
    batch_norm: str = setting(
        readings.RUNNING,
        choices=readings.BATCH_NORMS,
        why="vgg, resnet: normalised by running statistics, as in the paper's revision, or by the "
        "probe set's, which an untrained network has, too (docs/measurements.md)",
    )
    readings: str = setting(
        readings.NONE,
        set_of=readings.canonical,
        why="further readings, measured in the same pass, as [block, block+batch]; a list is a "
        "set here, no axis (cbundles/readings.py says what they are)",
    )
    steps: str = setting(
        early_steps.NONE,
        set_of=early_steps.canonical,
        why="measured after these steps of the first epoch, too, as [50, 150, 500]: conflicts show "
        "early, and an epoch may take hours; a list is a set here, no axis",
    )
    headroom: str = setting(
        bits.OFF,
        choices=bits.CHOICES,
        why="how far each layer is from conflicting, in bits of the learning rate, after the last "
        "epoch or after all; off, because the paper does not ask it and one look takes longer "
        "than measuring the bundles of an epoch",
    )
    peers: str = setting(
        "off",
        choices=("off", "on"),
        why="fc: also effective rank and cosine between classes of the last hidden layer, and the "
        "norm of the gradient, whenever bundles are measured: what H is compared with",
    )

    def count(self, available: int) -> int:
        """How many samples that is, of so many training images: at most what there is."""
        return available if isinstance(self.samples, str) else min(self.samples, available)


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
        1.0, above=0.0, low=SMALLEST, high=100.0, why="times the learning rate, at each insertion"
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


READING_PATHS = tuple(f"probe.{key}" for key in readings.SETTINGS)

SECTIONS: dict[str, type] = {
    "data": Data,
    "model": Model,
    "training": Training,
    "probe": Probe,
    "growth": Growth,
    "tuning": Tuning,
}

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


def layers_with(blocks: Sequence[int]) -> int:
    """Layers of a VGG or ResNet as the paper counts them: two a block, the stem and the last."""
    return 2 + 2 * sum(blocks)


def layers_of_block(block: int) -> tuple[int, int]:
    """The numbers of the two layers in a block of a VGG or ResNet, all counted from 1 as in the
    paper: the stem is layer 1, blocks of two convolutions follow."""
    return 2 * block, 2 * block + 1


def parse_blocks(text: str) -> tuple[int, int, int, int]:
    """``3,12,41,3`` as numbers; ValueError says what is wrong."""
    parts = text.split(",")
    if len(parts) != STAGES or not all(part.strip().isdecimal() for part in parts):
        raise ValueError(f"must be {STAGES} whole numbers with commas, such as 3,12,41,3")
    first, second, third, fourth = map(int, parts)
    if not 1 <= first + second + third + fourth <= 5_000:
        raise ValueError("must be 1 to 5000 blocks in all")
    return first, second, third, fourth


@functools.cache  # a grid has many cells of one reading
def _label_of_reading(own: Reading, convolutional: bool, has_amplitude: bool) -> str:
    said = [own.last, own.batch_norm] if convolutional else []
    if has_amplitude:
        said.append(own.amplitude)
    words = [word for word in said if word not in readings.PAPER_WORDS]
    return f" reading={'+'.join(words)}" if words else ""


@dataclass(frozen=True)
class Cell:
    """One network, trained and measured once."""

    data: Data
    model: Model
    training: Training
    probe: Probe
    growth: Growth = field(default_factory=Growth)
    tuning: Tuning = field(default_factory=Tuning)

    @functools.cached_property  # asked for again and again, and a grid may have 100,000 cells
    def id(self) -> str:
        """12 hex digits that identify the result: the same for the same settings, whatever becomes
        of the schema's defaults."""
        return identity.identity(self.settings)

    @property
    def label(self) -> str:
        """How people call it: its shape and seed, and whatever else is unusual, but for the default
        reading, and for how a network is edited while it is trained."""
        label = f"{self._name_of_network} seed={self.training.seed}"
        for path, value in self.unusual.items():
            section, key = path.split(".")
            is_edit = section in ("growth", "tuning") and key != "arm"
            if not is_edit and path != "probe.reading":
                label += f" {key}={value}"
        return label + self._label_of_reading

    @property
    def _name_of_network(self) -> str:
        m = self.model
        if m.is_own:
            keywords = m.keywords_of_build.items()
            return " ".join([str(m.build), *(f"{key}={value}" for key, value in keywords)])
        size = f"width={m.width}" if m.family == "fc" else f"filters={m.base_filters}"
        return f"{m.family} {size} depth={m.depth}"

    @property
    def _label_of_reading(self) -> str:
        """`` reading=block+batch``: what differs from the default."""
        if self.kind == GROW:
            return ""
        has_amplitude = self.probe.equality != "gamma"
        if self.model.is_own:  # of which two of the three are always the same
            return f" reading={readings.BATCH}" if self.probe.batch_norm == readings.BATCH else ""
        return _label_of_reading(self.own_reading, self.model.is_convolutional, has_amplitude)

    @property
    def unusual(self) -> dict[str, Any]:
        """Key paths and values of what differs from the first values (`identity`), besides data
        set, epochs, seed and the size of the network; blocks that are not the paper's for this
        depth. The names of groups and captions come from here, so they last as identities do."""
        differing = identity.differences(self.settings)
        usual = ("data.name", "training.epochs", "training.seed")
        found = {
            path: value
            for path, value in differing.items()
            if path not in usual and not path.startswith("model.")
        }
        for path in ("model.block", "model.normalisation", "model.gain"):
            if path in differing:
                found[path] = differing[path]
        if self.model.is_convolutional and self.blocks != PAPER_BLOCKS.get(self.model.depth):
            found["model.blocks"] = self.model.blocks
        words = [found.pop(path, None) for path in READING_PATHS]
        differing_words = [word for word in words if word is not None]
        if differing_words:
            found["probe.reading"] = readings.name_of_words(differing_words)
        return found

    @property
    def blocks(self) -> tuple[int, ...]:
        """Of a VGG or ResNet, in each of its stages; of a user's architecture what its function is
        given as ``blocks``."""
        if self.model.is_own:
            return tuple(self.model.other_keywords[BLOCKS_OF_BUILD])
        return parse_blocks(self.model.blocks)

    @property
    def own_reading(self) -> Reading:
        """The one that the run judges by. A fully connected network has nothing but layers."""
        probe = self.probe
        if self.model.family == "fc":
            return readings.own_reading(readings.BLOCK, probe.amplitude, readings.BATCH)
        return readings.own_reading(probe.last, probe.amplitude, probe.batch_norm)

    @property
    def further_readings(self) -> tuple[Reading, ...]:
        """Those that are measured beside it."""
        return self.readings_named(self.probe.readings)

    def readings_named(self, names: str) -> tuple[Reading, ...]:
        """Readings of this network; names: in the form of `readings.canonical`."""
        convolutional = self.model.is_convolutional
        return readings.named_readings(names, self.own_reading, convolutional=convolutional)

    @property
    def early_steps(self) -> tuple[int, ...]:
        """Steps of the first epoch after which the network is measured, ascending."""
        return early_steps.parse(self.probe.steps)

    @property
    def settings(self) -> identity.Settings:
        """By section and key, to be read only. (`dataclasses.asdict` takes 100 times as long.)"""
        return {section: vars(getattr(self, section)) for section in SECTIONS}

    def asdict(self) -> dict[str, Any]:
        """A copy of the settings, by section and key."""
        return {section: dict(keys) for section, keys in self.settings.items()}

    @classmethod
    def fromdict(cls, content: identity.Settings) -> Cell:
        """From what `asdict` returned, perhaps in a version that had fewer settings."""
        whole = identity.completed(content)
        return cls(**{name: kind(**whole[name]) for name, kind in SECTIONS.items()})

    @property
    def kind(self) -> str:
        """Which command it is for: SWEEP, GROW or TUNE."""
        if self.growth.arm != "none":
            return GROW
        return TUNE if self.tuning.arm != "none" else SWEEP
