"""How the documentation is built: `make docs`, and then docs/_build/html/index.html.

Pages are plain Markdown, so that they read well where nobody has built them. When they are built,
examples in Python are run, from the top of a page to its end, and what they print takes the place
of what the page shows: a page whose example fails is not built. Examples that need PyTorch are left
as they are; the tests run those (tests/test_*_torch.py). So are examples marked `py`, which show a
part of a program, or need what is not installed here.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

from sphinx.application import Sphinx

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
# Examples call `cbundles` as a user would, who has activated the environment.
os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])

import generated_pages  # noqa: E402  (it lies beside this file)

import cbundles  # noqa: E402

project = "cbundles"
release = version = cbundles.__version__
author = "the authors of cbundles"
html_theme = "furo"
html_title = f"cbundles {release}"
exclude_patterns = ["_build"]

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
]
myst_heading_anchors = 3
nb_execution_mode = "force"
nb_execution_in_temp = True
nb_execution_raise_on_error = True
nb_execution_show_tb = True
nb_execution_timeout = 120
autodoc_member_order = "bysource"
autodoc_typehints = "description"

NOTEBOOK = "---\nfile_format: mystnb\nkernelspec:\n  name: python3\n---\n\n"
EXAMPLE = re.compile(
    r"^```python\n(?P<code>[\s\S]*?)^```\n(?P<shown>(?:\n*    .+\n)*)", re.MULTILINE
)


def run_examples(app: Sphinx, page: str, source: list[str]) -> None:
    """Make a page with examples in Python a notebook, whose cells these are. What the page shows
    that they print, which is indented and follows at once, gives way to what they do print."""
    text = source[0]
    if not any("torch" not in example["code"] for example in EXAMPLE.finditer(text)):
        return
    source[0] = NOTEBOOK + EXAMPLE.sub(_as_cell, text)


def _as_cell(example: re.Match[str]) -> str:
    if "torch" in example["code"]:
        return example[0]
    return f"```{{code-cell}} ipython3\n{example['code']}```\n"


def lead_to_generated_pages(app: Sphinx, page: str, source: list[str]) -> None:
    """Let links to documents beside docs/ lead to the pages that are made of them."""
    for path, name in generated_pages.OF_DOCUMENTS.items():
        source[0] = source[0].replace(f"](../{path}", f"](generated/{name}.md")


def setup(app: Sphinx) -> None:
    generated_pages.write(HERE / "generated")
    app.connect("source-read", lead_to_generated_pages)
    app.connect("source-read", run_examples)
