"""Everything on one self-contained page: claims, table 1, figures, where the numbers come from.

How the page looks is in `page.html` and `page.css`; here its parts are filled with what the records
say. What its maps do under the pointer is in `page.js`.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path

from cbundles.config import SECTIONS
from cbundles.files import write_atomically
from cbundles.report import summary, table1, table1_small
from cbundles.report.claims.finding import REPRODUCED, Claim, Finding
from cbundles.report.claims_table import ABOUT, ABOUT_PLANS, PLANS_TITLE, counted_verdicts
from cbundles.report.gathering import Gathered
from cbundles.report.page_figures import Figures, figure_html, figures_by_run, links_to_figures
from cbundles.report.page_parts import (
    TEMPLATE,
    Html,
    anchor_of,
    filled,
    list_items,
    one_after_another,
    table_html,
    verbatim,
)
from cbundles.report.runs import Run
from cbundles.report.table import Column, Row, Table
from cbundles.report.worked_study import StudyFolder
from cbundles.report.worked_tables import table_of_orders, table_of_smaller
from cbundles.report.worked_text import about_smaller, study_sentences
from cbundles.wording import counted

BUNDLES = (
    "A bundle is a set of samples whose activations in a layer differ by less than one weight "
    "update can see; they still differ, and later layers may separate them. It conflicts when its "
    "samples have different labels. The bundle entropy H says how much the bundles of a layer mix "
    "classes: 0 if none does, and at most the entropy of the labels, when all samples are one "
    "bundle."
)


def write_page(
    claims: Sequence[Claim],
    planned: Sequence[Claim],
    of_own: Sequence[Claim],
    gathered: Gathered,
    figures: Figures,
    folder: Path,
) -> Path:
    """Write report.html into a results folder; returns its path."""
    path = folder / "report.html"
    write_atomically(path, page_of(claims, planned, of_own, gathered, figures))
    return path


def page_of(
    claims: Sequence[Claim],
    planned: Sequence[Claim],
    of_own: Sequence[Claim],
    gathered: Gathered,
    figures: Figures,
) -> str:
    """Everything on one page, figures included; it loads nothing.

    claims: of the paper
    planned: of our own
    of_own: what the criteria of both say of runs that no claim is judged on
    """
    of_table1 = table1_small.left_for_table1(gathered.judged)
    page = filled(
        "page",
        style=_beside_template("page.css"),
        script=_beside_template("page.js"),
        headline=_headline(claims),
        bundles=BUNDLES,
        about=ABOUT,
        verdicts=counted_verdicts(claims),
        claims=one_after_another((_claim(claim, figures) for claim in claims), "\n"),
        plans_title=PLANS_TITLE,
        about_plans=ABOUT_PLANS,
        verdicts_on_plans=counted_verdicts(planned),
        plans=one_after_another((_claim(claim, figures) for claim in planned), "\n"),
        table1_caption=table1.CAPTION,
        table1=table_html(table1.comparison(of_table1), "Table 1"),
        table1_small=_tables_in_small(gathered.judged),
        studies=_worked_studies(gathered.studies, figures) if gathered.studies else Html(),
        figures=figures_by_run(gathered.presented, figures),
        own=_own_runs(gathered.own, of_own, figures) if gathered.own else "None.",
        runs=one_after_another(map(_run, gathered.presented), "\n"),
        damaged=_left_out(gathered.damaged) if gathered.damaged else Html(),
        settings=table_html(_settings(), "Settings"),
    )
    return f"{page}\n"


def _beside_template(name: str) -> Html:
    return Html(TEMPLATE.with_name(name).read_text(encoding="utf-8").strip())


def _headline(claims: Sequence[Claim]) -> str:
    """``12 of 20 claims reproduced``."""
    reproduced = sum(claim.verdict == REPRODUCED for claim in claims)
    return f"{reproduced} of {counted(len(claims), 'claim')} reproduced"


def _left_out(damaged: Sequence[str]) -> Html:
    items = one_after_another(filled("item", text=verbatim(text)) for text in damaged)
    return filled("damaged", items=items)


def _tables_in_small(runs: Sequence[Run]) -> Html:
    """Table 1 with fewer filters and epochs, once for each scale; nothing where none was run."""
    shown = [
        filled(
            "small_table",
            title=small.title,
            caption=small.caption,
            table=table_html(small.table, small.title),
        )
        for small in table1_small.small_tables(runs)
    ]
    return one_after_another(shown, "\n")


def _worked_studies(studies: Sequence[StudyFolder], figures: Figures) -> Html:
    """Studies of networks of other libraries, on which no claim is judged."""
    shown = [
        filled(
            "study",
            name=verbatim(worked.name),
            told=list_items(study_sentences(worked.study)),
            orders=table_html(table_of_orders(worked.study), "Orders"),
            about_smaller=about_smaller(worked.study),
            smaller=table_html(table_of_smaller(worked.study), "Smaller networks"),
            figures=one_after_another(figure_html(worked.name, p) for p in figures[worked.name]),
        )
        for worked in studies
    ]
    return filled("studies", studies=one_after_another(shown, "\n"))


def _own_runs(runs: Sequence[Run], claims: Sequence[Claim], figures: Figures) -> Html:
    """Runs that no claim of the paper is judged on; what its criteria would say of them."""
    applied = [claim for claim in claims if claim.findings]
    return filled(
        "own",
        runs=one_after_another(map(_run, runs), "\n"),
        claims=one_after_another((_claim(claim, figures, "own") for claim in applied), "\n"),
        figures=figures_by_run(runs, figures),
    )


def _claim(claim: Claim, figures: Figures, *prefix: str) -> Html:
    """prefix: of its anchor, where claims are also above."""
    runs = [run for finding in claim.findings for run in finding.runs]
    return filled(
        "claim",
        anchor=anchor_of(*prefix, claim.id),
        id=claim.id,
        claim=claim.claim,
        badge=_badge(claim.verdict, _verdict_in_full(claim)),
        background=claim.background,
        findings=_findings(claim.findings),
        shown_in=links_to_figures(claim.id, runs, figures),
        criterion=claim.criterion,
    )


def _findings(findings: Sequence[Finding]) -> Html:
    """Each with its verdict; a single one has that of the claim."""
    badges = [Html()]
    if len(findings) > 1:
        badges = [_badge(finding.verdict, finding.verdict_in_full) for finding in findings]
    return one_after_another(map(_finding_html, findings, badges))


def _finding_html(finding: Finding, badge: Html) -> Html:
    return filled(
        "finding",
        badge=badge,
        ours=finding.ours,
        details=filled("list", items=list_items(finding.details)) if finding.details else Html(),
        scale=finding.scale,
        runs=verbatim(", ".join(finding.runs)),
        cells=str(len(finding.cells)),
    )


def _verdict_in_full(claim: Claim) -> str:
    """The verdict on a claim; where a single finding makes it, with its kind."""
    in_full = [finding.verdict_in_full for finding in claim.findings]
    return in_full[0] if len(in_full) == 1 else claim.verdict


def _badge(verdict: str, in_full: str) -> Html:
    return filled("badge", kind=re.sub(r"\W+", "-", verdict), verdict=in_full)


def _run(run: Run) -> Html:
    about = f"{run.kind}, {counted(len(run.records), 'record')}"
    if run.unfinished:
        about += f"; {run.unfinished} not finished, so no claim is judged on this run"
    origins = list_items(summary.origin_lines(run.records))
    return filled("run", name=verbatim(run.name), about=about, origins=origins)


def _settings() -> Table:
    """Every setting with its default and its reason."""
    rows: list[Row] = []
    for section, kind in SECTIONS.items():
        for field in dataclasses.fields(kind):
            default = "" if field.default is None else str(field.default)
            setting = f"{section}.{field.name}"
            rows.append({"setting": setting, "default": default, "why": field.metadata["why"]})
    return Table(rows, [Column(key, key) for key in ("setting", "default", "why")])
