"""The report: claims as CSV, Markdown and LaTeX, and everything on one self-contained page."""

from __future__ import annotations

import base64
import dataclasses
from collections import Counter
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from cbundles.config import SECTIONS
from cbundles.report import summary, table1, tables, views
from cbundles.report.claims.finding import NOT_RUN, Claim
from cbundles.report.runs import Run
from cbundles.store import write_atomically

MIXED = "depends on the scale"
ABOUT = (
    "Claims of the paper, judged by criteria that were fixed before any result was seen. Each "
    "finding names its scale: data set, network, epochs, networks, seeds. Where a scale is smaller "
    "than the paper's, the same criterion is applied at that scale."
)


def verdict(claim: Claim) -> str:
    """The verdict that all scales agree on."""
    found = set(claim.verdicts)
    return found.pop() if len(found) == 1 else MIXED


def counts(claims: Sequence[Claim]) -> str:
    """``14 reproduced, 2 not reproduced, 4 not run``."""
    counted = Counter(map(verdict, claims))
    return ", ".join(f"{number} {name}" for name, number in sorted(counted.items()))


def rows(claims: Sequence[Claim]) -> list[dict[str, Any]]:
    """One row for each claim and scale."""
    lines = []
    for claim in claims:
        about = {"id": claim.id, "claim": claim.claim, "paper": claim.paper}
        for finding in claim.findings:
            lines.append(
                {**about, "ours": finding.text, "scale": finding.scale,
                 "verdict": finding.verdict, "criterion": claim.criterion,
                 "runs": " ".join(finding.runs), "cells": " ".join(finding.cells)}
            )  # fmt: skip
        if not claim.findings:
            empty = dict.fromkeys(("ours", "scale"), "")
            lines.append({**about, **empty, "verdict": NOT_RUN, "criterion": claim.criterion,
                          "runs": "", "cells": ""})  # fmt: skip
    return lines


COLUMNS = ("id", "claim", "paper", "ours", "scale", "verdict", "runs")


def markdown(claims: Sequence[Claim]) -> str:
    lines = ["# Claims", "", ABOUT, "", f"{counts(claims)}.", ""]
    lines += ["| " + " | ".join(COLUMNS) + " |", "|" + " --- |" * len(COLUMNS)]
    for row in rows(claims):
        lines.append(
            "| " + " | ".join(row[column].replace("|", "\\|") for column in COLUMNS) + " |"
        )
    lines += ["", "## Criteria", ""]
    lines += [f"- **{claim.id}** {claim.criterion}" for claim in claims]
    return "\n".join(lines) + "\n"


def latex(claims: Sequence[Claim]) -> str:
    """A table for `booktabs` and `tabularx`."""
    shown = ("id", "claim", "paper", "ours", "scale", "verdict")
    body = [tables.latex_row([row[column] for column in shown]) for row in rows(claims)]
    head = [
        r"\begin{tabularx}{\textwidth}{lXXXXl}",
        r"\toprule",
        tables.latex_row(shown),
        r"\midrule",
    ]
    return "\n".join([*head, *body, r"\bottomrule", r"\end{tabularx}"]) + "\n"


def write(
    claims: Sequence[Claim], runs: Sequence[Run], figures: Sequence[Path], root: Path
) -> list[Path]:
    """Write claims.{md,csv,tex} and report.html into a results folder; returns their paths."""
    texts = {
        "claims.md": markdown(claims),
        "claims.csv": tables.csv_text(rows(claims)),
        "claims.tex": latex(claims),
        "report.html": html(claims, runs, figures),
    }
    for name, text in texts.items():
        write_atomically(root / name, text)
    return [root / name for name in texts]


def html(claims: Sequence[Claim], runs: Sequence[Run], figures: Sequence[Path]) -> str:
    """Everything on one page, the figures (PNG, with their captions) included; it loads nothing."""
    parts = [
        "<h1>Conflicting bundles: the paper's statements beside ours</h1>",
        f"<p>{escape(ABOUT)}</p><p><b>{escape(counts(claims))}</b></p>",
        "<h2 id=claims>Claims</h2>",
        *map(_claim, claims),
        "<h2 id=table1>Table 1</h2>",
        f"<p>{escape(table1.CAPTION)}</p>",
        _table([table1.COLUMNS, *(list(row.values()) for row in _table1(runs))]),
        "<h2 id=figures>Figures</h2>",
        *map(_figure, figures),
        "<h2 id=runs>Where the numbers come from</h2>",
        *map(_provenance, runs),
        "<h2 id=settings>Settings</h2>",
        "<p>Where the paper and its original code disagree, the choice is a setting.</p>",
        _table([("setting", "default", "why"), *_settings()]),
    ]
    links = " ".join(
        f"<a href=#{part}>{part}</a>"
        for part in ("claims", "table1", "figures", "runs", "settings")
    )
    return (
        "<!doctype html><html lang=en><meta charset=utf-8>"
        "<meta name=viewport content='width=device-width, initial-scale=1'>"
        f"<title>cbundles report</title><style>{STYLE}</style>"
        f"<nav>{links}</nav><main>" + "\n".join(parts) + "</main></html>\n"
    )


STYLE = """
body{font:16px/1.5 system-ui,sans-serif;margin:0;color:#1b1b1b;background:#fff}
main{max-width:60rem;margin:0 auto;padding:0 1rem 4rem}
nav{position:sticky;top:0;background:#1b1b1b;padding:.5rem 1rem}
nav{display:flex;gap:1rem;flex-wrap:wrap}
nav a{color:#fff}
h2{margin-top:2.5rem;border-bottom:1px solid #ccc}
.claim{border:1px solid #ddd;border-radius:.5rem;padding:.6rem .9rem;margin:.8rem 0}
.claim p,.claim ul{margin:.3rem 0}.claim li{font-size:.9rem}
.small{color:#555;font-size:.85rem;overflow-wrap:anywhere}
.badge{border-radius:1rem;padding:.05rem .6rem;font-size:.8rem;color:#fff;white-space:nowrap}
.reproduced{background:#1a7f37}.not-reproduced{background:#b42318}.not-run{background:#6b6b6b}
.depends-on-the-scale{background:#9a6700}
.scroll{overflow-x:auto}table{border-collapse:collapse;font-size:.85rem}
td,th{border-bottom:1px solid #ddd;padding:.25rem .6rem;text-align:left;vertical-align:top}
figure{margin:1.5rem 0}img{max-width:100%;height:auto}figcaption{color:#555;font-size:.85rem}
"""


def _badge(text: str) -> str:
    return f"<span class='badge {text.replace(' ', '-')}'>{escape(text)}</span>"


def _claim(claim: Claim) -> str:
    findings = "".join(
        f"<p>{_badge(f.verdict)} {escape(f.ours)}</p>"
        + (f"<ul>{''.join(f'<li>{escape(one)}</li>' for one in f.details)}</ul>" * bool(f.details))
        + f"<p class=small>{escape(f.scale)}; "
        f"records: {escape(' '.join(f.runs))} ({len(f.cells)})</p>"
        for f in claim.findings
    )
    return (
        f"<section class=claim id={claim.id}><p><b>{claim.id}</b> {escape(claim.claim)} "
        f"{_badge(verdict(claim))}</p><p class=small>Paper: {escape(claim.paper)}</p>{findings}"
        f"<p class=small>Criterion: {escape(claim.criterion)}</p></section>"
    )


def _table(lines: Sequence[Sequence[str]]) -> str:
    head, *body = ["".join(f"<td>{escape(value)}</td>" for value in line) for line in lines]
    return (
        "<div class=scroll><table><tr>" + head.replace("td>", "th>") + "</tr>"
        + "".join(f"<tr>{line}</tr>" for line in body) + "</table></div>"
    )  # fmt: skip


def _table1(runs: Sequence[Run]) -> list[dict[str, str]]:
    return table1.rows([group for run in runs for group in table1.of_run(run)])


def _figure(png: Path) -> str:
    data = base64.b64encode(png.read_bytes()).decode()
    caption = png.with_suffix(".md").read_text().split("\n", 2)[2].strip()
    return (
        f"<figure><img alt='{escape(png.stem)}' src='data:image/png;base64,{data}'>"
        f"<figcaption><b>{escape(png.parent.parent.name)}/{escape(png.stem)}</b>: {escape(caption)}"
        "</figcaption></figure>"
    )


def _provenance(run: Run) -> str:
    origins = "".join(
        f"<li>{escape(views.origin_line(origin))}</li>" for origin in summary.origins(run.records)
    )
    kind = f"{run.kind}, {len(run.records)} records"
    if run.unfinished:
        kind += f"; {run.unfinished} not finished, so no claim is judged on this run"
    return f"<h3>{escape(run.name)}</h3><p class=small>{kind}</p><ul class=small>{origins}</ul>"


def _settings() -> list[tuple[str, str, str]]:
    return [
        (f"{section}.{field.name}", "" if field.default is None else str(field.default),
         field.metadata["why"])
        for section, kind in SECTIONS.items()
        for field in dataclasses.fields(kind)
    ]  # fmt: skip
