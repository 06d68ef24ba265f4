"""Functions of a user, named on the command line or in a file: ``package.module:function``.

They are imported as Python imports, from the folder in which a command is started before all
others; and the file that defines them is known by a digest, so that what was made with another
version of it is not mistaken for what this one makes.

A name that stands in a record or in a kept network was not written by who reads it, and what is
called with it could be any function that is installed. So one that the user has not given in this
process, too, is followed only into the user's code: the files under the folder in which a command
is started, but what is installed there.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import importlib.util
import inspect
import sys
import sysconfig
import tokenize
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from cbundles.errors import InputError, did_you_mean

FORM = "PACKAGE.MODULE:FUNCTION, such as examples.linen_cnn:build"
DIGITS = 12  # of a digest, as of identities
INSTALLED = ("site-packages", "dist-packages")  # what folders of installed packages are called

_given_by_the_user: set[str] = set()  # names, in this process


def is_name_of_function(target: str) -> bool:
    """Whether something has the form of `FORM`."""
    module, colon, function = target.partition(":")
    return bool(module and colon and function)


def name_of_function(function: Callable[..., Any], place: str) -> str:
    """The name by which the function is imported from where it is defined. Raises InputError for
    what has none, as a partial. place: with which the message begins."""
    if not hasattr(function, "__qualname__"):
        raise InputError(
            f"{place}: build, a {type(function).__name__}, has no name; give the name of the "
            f"function itself, {FORM}"
        )
    return f"{function.__module__}:{function.__qualname__}"


def trust(target: str) -> None:
    """Take a name as the user's own, who wrote it in a command, a call or a configuration."""
    _given_by_the_user.add(target)


def function_named_in_file(target: str, place: str) -> Callable[..., Any]:
    """The function that a record or a kept network names. Raises InputError for one that is not
    the user's code, unless the user gave its name; nothing of it is then executed."""
    if target in _given_by_the_user:
        return function_of_name(target, place)
    # Of a package the name alone is looked up: what a longer one means Python tells by importing.
    package = target.partition(":")[0].partition(".")[0]
    for file in _files_of_module(package):
        _require_in_users_code(file, package, place)
    function = function_of_name(target, place)
    # The user's module may have imported it from another.
    _require_in_users_code(_source_file(function), target, place)
    return function


def _files_of_module(name: str) -> list[str | None]:
    """The file of a module, or folders of a package without one; nothing where there is no such
    module. None stands for what is in no file."""
    _look_here_first()
    try:
        spec = importlib.util.find_spec(name)
    except ValueError:  # __main__, or a name without a letter
        return [None]
    if spec is None:
        return []
    if spec.origin is None and spec.submodule_search_locations:
        return list(spec.submodule_search_locations)
    return [spec.origin]


def _source_file(function: Callable[..., Any]) -> str | None:
    try:
        return inspect.getsourcefile(inspect.unwrap(function))
    except TypeError:  # what is built in
        return None


def _require_in_users_code(file: str | None, name: str, place: str) -> None:
    here = Path.cwd().resolve()
    if file is None or not Path(file).resolve().is_relative_to(here) or _is_installed(file):
        raise InputError(
            f"{place}: {name} is in {file or 'no file'}, not your code under {here}; a name that "
            "stands in a file is imported from there alone"
        )


def _is_installed(file: str) -> bool:
    """Whether a file is of Python, of an installed package, or of this one."""
    path = Path(file).resolve()
    others = (*map(sysconfig.get_path, ("stdlib", "platstdlib")), str(Path(__file__).parent))
    return bool(set(INSTALLED) & set(path.parts)) or any(
        path.is_relative_to(Path(other).resolve()) for other in others
    )


def in_words(error: BaseException) -> str:
    """What a user's code raised, and at which of its lines: the last one that is not of a library
    which it called."""
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame for frame in frames if not _is_in_library(frame.filename)]
    where = f" ({lines[-1].filename}:{lines[-1].lineno})" if lines else ""
    return f"{type(error).__name__}: {error}{where}"


def _is_in_library(file: str) -> bool:
    return file.startswith("<") or _is_installed(file)  # <frozen importlib>


def _look_here_first() -> None:
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)


@contextlib.contextmanager
def printing_beside() -> Iterator[None]:
    """Whatever a user's code prints goes where messages go: results may be read by a program."""
    with contextlib.redirect_stdout(sys.stderr):
        yield


def function_of_name(target: str, place: str) -> Callable[..., Any]:
    """The function of this name. Raises InputError, which says what is wrong with the name, or what
    its module raised. place: where the name was given, with which messages begin."""
    module_name, _, name = target.partition(":")
    _look_here_first()
    try:
        with printing_beside():
            module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise InputError(f"{place}: {error}; it is imported there") from error
        raise InputError(
            f"{place}: no module {module_name}, looked for from {Path.cwd()}; expected {FORM}"
        ) from None
    except (Exception, SystemExit) as error:  # whatever a module raises when it is imported
        raise InputError(f"{place}: {in_words(error)}") from error
    if not callable(getattr(module, name, None)):
        functions = [
            key
            for key, value in vars(module).items()
            if callable(value) and getattr(value, "__module__", None) == module.__name__
        ]
        raise InputError(f"{place}: no function {name}: {did_you_mean(name, functions)}")
    found: Callable[..., Any] = getattr(module, name)
    return found


def source_digest(function: Callable[..., Any], place: str) -> str:
    """12 hex digits of the program in the file that defines a function: comments and empty lines
    are not in them, nor is what this file imports. Raises InputError where there is no such file.
    place: with which the message begins."""
    source = _source_file(function)
    try:
        if source is None:
            raise FileNotFoundError
        with tokenize.open(source) as file:
            program = _without_comments(file.readlines())
    except OSError:
        raise InputError(f"{place}: has no file of Python source") from None
    return hashlib.sha256(program.encode()).hexdigest()[:DIGITS]


def _without_comments(lines: Sequence[str]) -> str:
    """The lines of a program up to their comments, but those that are empty then. A text that goes
    over several lines stays as it is. What tokens are differs between versions of Python; where
    a comment begins, or a statement ends, does not."""
    kept = list(lines)
    for token in tokenize.generate_tokens(iter(lines).__next__):
        number, column = token.start
        if token.type == tokenize.COMMENT:
            kept[number - 1] = kept[number - 1][:column].rstrip() + "\n"
        if token.type == tokenize.NL and not kept[number - 1].strip():
            kept[number - 1] = ""
    return "".join(kept).rstrip()
