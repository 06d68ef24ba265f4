"""How bytes and JSON are damaged: as disks, editors and people do it."""

from __future__ import annotations

import copy
import json
from random import Random
from typing import Any

NONSENSE = (
    b"",
    b"{",
    b"[]",
    b"null",
    b"\x00" * 64,
    b"\xff\xfe{",
    b"[" * 100_000,
    b"1" * 5000,
    b'{"a": ' * 20_000,
    b'{"a": 1e999}',
    b'"\\ud800"',
    b"not what it should be\n",
)
VALUES: tuple[Any, ...] = (
    None, True, -1, 0, 1, 10**30, 1e300, float("nan"), float("inf"), "", "x", "\x00", "\ud800",
    "[red]x", "../../x", "x" * 300, [], {}, [[]], [None], [1, 2], {"x": 1}, {"": {}}, "012",
)  # fmt: skip


def damaged_bytes(chance: Random, content: bytes) -> bytes:
    """Cut, flipped, doubled, overwritten, or something else altogether."""
    if not content or chance.random() < 0.1:
        return chance.choice(NONSENSE)
    damaged = bytearray(content)
    for _ in range(chance.choice((1, 1, 3))):
        place = chance.randrange(len(damaged) + 1)
        some = chance.randbytes(chance.choice((1, 4, 64)))
        match chance.randrange(5):
            case 0:
                del damaged[place:]
            case 1:
                del damaged[place : place + len(some)]
            case 2:
                damaged[place:place] = damaged[place : place + len(some)]
            case 3:
                damaged[place : place + len(some)] = some
            case _ if place < len(damaged):
                damaged[place] ^= 1 << chance.randrange(8)
    return bytes(damaged)


def damaged_json(chance: Random, text: str) -> bytes:
    """A value somewhere in it is lost, another one, or under another name; or the bytes are."""
    if chance.random() < 0.25:
        return damaged_bytes(chance, text.encode())
    content = copy.deepcopy(json.loads(text))
    for _ in range(chance.choice((1, 1, 2))):
        _change_somewhere(chance, content)
    return json.dumps(content).encode()


def _change_somewhere(chance: Random, content: Any) -> None:
    """Walks down from the top by chance, and changes where it stops."""
    while True:
        keys = list(content) if isinstance(content, dict) else range(len(content))
        if not keys:
            return
        key = chance.choice(keys)
        below = content[key]
        if not isinstance(below, (dict, list)) or not below or chance.random() < 0.3:
            break
        content = below
    match chance.randrange(4):
        case 0:
            del content[key]
        case 1 if isinstance(content, dict):
            content[f"{key}x"] = content.pop(key)
        case _:
            content[key] = copy.deepcopy(chance.choice(VALUES))  # which may be changed next
