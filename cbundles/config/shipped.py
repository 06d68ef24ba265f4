"""The experiments that come with the package: `configs/` of the source tree.

An installed package holds a copy of that folder; one that runs from its source tree uses the folder
itself.
"""

from __future__ import annotations

from pathlib import Path

PACKAGE = Path(__file__).parents[1]
SUFFIX = ".yaml"


def folder() -> Path:
    """Where the shipped experiments are."""
    installed = PACKAGE / "shipped_configs"
    return installed if installed.is_dir() else PACKAGE.parent / "configs"


def names() -> list[str]:
    """What they are called: ``quickstart``, ``cpu/mnist_vgg``, ... Lists of commands, which are in
    ``reproduce/``, are no experiments."""
    files = sorted(folder().rglob(f"*{SUFFIX}"))
    relative = [file.relative_to(folder()).with_suffix("") for file in files]
    return [name.as_posix() for name in relative if name.parts[0] != "reproduce"]


def file_of(name: str) -> Path | None:
    """The file of a shipped experiment; None when there is none of this name."""
    return folder() / f"{name}{SUFFIX}" if name in names() else None


def means_experiment(path: Path) -> bool:
    """Whether somebody who types this means a file of settings, or a shipped one by its name."""
    return path.suffix in (SUFFIX, ".yml") or file_of(str(path)) is not None


def purpose_of(name: str) -> str:
    """What a shipped experiment is for: the comment at the top of its file."""
    lines = (folder() / f"{name}{SUFFIX}").read_text(encoding="utf-8").splitlines()
    comment = []
    for line in lines:
        if not line.startswith("#"):
            break
        comment.append(line.lstrip("# "))
    return " ".join(comment)
