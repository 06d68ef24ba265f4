"""The commands that the pages show, read out of their text."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from conftest import ROOT

DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.glob("*.md"))]
SHOWN = re.compile(r"^ *(?:\$ )?(?:\.venv[-a-z]*/bin/)?cbundles (?P<line>[a-z].*)$", re.MULTILINE)
INLINE = re.compile(r"`cbundles (?P<line>[a-z][^`]*)`")
BEHIND = re.compile(r" +# | > | \| | && |; |\[, |$")  # a comment, a pipe or another command
LEFT_OPEN = re.compile(r"\.\.\.|…|FLAG|, ")


class Shown(NamedTuple):
    """What stands behind `cbundles` where a page shows a command.

    is_whole: whether that is all of it; in a sentence, what is clear may be left out.
    """

    page: Path
    line: str
    is_whole: bool

    @property
    def name(self) -> str:
        return f"{self.page.name}: {self.line}"


def commands_shown() -> Iterator[Shown]:
    """Of all pages, page by page, and of a page in the order in which a reader would type them."""
    for page in PAGES:
        text = page.read_text()
        for pattern, is_whole in ((SHOWN, True), (INLINE, False)):
            for match in pattern.finditer(text):
                line = BEHIND.split(match["line"])[0].strip()
                if not LEFT_OPEN.search(line):
                    yield Shown(page, line, is_whole)
