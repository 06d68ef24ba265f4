"""Pages of the documentation that are made of what stands elsewhere: the settings, of the schema;
the commands, of what Typer knows; and documents beside docs/, so that one search finds all."""

from __future__ import annotations

import dataclasses
import re
import subprocess
import sys
from pathlib import Path

from cbundles.config import SECTIONS

ROOT = Path(__file__).resolve().parent.parent
# Of which document a page is made, and what the page is called.
OF_DOCUMENTS = {
    "ARCHITECTURE.md": "architecture",
    "CONTRIBUTING.md": "contributing",
    "CHANGELOG.md": "changelog",
    "results/claims.md": "verdicts",
}
# What the sections of a configuration are about.
ABOUT = {
    "data": "What networks are trained and tested on.",
    "model": "What they are.",
    "training": "How they are trained. The defaults are the paper's (sec. 3.1).",
    "probe": "How bundles are measured, and what is measured beside them.",
    "growth": "Of `cbundles grow`: when and where layers are inserted.",
    "tuning": "Of `cbundles tune`: when layers are removed and inserted.",
}
BOUNDS = {"low": "from", "above": "above", "high": "to"}
LINK = re.compile(r"\[(?P<text>[^\]]+)\]\((?!https?:|#)[^)]*\)")


def write(folder: Path) -> None:
    """Write all of them into a folder."""
    folder.mkdir(exist_ok=True)
    (folder / "settings.md").write_text(settings_page(), encoding="utf-8")
    (folder / "command-line.md").write_text(command_page(), encoding="utf-8")
    for path, name in OF_DOCUMENTS.items():
        text = (ROOT / path).read_text(encoding="utf-8")
        (folder / f"{name}.md").write_text(_without_local_links(text), encoding="utf-8")


def _without_local_links(text: str) -> str:
    """A document for another place: what its links to files say, without the links."""
    return LINK.sub(lambda link: link["text"], text)


def command_page() -> str:
    """What every command takes, as `-h` says it."""
    typer = [sys.executable, "-m", "typer", "cbundles.cli", "utils", "docs"]
    named = ["--name", "cbundles", "--title", "Command line"]
    found = subprocess.run([*typer, *named], check=True, capture_output=True, text=True).stdout
    return found.replace("$ cbundles", "cbundles")


def settings_page() -> str:
    """Every setting with its default, what it may be, and why it is there."""
    parts = [
        "# Settings\n\nOf configurations in YAML, and of `--set SECTION.NAME=VALUE`. A list of "
        "values makes an axis of the grid, but for settings that are sets. `cbundles config` "
        "says the same in a terminal.\n"
    ]
    for section, schema in SECTIONS.items():
        lines = "".join(_row(field) for field in dataclasses.fields(schema))
        parts.append(
            f"## {section}\n\n{ABOUT[section]}\n\n"
            f"| setting | default | valid | what it is for |\n|---|---|---|---|\n{lines}"
        )
    return "\n".join(parts)


def _row(field: dataclasses.Field[object]) -> str:
    why = str(field.metadata["why"]).replace("|", "\\|")
    return f"| `{field.name}` | {_default(field)} | {_valid(field)} | {why} |\n"


def _default(field: dataclasses.Field[object]) -> str:
    if field.default is dataclasses.MISSING:
        return "(must be given)"
    return "(none)" if field.default is None else f"`{field.default}`"


def _valid(field: dataclasses.Field[object]) -> str:
    rules = field.metadata
    if rules["set_of"]:
        return "a name, or a set of names with commas or as a list"
    parts = [f"`{choice}`" for choice in rules["choices"] or ()]
    if rules["prefix"]:
        parts.append(f"`{rules['prefix']}...`")
    if rules["word"]:
        parts.append(f"`{rules['word']}`")
    lowest = "above" if rules["low"] is None else "low"
    bounds = [
        f"{BOUNDS[name]} {rules[name]:.10g}" for name in (lowest, "high") if rules[name] is not None
    ]
    if bounds:
        parts.append(" ".join(bounds))
    return ", ".join(parts)
