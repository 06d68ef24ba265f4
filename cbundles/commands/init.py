"""`cbundles init`: an editable copy of an experiment that comes with the package."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from cbundles.commands.output import say, say_indented
from cbundles.config import shipped
from cbundles.errors import InputError, did_you_mean
from cbundles.files import write_atomically


def list_shipped(console: Console) -> None:
    """Print the names of all shipped experiments, and what they are for."""
    for name in shipped.names():
        say(console, name)
        purpose = shipped.purpose_of(name)
        say_indented(console, purpose)
    say(console, "")
    say(
        console, "cbundles sweep NAME trains one of them; cbundles init NAME writes a copy to edit."
    )


def copy_shipped(name: str, target: Path | None, console: Console) -> None:
    """Write a copy. InputError for an unknown name, or a file that is there already."""
    source = shipped.file_of(name)
    if source is None:
        raise InputError(f"init {name}: no such experiment; {did_you_mean(name, shipped.names())}")
    target = target or Path(source.name)
    if target.exists():
        raise InputError(f"{target}: is there already; name another file")
    try:
        write_atomically(target, source.read_bytes())
    except OSError as error:
        raise InputError(f"{target}: cannot be written: {error.strerror or error}") from None
    say(console, f"{target}: a copy of {name}; edit it, then: cbundles sweep {target} --plan")
