"""Streams of chance: each purpose has its own, and none ever changes."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from conftest import ROOT

from cbundles import chance

STREAMS = {name: value for name, value in vars(chance).items() if isinstance(value, chance.Stream)}

# Pairs that coincided before streams had a list, and whose numbers committed records depend on.
# Nothing draws from both of a pair: a network has one family, the toy trains none of them, and a
# lesion study inserts no layers.
COINCIDING = {
    ("FC_WEIGHTS", "CONV_WEIGHTS"),
    ("FC_WEIGHTS", "TOY_POINTS"),
    ("FC_WEIGHTS", "TOY_ORDER"),
    ("FC_WEIGHTS", "TOY_WEIGHTS"),
    ("CONV_WEIGHTS", "TOY_POINTS"),
    ("CONV_WEIGHTS", "TOY_ORDER"),
    ("CONV_WEIGHTS", "TOY_WEIGHTS"),
    ("INSERTED_POSITION", "REMOVED_BLOCKS"),
}


def overlap(one: chance.Stream, other: chance.Stream) -> bool:
    return one.first < other.first + other.count and other.first < one.first + one.count


def test_no_two_purposes_that_meet_share_a_stream():
    coinciding = set()
    for (name, one), (second, other) in itertools.combinations(STREAMS.items(), 2):
        if overlap(one, other):
            coinciding.add((name, second))
            assert one.only_in and other.only_in and one.only_in != other.only_in, (name, second)
    assert coinciding == COINCIDING


def test_streams_keep_their_numbers():
    """Records depend on them. A line may be added; none that is here may change."""
    assert {name: stream.first for name, stream in STREAMS.items()} == {
        "FC_WEIGHTS": 0,
        "FC_OUTPUT_WEIGHTS": 2**32,
        "FC_OUTER_WEIGHTS": 2**33,
        "CONV_WEIGHTS": 0,
        "EPOCH": 2**40,
        "PROBE_SET": 2**50,
        "SPIRALS_SPLIT": 2**51,
        "INSERTED_POSITION": 2**52,
        "REMOVED_BLOCKS": 2**52,
        "HELD_OUT": 2**53,
        "HASH_KEYS": 2**54,
        "FOLDING_SIGNS": 2**55,
        "TOY_POINTS": 0,
        "TOY_ORDER": 1,
        "TOY_WEIGHTS": 2,
    }


def test_a_generator_is_philox_with_seed_and_stream_as_its_key():
    ours = chance.generator(3, chance.EPOCH, 7).random(5)
    expected = np.random.Generator(np.random.Philox(key=[3, 2**40 + 7])).random(5)
    assert ours.tolist() == expected.tolist()


@pytest.mark.parametrize("number", [-1, 1])
def test_a_purpose_cannot_draw_from_the_stream_of_another(number):
    with pytest.raises(ValueError, match=r"stream -?1 of 1"):
        chance.generator(0, chance.PROBE_SET, number)


def test_no_other_module_makes_such_a_generator():
    makers = [
        str(path.relative_to(ROOT))
        for path in (ROOT / "cbundles").rglob("*.py")
        if "Philox" in path.read_text()
    ]
    assert makers == ["cbundles/chance.py"]
