"""Functions of a user, named on the command line or in a file: ``package.module:function``.

They are imported as Python imports, from the folder in which a command is started before all
others; and the file that defines them is known by a digest, so that what was made with another
version of it is not mistaken for what this one makes.
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cbundles.errors import InputError, did_you_mean

FORM = "PACKAGE.MODULE:FUNCTION, such as examples.linen_cnn:build"
DIGITS = 12  # of a digest, as of identities


def is_name_of_function(target: str) -> bool:
    """Whether something has the form of `FORM`."""
    module, colon, function = target.partition(":")
    return bool(module and colon and function)


def function_of_name(target: str, place: str) -> Callable[..., Any]:
    """The function of this name. Raises InputError, which says what is wrong with the name, or what
    its module raised. place: where the name was given, with which messages begin."""
    module_name, _, name = target.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise InputError(f"{place}: {error}; it is imported there") from error
        raise InputError(
            f"{place}: no module {module_name}, looked for from {here}; expected {FORM}"
        ) from None
    except Exception as error:  # whatever a module raises when it is imported
        raise InputError(f"{place}: {type(error).__name__}: {error}") from error
    if not callable(getattr(module, name, None)):
        functions = [key for key, value in vars(module).items() if callable(value)]
        raise InputError(f"{place}: no function {name}: {did_you_mean(name, functions)}")
    found: Callable[..., Any] = getattr(module, name)
    return found


def source_digest(function: Callable[..., Any], place: str) -> str:
    """12 hex digits of the file that defines a function; what this file imports is not in them.
    Raises InputError where there is no such file. place: with which the message begins."""
    try:
        file = inspect.getsourcefile(inspect.unwrap(function))
        content = Path(str(file)).read_bytes()
    except (TypeError, OSError):
        raise InputError(f"{place}: has no file of Python source") from None
    return hashlib.sha256(content).hexdigest()[:DIGITS]
