"""The parts of the report's page, from `page.html`, and how they are filled."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from string import Template

from cbundles.report.table import Table
from cbundles.report.words import with_signs

NO_BREAK = "\N{NO-BREAK SPACE}"
TEMPLATE = Path(__file__).with_name("page.html")


class Html(str):
    """Text that is HTML already; any other is escaped where it fills a part."""


@functools.cache
def _parts() -> dict[str, Template]:
    """The parts of the page by name."""
    _, *named = re.split(r"<!-- part: (\w+) -->\n", TEMPLATE.read_text(encoding="utf-8"))
    return {
        name: Template(re.sub(r"\n +", "", text.strip()))
        for name, text in zip(named[::2], named[1::2], strict=True)
    }


def filled(part: str, **values: str) -> Html:
    """A part of the page with these values in it; texts get the signs that keyboards lack."""
    safe = {
        name: value if isinstance(value, Html) else escape(with_signs(value))
        for name, value in values.items()
    }
    return Html(_parts()[part].substitute(safe))


def verbatim(text: str) -> Html:
    """A text that stays as it is typed, such as a name."""
    return Html(escape(text))


def one_after_another(parts: Iterable[Html], separator: str = "") -> Html:
    return Html(separator.join(parts))


def anchor_of(*names: str) -> Html:
    """What a link to a thing with these names leads to: letters, digits and hyphens."""
    return Html("-".join(re.sub(r"[^\w-]", "-", name) for name in names))


def list_items(texts: Iterable[str]) -> Html:
    return one_after_another(filled("item", text=text) for text in texts)


def table_html(table: Table, name: str) -> Html:
    """A table that scrolls where it is wider than the page."""
    titles = one_after_another(filled("title", text=title) for title in table.titles)
    rows = one_after_another(_table_row(line) for line in table.texts)
    return filled("table", name=name, titles=titles, rows=rows)


def _table_row(texts: Sequence[str]) -> Html:
    cells = one_after_another(filled("cell", text=_unbroken(text)) for text in texts)
    return filled("row", cells=cells)


def _unbroken(text: str) -> str:
    """A number and its deviation stay on one line."""
    return text.replace(" ± ", f"{NO_BREAK}±{NO_BREAK}")
