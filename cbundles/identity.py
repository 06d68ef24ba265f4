"""What makes two cells the same: the first value of every setting, frozen for ever.

The identity of a cell is a hash of the settings that differ from the values below. They are those
of the first version, or of the version in which a setting appeared, and are never edited: not when
a default of the schema changes (the new default then is a difference like any other), and not when
settings are added. A new setting gets a line here whose value means "as before there was such a
setting", so a record that was written without it keeps its identity and its meaning.

Nothing here imports the schema, so that no change of the schema can reach an identity by accident.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from cbundles.errors import InputError

Settings = Mapping[str, Mapping[str, Any]]  # section -> key -> value

SCHEMA_VERSION = 2  # part of every hash; to be raised only when a setting changes its meaning
_ENCODER = json.JSONEncoder(sort_keys=True)  # made once: a grid may have 100,000 cells

FIRST_VALUES: Settings = {
    "data": {
        "name": "mnist_mini",
        "augmentation": "original",
        "pipeline": "auto",
        "image_size": None,
    },
    "model": {
        "family": "fc",
        "depth": None,
        "width": None,
        "block": "plain-relu",
        "blocks": None,
        "base_filters": 64,
        "activation": None,
        "normalisation": "none",
        "gain": 1.0,
        "build": None,
        "keywords": None,
        "source": None,
    },
    "training": {
        "epochs": 50,
        "batch_size": 64,
        "learning_rate": 1e-3,
        "weight_decay": 1e-2,
        "seed": 0,
        "accuracy_epochs": 5,
        "stop_conflicting": "entropy",
        "conflict_checks": 0,  # never stopped, whatever stop_conflicting says
        "precision": "float32",
        "storage": "precision",
    },
    "probe": {
        "samples": 2048,
        "selection": "uniform",
        "images": "plain",
        "seed": 0,
        "equality": "weight_amplitude",
        "gamma": 1e-8,
        "resolution": "float32",
        "last": "block",
        "amplitude": "all",
        "batch_norm": "batch",
        "readings": "none",
        "steps": "none",
        "headroom": "off",
        "peers": "off",
    },
    "growth": {
        "arm": "none",
        "first_epoch": 100,
        "every": 100,
        "insertions": 1,
        "threshold": 0.0,
        "large_depth": None,
        "learning_rate_factor": 1.0,
        "scale": "none",
        "zero": "outer",
        "backtrack": 0,
    },
    "tuning": {
        "arm": "none",
        "budget_depth": None,
        "every": 10,
        "trial": 10,
        "cooldown": 10,
        "memory": 100,
        "threshold": 1.0,
        "saturated": 0.99,
        "min_depth": 1,
        "max_depth": None,
        "held_out": 0.2,
    },
}


def completed(settings: Settings) -> dict[str, dict[str, Any]]:
    """Settings with the first value of each one that is missing, as an old record may be.
    InputError for a setting that is not known here: without it they would mean something else."""
    for section, keys in settings.items():
        for key in keys:
            if key not in FIRST_VALUES.get(section, {}):
                raise InputError(
                    f"{section}.{key} = {keys[key]!r}: not a setting of this version of cbundles; "
                    "read it with the version that wrote it, or a newer one"
                )
    return {
        section: {**first, **settings.get(section, {})} for section, first in FIRST_VALUES.items()
    }


def differences(settings: Settings) -> dict[str, Any]:
    """Key paths and values of the settings that differ from the first ones. A missing setting has
    its first value. KeyError for a setting without one."""
    differing = {}
    for section, keys in settings.items():
        first = FIRST_VALUES[section]
        if keys != first:  # most are as they were, which this sees at once
            for key, value in keys.items():
                if value != first[key]:
                    differing[f"{section}.{key}"] = value
    return differing


def identity(settings: Settings) -> str:
    """12 hex digits that identify what these settings lead to."""
    content = _ENCODER.encode([SCHEMA_VERSION, differences(settings)])
    return hashlib.sha256(content.encode()).hexdigest()[:12]
