"""The report's page: that it is sound as a document, and what it does in a real browser."""

from __future__ import annotations

import re
import shutil
from html.parser import HTMLParser

import browser
import pytest
from conftest import ROOT
from records import record

from cbundles.report import claims, gathering, page, runs, views
from cbundles.report.page_parts import filled
from cbundles.report.words import with_signs
from cbundles.store import Store

LARGEST = 150_000  # bytes for each published run on their page, the mean
NEEDED_CONTRAST = 4.5  # WCAG AA, text of ordinary size
NARROW = 400  # pixels


def page_under(root, named):
    """Write the figures and the page of the runs in a folder; returns the path of the page."""
    gathered = gathering.gather(root, named)
    figures = {run.name: views.write(run) for run in [*gathered.presented, *gathered.own]}
    figures |= {worked.name: views.write_worked(worked) for worked in gathered.studies}
    judged, planned = claims.judge(gathered.judged), claims.judge_plans(gathered.judged)
    of_own = [*claims.judge(gathered.own), *claims.judge_plans(gathered.own)]
    return page.write_page(judged, planned, of_own, gathered, figures, root)


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """The page of the toy, a grid that is judged, and one of a user's."""
    root = tmp_path_factory.mktemp("results")
    (root / "toy").mkdir()
    for name in ("run.json", "records.jsonl.gz"):
        shutil.copy(ROOT / "results/toy" / name, root / "toy")
    for name, published in (("grid", True), ("mine", False)):
        grid = [
            record(depth, width, seed, first=width if depth > width else None, accuracy=1 / depth)
            for depth in (5, 25, 50)
            for width in (4, 10, 20)
            for seed in range(3)
        ]
        store = Store(root / name)
        for made in grid:
            store.finish(made)
        cells = [made.id for made in grid]
        description = {"name": name, "kind": "sweep", "cells": cells, "data": {}}
        store.write_run({**description, "published": published})
    return page_under(root, ("toy", "grid"))


class Outline(HTMLParser):
    """The headings, links, pictures and anchors of a page."""

    def __init__(self, text):
        super().__init__()
        self.levels, self.links, self.alternatives, self.anchors = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        if re.fullmatch("h[1-6]", tag):
            self.levels.append(int(tag[1]))
        if tag == "a":
            self.links.append(values["href"])
        if tag == "img":
            self.alternatives.append(values["alt"])
        if "id" in values:
            self.anchors.append(values["id"])


def require_sound_document(path):
    text = path.read_text(encoding="utf-8")
    outline = Outline(text)
    assert outline.levels.count(1) == 1 and outline.levels[0] == 1
    steps = zip(outline.levels, outline.levels[1:], strict=False)
    assert all(below <= above + 1 for above, below in steps)
    assert len(set(outline.anchors)) == len(outline.anchors)
    for link in outline.links:
        landed = link[1:] in outline.anchors if link[0] == "#" else (path.parent / link).is_file()
        assert landed, link
    assert outline.alternatives and all(len(said) > 20 for said in outline.alternatives)
    assert not re.search(r"(src|href)=.?(https?:|//)|@import|url\(", text)
    prose = re.sub(r"<(script|style).*?</\1>|base64,[\w+/=]*", "", text, flags=re.DOTALL)
    for typed in ("H^", "&gt;=", "&lt;=", "+-"):
        assert typed not in prose, typed


def test_the_page_is_a_sound_document(report):
    require_sound_document(report)


def test_claims_lead_to_the_figures_that_show_them(report):
    text = report.read_text(encoding="utf-8")
    (learns,) = re.findall(r"<section class=claim id='C1'>.*?</section>", text, re.DOTALL)
    assert "href='#toy-fig2_toy'" in learns
    (boundary,) = re.findall(r"<section class=claim id='C10'>.*?</section>", text, re.DOTALL)
    assert "href='#grid-fig1_accuracy_map'" in boundary
    (ours,) = re.findall(r"<section class=claim id='own-C10'>.*?</section>", text, re.DOTALL)
    assert "href='#mine-fig1_accuracy_map'" in ours


def test_a_picture_that_shows_nothing_is_not_drawn(tmp_path):
    """One network without conflicts has neither a map nor a line that says more than a number."""
    store = Store(tmp_path / "one")
    only = record(5, 10)
    store.finish(only)
    store.write_run({"name": "one", "kind": "sweep", "cells": [only.id], "data": {}})
    store.figures.mkdir()
    (store.figures / "fig1_accuracy_map.png").touch()  # of an earlier version
    assert views.write(runs.read(store.folder)) == []
    assert list(store.figures.iterdir()) == []


def test_signs_that_keyboards_lack():
    typed = "H^L >= 0.98 ln 10, lag-1 <= 0.3, -0.5 +- 0.1 by gradient x activation, 1e-05, alpha"
    signs = "Hᴸ ≥ 0.98 ln 10, lag-1 ≤ 0.3, −0.5 ± 0.1 by gradient × activation, 1e-05, α"
    assert with_signs(typed) == signs
    assert filled("item", text="a < b") == "<li>a &lt; b</li>"


@pytest.fixture(scope="module")
def tab(tmp_path_factory):
    if browser.PATH is None:
        pytest.skip("skipped: no Chromium here (Debian: apt-get install chromium)")
    opened = browser.Browser(tmp_path_factory.mktemp("profile"))
    yield opened
    opened.close()


OPEN_ALL = "document.querySelectorAll('details').forEach(part => part.open = true)"
WIDTHS = "[document.documentElement.scrollWidth, innerWidth]"
CONTRASTS = """
(() => {
  const channels = colour => colour.match(/[\\d.]+/g).map(Number);
  const light = colour => channels(colour).slice(0, 3).map(c => c / 255)
    .map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = part => {
    const colour = part ? getComputedStyle(part).backgroundColor : "rgb(255, 255, 255)";
    return channels(colour)[3] === 0 ? behind(part.parentElement) : colour;
  };
  const texts = [...document.querySelectorAll("body *")].filter(part =>
    part.checkVisibility() && [...part.childNodes].some(n => n.nodeType === 3 && n.data.trim()));
  return texts.map(part => {
    const [a, b] = [light(getComputedStyle(part).color), light(behind(part))];
    return [(Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), part.outerHTML.slice(0, 80)];
  });
})()
"""
# Where in the window a cell of the first map of a figure lies, counted from the lower left.
PLACE_OF_CELL = """
(() => {{
  const area = document.querySelector("#{figure} .map");
  area.scrollIntoView({{block: "center"}});
  const box = area.getBoundingClientRect();
  return [box.left + box.width * {column}, box.bottom - box.height * {line}];
}})()
"""
TOLD = "document.querySelector('#{figure} .told').textContent"


def require_sound_in_browser(tab, path, width):
    tab.open(path.as_uri(), width=width)
    tab.value(OPEN_ALL)
    inside, window = tab.value(WIDTHS)
    assert inside <= window == width
    contrasts = tab.value(CONTRASTS)
    assert len(contrasts) > 50
    assert [some for some in contrasts if some[0] < NEEDED_CONTRAST] == []
    assert tab.complaints() == []
    assert set(tab.requests()) <= {"about:blank", path.as_uri()}


@pytest.mark.parametrize("width", [NARROW, 1280])
def test_in_a_browser_nothing_is_loaded_and_nothing_overflows(tab, report, width):
    require_sound_in_browser(tab, report, width)


def test_a_link_into_what_is_folded_opens_it(tab, report):
    tab.open(f"{report.as_uri()}#grid-fig1_accuracy_map")
    top = "document.getElementById('{}').getBoundingClientRect().top"
    assert 0 <= tab.value(top.format("grid-fig1_accuracy_map")) < 200
    tab.value("document.querySelector('#C1 a').click()")
    tab.value("new Promise(requestAnimationFrame)")
    assert 0 <= tab.value(top.format("toy-fig2_toy")) < 200


def test_a_cell_tells_its_numbers_under_the_pointer(tab, report):
    figure = "grid-fig1_accuracy_map"
    tab.open(f"{report.as_uri()}#{figure}")
    assert tab.value(TOLD.format(figure=figure)) == ""
    # The middle of three columns, and the uppermost of three lines.
    tab.point_at(*tab.value(PLACE_OF_CELL.format(figure=figure, column=1 / 2, line=5 / 6)))
    told = tab.value(TOLD.format(figure=figure)).splitlines()
    assert told == [
        "width 10, depth 50",
        "test accuracy: 2.0 %",
        "H of the last layer, mean over epochs: 0.500 nats",
        "first layer with H > 0 after epoch 1: 10, 10, 10",
        "seeds: 3",
    ]
    assert min(ratio for ratio, _ in tab.value(CONTRASTS)) >= NEEDED_CONTRAST
    tab.point_at(1, 400)
    assert tab.value(TOLD.format(figure=figure)) == ""
    assert tab.complaints() == []


def test_arrow_keys_choose_a_cell(tab, report):
    figure = "grid-fig4_entropy_by_layer"
    tab.open(f"{report.as_uri()}#{figure}")
    tab.value(f"document.querySelector('#{figure} .map').focus()")
    for key in ("ArrowRight", "ArrowRight", "ArrowUp"):
        tab.press(key)
    told = tab.value(TOLD.format(figure=figure)).splitlines()
    assert told == ["layer 3, epoch 1", "H in nats: 0", "bundles: 2048"]
    tab.press("End")
    told = tab.value(TOLD.format(figure=figure)).splitlines()
    assert told[:2] == ["layer 25, epoch 1", "H in nats: 0.5"]
    tab.press("Escape")
    assert tab.value(TOLD.format(figure=figure)) == ""
    tab.press("Tab")  # the next map of the figure
    assert "layer 1, epoch 0" in tab.value(TOLD.format(figure=figure))
    assert tab.complaints() == []


def test_without_javascript_it_is_a_page_with_pictures(tab, report):
    tab.do("Emulation.setScriptExecutionDisabled", value=True)
    tab.open(report.as_uri(), width=NARROW)
    assert tab.value("document.querySelectorAll('.map[tabindex]').length") == 0
    assert tab.value("document.querySelectorAll('img').length") > 5
    assert tab.value("[...document.images].every(image => image.naturalWidth > 0)")
    tab.do("Emulation.setScriptExecutionDisabled", value=False)


@pytest.mark.slow
def test_the_page_of_all_published_runs(tab, tmp_path):
    """As large as it gets: what a clone's `cbundles report` makes."""
    names = []
    for path in sorted((ROOT / "results").glob("*/run.json")):
        names.append(path.parent.name)
        (tmp_path / path.parent.name).mkdir()
        for kept in (path, *path.parent.glob("*.jsonl.gz")):
            shutil.copy(kept, tmp_path / path.parent.name)
    written = page_under(tmp_path, names)
    assert written.stat().st_size <= LARGEST * len(names)
    require_sound_document(written)
    for width in (NARROW, 1280):
        require_sound_in_browser(tab, written, width)
