"""Plain data from YAML, and a message for whatever YAML reads otherwise than people do.

PyYAML knows YAML 1.1, in which ``012`` is ten and ``1:30`` is ninety: both are refused, since YAML
1.2, and whoever typed them, read something else. So are a key that is given twice, mappings that
are merged (``<<``), and data that contain themselves or grow out of bounds by aliases. ``off`` is a
word, as in YAML 1.2.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NoReturn

import yaml
from yaml.constructor import ConstructorError

from cbundles.errors import InputError, in_one_line, quoted

LONGEST_FILE = 10_000_000  # characters
DEEPEST = 20  # lists and mappings inside one another; a configuration has four
MOST_VALUES = 1_000_000  # an axis of the largest grid has a tenth
OCTAL = re.compile(r"[-+]?0[0-9_]+")
BOOLEAN = "tag:yaml.org,2002:bool"
MERGE = "tag:yaml.org,2002:merge"
TRUE_OR_FALSE = re.compile(r"(true|True|TRUE|false|False|FALSE)$")


def text_of(path: Path) -> str:
    """The text of a file. FileNotFoundError when there is none, InputError when it cannot be read
    or is longer than any configuration."""
    try:
        with path.open(encoding="utf-8") as file:
            text = file.read(LONGEST_FILE + 1)
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read: {error}") from None
    if len(text) > LONGEST_FILE:
        raise InputError(f"{path}: more than {LONGEST_FILE:,} characters; no configuration")
    return text


def parse_yaml(text: str, place: str) -> Any:
    """Plain data from YAML; place: what a message calls the text."""
    try:
        content = yaml.load(text, _StrictLoader)  # a SafeLoader: plain data only
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        problem = in_one_line(getattr(error, "problem", None) or error)
        raise InputError(f"{place}{line}: not valid YAML: {problem}") from None
    except RecursionError:
        raise InputError(f"{place}: {_too_deep()}") from None
    _require_finite(content, place)
    return content


def _require_finite(content: Any, place: str) -> None:
    """InputError for data that contain themselves, or more than anybody can mean."""
    level, values = [content], 0
    for _ in range(DEEPEST):
        below: list[Any] = []
        for value in level:
            if isinstance(value, dict):
                below += [*value.keys(), *value.values()]
            elif isinstance(value, (list, tuple, set)):
                below += value
            if values + len(below) > MOST_VALUES:
                raise InputError(f"{place}: more than {MOST_VALUES:,} values; shorten it")
        values += len(below)
        level = below
        if not level:
            return
    raise InputError(f"{place}: {_too_deep()}")


def _too_deep() -> str:
    return f"lists and mappings more than {DEEPEST} deep, or one that contains itself"


class _StrictLoader(yaml.SafeLoader):
    """SafeLoader that refuses instead of guessing."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """A tag that does not fit, such as ``!!bool abc``, makes PyYAML raise many kinds."""
        try:
            return super().construct_object(node, deep)
        except (ValueError, LookupError, TypeError, AttributeError, OverflowError):
            kind = node.tag.rpartition(":")[2]
            found = quoted(node.value) if isinstance(node, yaml.ScalarNode) else "what follows"
            _refuse(f"{found} is no {kind}", node)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        if not isinstance(node, yaml.MappingNode):
            _refuse("expected a mapping", node)
        for key_node, _ in node.value:
            if key_node.tag == MERGE:
                _refuse("<< merges mappings, which YAML 1.2 does not; write the keys", key_node)
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, (str, int, float)) and key in seen:
                _refuse(f"key {quoted(key)} is given twice", key_node)
            seen.add(key if isinstance(key, (str, int, float)) else str(key))
        return super().construct_mapping(node, deep)

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        text = self.construct_scalar(node)
        _refuse_base_60(text, node)
        if OCTAL.fullmatch(text) and text.strip("+-0_"):
            decimal = text.replace("_", "").lstrip("+-0")
            sign = "-" if text.startswith("-") else ""
            problem = "an octal number in YAML 1.1 and a decimal one in YAML 1.2"
            _refuse(
                f"{in_one_line(text)} is {problem}; nearest valid: {sign}{in_one_line(decimal)}",
                node,
            )
        return super().construct_yaml_int(node)

    def construct_yaml_float(self, node: yaml.ScalarNode) -> float:
        _refuse_base_60(self.construct_scalar(node), node)
        return super().construct_yaml_float(node)


# PyYAML takes yes, no, on and off for booleans, too, of which `off` is the value of a setting.
_StrictLoader.yaml_implicit_resolvers = {
    letter: [(tag, pattern) for tag, pattern in resolvers if tag != BOOLEAN]
    for letter, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_StrictLoader.add_implicit_resolver(BOOLEAN, TRUE_OR_FALSE, list("tTfF"))

# PyYAML finds constructors by tag, not by their names.
_StrictLoader.add_constructor("tag:yaml.org,2002:int", _StrictLoader.construct_yaml_int)
_StrictLoader.add_constructor("tag:yaml.org,2002:float", _StrictLoader.construct_yaml_float)


def _refuse_base_60(text: str, node: yaml.Node) -> None:
    if ":" in text:
        _refuse(
            f"{in_one_line(text)} is a number to the base of 60 in YAML 1.1; write a decimal one",
            node,
        )


def _refuse(problem: str, node: yaml.Node) -> NoReturn:
    raise ConstructorError(None, None, problem, node.start_mark)
