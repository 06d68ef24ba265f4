"""Everything on one self-contained page: claims, table 1, figures, where the numbers come from.

How the page looks is in `page.html`; here its parts are filled with what the records say.
"""

from __future__ import annotations

import base64
import dataclasses
import functools
import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from string import Template

from cbundles.config import SECTIONS
from cbundles.files import write_atomically
from cbundles.report import summary, table1
from cbundles.report.claims import judge
from cbundles.report.claims.finding import Claim, Finding
from cbundles.report.claims_table import ABOUT, counted_verdicts
from cbundles.report.gathering import Gathered
from cbundles.report.runs import Run
from cbundles.report.table import Column, Row, Table

TEMPLATE = Path(__file__).with_name("page.html")
Figures = Mapping[str, Sequence[Path]]  # PNG, by the name of their run


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


def _filled(part: str, **values: str) -> Html:
    """A part of the page with these values in it."""
    safe = {
        name: value if isinstance(value, Html) else escape(value) for name, value in values.items()
    }
    return Html(_parts()[part].substitute(safe))


def _one_after_another(parts: Iterable[Html], separator: str = "") -> Html:
    return Html(separator.join(parts))


def write_page(claims: Sequence[Claim], gathered: Gathered, figures: Figures, folder: Path) -> Path:
    """Write report.html into a results folder; returns its path."""
    path = folder / "report.html"
    write_atomically(path, page_of(claims, gathered, figures))
    return path


def page_of(claims: Sequence[Claim], gathered: Gathered, figures: Figures) -> str:
    """Everything on one page, the figures (PNG, with their captions) included; it loads nothing."""
    groups = [group for run in gathered.judged for group in table1.of_run(run)]
    page = _filled(
        "page",
        about=ABOUT,
        verdicts=counted_verdicts(claims),
        claims=_one_after_another(map(_claim, claims), "\n"),
        table1_caption=table1.CAPTION,
        table1=_table(table1.comparison(groups)),
        figures=_figures_of(gathered.presented, figures),
        own=_own_runs(gathered.own, figures) if gathered.own else "None.",
        runs=_one_after_another(map(_run, gathered.presented), "\n"),
        damaged=_filled("damaged", items=_items(gathered.damaged)) if gathered.damaged else "",
        settings=_table(_settings()),
    )
    return f"{page}\n"


def _own_runs(runs: Sequence[Run], figures: Figures) -> Html:
    """Runs that no claim of the paper is judged on; what its criteria would say of them."""
    applied = [claim for claim in judge(runs) if claim.findings]
    return _filled(
        "own",
        runs=_one_after_another(map(_run, runs), "\n"),
        claims=_one_after_another(map(_claim_of_own, applied), "\n"),
        figures=_figures_of(runs, figures),
    )


def _claim_of_own(claim: Claim) -> Html:
    findings = _one_after_another(map(_finding_html, claim.findings))
    return _filled("own_claim", id=claim.id, claim=claim.claim, findings=findings)


def _figures_of(runs: Sequence[Run], figures: Figures) -> Html:
    paths = [path for run in runs for path in figures[run.name]]
    return _one_after_another(map(_figure, paths), "\n")


def _claim(claim: Claim) -> Html:
    return _filled(
        "claim",
        id=claim.id,
        claim=claim.claim,
        badge=_badge(claim.verdict),
        paper=claim.paper,
        findings=_one_after_another(map(_finding_html, claim.findings)),
        criterion=claim.criterion,
    )


def _finding_html(finding: Finding) -> Html:
    return _filled(
        "finding",
        badge=_badge(finding.verdict),
        ours=finding.ours,
        details=_filled("list", items=_items(finding.details)) if finding.details else "",
        scale=finding.scale,
        runs=", ".join(finding.runs),
        cells=str(len(finding.cells)),
    )


def _badge(verdict: str) -> Html:
    return _filled("badge", kind=verdict.replace(" ", "-"), verdict=verdict)


def _items(texts: Iterable[str]) -> Html:
    return _one_after_another(_filled("item", text=text) for text in texts)


def _figure(png: Path) -> Html:
    return _filled(
        "figure",
        name=png.stem,
        data=base64.b64encode(png.read_bytes()).decode(),
        run=png.parent.parent.name,
        caption=_caption_beside(png),
    )


def _caption_beside(png: Path) -> str:
    """What a figure shows, as it is written below its picture in Markdown."""
    _, _, caption = png.with_suffix(".md").read_text(encoding="utf-8").split("\n", 2)
    return caption.strip()


def _run(run: Run) -> Html:
    about = f"{run.kind}, {len(run.records)} records"
    if run.unfinished:
        about += f"; {run.unfinished} not finished, so no claim is judged on this run"
    origins = _items(summary.origin_lines(run.records))
    return _filled("run", name=run.name, about=about, origins=origins)


def _table(table: Table) -> Html:
    titles = _one_after_another(_filled("title", text=title) for title in table.titles)
    rows = _one_after_another(_table_row(line) for line in table.texts)
    return _filled("table", titles=titles, rows=rows)


def _table_row(texts: Sequence[str]) -> Html:
    cells = _one_after_another(_filled("cell", text=text) for text in texts)
    return _filled("row", cells=cells)


def _settings() -> Table:
    """Every setting with its default and its reason."""
    rows: list[Row] = []
    for section, kind in SECTIONS.items():
        for field in dataclasses.fields(kind):
            default = "" if field.default is None else str(field.default)
            setting = f"{section}.{field.name}"
            rows.append({"setting": setting, "default": default, "why": field.metadata["why"]})
    return Table(rows, [Column(key, key) for key in ("setting", "default", "why")])
