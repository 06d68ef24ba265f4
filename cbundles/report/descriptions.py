"""What run.json says of a run: checked as it is read, since people may have edited it."""

from __future__ import annotations

from typing import Any

from cbundles.config import AUTOTUNE
from cbundles.errors import quoted

BASELINE_ASKED_FOR = "baseline_asked_for"  # what an auto-tuning stands beside when it is over
IDENTITIES = "a list of texts"
CHAINS = "a list of lists of texts"
TEXTS = "texts by texts"
# What each key holds, where it is there. Older versions wrote fewer of them.
FORMS = {
    "name": "text",
    "kind": "text",
    "rule": "text",
    "config": "a mapping",
    "data": TEXTS,
    "cells": IDENTITIES,
    "tuned": IDENTITIES,
    "given_up": IDENTITIES,
    "baseline": IDENTITIES,
    BASELINE_ASKED_FOR: IDENTITIES,
    "attempts": CHAINS,
}


def require_description(content: Any) -> dict[str, Any]:
    """The content of a run.json. ValueError says what is wrong with it."""
    if not isinstance(content, dict):
        raise ValueError(f"a mapping is expected, not {quoted(content)}")
    for key, form in FORMS.items():
        if key in content and not _has_form(content[key], form):
            raise ValueError(f"{key} = {quoted(content[key])}: must be {form}")
    needed = ["cells", "attempts"] if content.get("kind") == AUTOTUNE else ["cells"]
    missing = [key for key in needed if key not in content]
    if missing:
        raise ValueError(f"without {', '.join(missing)}")
    return content


def _has_form(value: Any, form: str) -> bool:
    if form == "text":
        return isinstance(value, str)
    if form == IDENTITIES:
        return _are_texts(value)
    if form == CHAINS:
        return isinstance(value, list) and all(_are_texts(each) and each for each in value)
    if form == TEXTS:
        return isinstance(value, dict) and all(isinstance(each, str) for each in value.values())
    return isinstance(value, dict)


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(each, str) for each in value)
