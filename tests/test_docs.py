"""The documentation: every public name says what it needs, and is listed; every command that a page
shows is one that the program understands; examples become cells. `make docs` runs them."""

from __future__ import annotations

import importlib.util
import inspect
import re
import shlex
import sys

import pytest
import typer
from documented_commands import DOCS, commands_shown
from typer._click.exceptions import MissingParameter

import cbundles
from cbundles import cli, config

# What the docstring of each public function or class must tell, besides what it is.
SHAPES = re.compile(r"\(N|\(samples|first\s+axis|samples\s+first")
ERRORS = re.compile(r"Raises|raises")
SOURCE = re.compile(r"paper|of our own|sec\. \d|et al\.|in the papers")
COMMANDS = typer.main.get_command(cli.app)


def module_of_docs(name):
    """A module that lies beside the pages."""
    spec = importlib.util.spec_from_file_location(name, DOCS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def public_objects():
    return [
        (name, getattr(cbundles, name))
        for name in cbundles.__all__
        if inspect.isclass(getattr(cbundles, name)) or inspect.isfunction(getattr(cbundles, name))
    ]


@pytest.mark.parametrize(("name", "public"), public_objects())
def test_a_public_name_says_what_it_needs(name, public):
    text = inspect.getdoc(public)
    if inspect.isfunction(public):
        assert "Args:" in text and ERRORS.search(text), name
        for parameter in inspect.signature(public).parameters:
            assert re.search(rf"\b{parameter}\b", text), f"{name}: {parameter}"
    else:
        assert len(text.splitlines()) > 1, name
        for member, value in vars(public).items():
            if isinstance(value, property) and not member.startswith("_"):
                assert inspect.getdoc(value), f"{name}.{member}"


@pytest.mark.parametrize("name", ["audit", "bundle_entropy", "headroom"])
def test_what_measures_gives_shapes_and_sources(name):
    text = inspect.getdoc(getattr(cbundles, name))
    assert SHAPES.search(text) and SOURCE.search(text)


def test_every_public_name_is_on_the_page_of_names():
    page = (DOCS / "api.md").read_text()
    for name in cbundles.__all__:
        assert name.startswith("__") or re.search(rf"\b{name}\b", page), name


def test_every_page_is_in_the_table_of_contents():
    index = (DOCS / "index.md").read_text()
    generated = {
        "settings",
        "command-line",
        *module_of_docs("generated_pages").OF_DOCUMENTS.values(),
    }
    for page in DOCS.glob("*.md"):
        assert page.stem == "index" or f"\n{page.stem}\n" in index, page
    assert set(re.findall(r"^generated/(.*)$", index, re.MULTILINE)) == generated


@pytest.mark.parametrize(
    ("line", "is_whole"),
    [pytest.param(shown.line, shown.is_whole, id=shown.name) for shown in commands_shown()],
)
def test_a_command_that_a_page_shows_is_understood(line, is_whole):
    group = COMMANDS.make_context("cbundles", shlex.split(line))
    name, *arguments = [*group._protected_args, *group.args]
    assert name in COMMANDS.commands
    try:
        COMMANDS.commands[name].make_context(name, arguments)
    except MissingParameter:
        assert not is_whole


def test_every_setting_is_on_the_page_of_settings():
    page = module_of_docs("generated_pages").settings_page()
    for section, schema in config.SECTIONS.items():
        assert f"\n## {section}\n" in page
        for name in schema.__dataclass_fields__:
            assert f"\n| `{name}` | " in page
    assert "| `seed` | `0` | from 0 to 4294967295 |" in page
    assert "| `weight_decay` | `0.01` | from 0 to 10 |" in page
    assert "| `block` | `plain-relu` | `plain-relu`, " in page


def test_examples_in_python_become_cells():
    conf = (DOCS / "conf.py").read_text()
    start, end = conf.index("NOTEBOOK ="), conf.index("def lead_to")
    names = {"re": re, "Sphinx": object}
    exec(compile(conf[start:end], "docs/conf.py", "exec"), names)
    page = (
        "# A page\n\n```python\nprint(1)\n\nprint(2)\n```\n\n    1\n    2\n\nA text.\n\n"
        "```python\nimport torch\n```\n\n    kept\n"
    )
    source = [page]
    names["run_examples"](None, "page", source)
    assert source[0].startswith(names["NOTEBOOK"])
    assert "```{code-cell} ipython3\nprint(1)\n\nprint(2)\n```\n\nA text." in source[0]
    assert source[0].endswith("```python\nimport torch\n```\n\n    kept\n")
    plain = ["# A page\n\n```bash\nls\n```\n"]
    names["run_examples"](None, "page", plain)
    assert plain[0].startswith("# A page")
