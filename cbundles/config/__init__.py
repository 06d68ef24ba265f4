"""Experiments as data: a YAML file and overrides become cells, each a network trained once.

- `schema`: the settings, their defaults, bounds and reasons; the cell they make.
- `rules`: which values and combinations are refused, with the place and the nearest valid choice.
- `strict_yaml`: plain data from YAML, nothing guessed.
- `own`: a user's architecture, whose settings are the keywords of a function.
- `grid`: from a file with ``--set`` overrides to cells: every setting may be a list, an axis.

The identity of a cell is a hash of everything that determines its result (`cbundles.identity`), so
a finished cell is recognised for ever. Nothing here imports JAX: a mistake is answered before
anything heavy is loaded.
"""

from cbundles.config.grid import LARGEST_GRID, Experiment, build, load, override
from cbundles.config.rules import CHARACTERS, can_be_written
from cbundles.config.schema import (
    AS_COMPUTED,
    AUTOTUNE,
    BLOCKS_OF_BUILD,
    CONVOLUTIONAL,
    DATASETS,
    FLOAT32,
    FLOAT64,
    FOLDER_PREFIX,
    GROW,
    GROWTH_ARMS,
    INSERTING,
    LESION,
    MEASURE,
    NO_EDITS,
    OF_BUILD,
    OWN,
    PAPER_BLOCKS,
    PIPELINES,
    PRUNE,
    SECTIONS,
    SWEEP,
    TOY,
    TUNE,
    TUNING_ARMS,
    Cell,
    Data,
    Growth,
    Images,
    Model,
    Probe,
    Training,
    Tuning,
    conv_epochs,
    layers_of_block,
    layers_with,
    own_pipeline,
    parse_blocks,
    setting,
    short_name,
)
from cbundles.config.shipped import means_experiment
from cbundles.config.strict_yaml import parse_yaml, text_of

__all__ = [
    "AS_COMPUTED",
    "AUTOTUNE",
    "BLOCKS_OF_BUILD",
    "CHARACTERS",
    "CONVOLUTIONAL",
    "DATASETS",
    "FLOAT32",
    "FLOAT64",
    "FOLDER_PREFIX",
    "GROW",
    "GROWTH_ARMS",
    "INSERTING",
    "LARGEST_GRID",
    "LESION",
    "MEASURE",
    "NO_EDITS",
    "OF_BUILD",
    "OWN",
    "PAPER_BLOCKS",
    "PIPELINES",
    "PRUNE",
    "SECTIONS",
    "SWEEP",
    "TOY",
    "TUNE",
    "TUNING_ARMS",
    "Cell",
    "Data",
    "Experiment",
    "Growth",
    "Images",
    "Model",
    "Probe",
    "Training",
    "Tuning",
    "build",
    "can_be_written",
    "conv_epochs",
    "layers_of_block",
    "layers_with",
    "load",
    "means_experiment",
    "override",
    "own_pipeline",
    "parse_blocks",
    "parse_yaml",
    "setting",
    "short_name",
    "text_of",
]
