"""Decisions of grow and tune: pure functions of what was measured."""

from __future__ import annotations

import pytest

from cbundles.config import Growth, Tuning
from cbundles.decisions import edits
from cbundles.decisions.edits import INSERT, REMOVE, Edit, JudgedEdit

S = [0.1, 0.4, 0.2, 0.05]


def place(arm, threshold=0.0, epoch=5, seed=0, sensitivities=S):
    return edits.place(arm, sensitivities, [0.1, 0.3], threshold, seed=seed, epoch=epoch)


def test_grow_arms_choose_their_position():
    assert place("max") == 1 and place("min") == 3 and place("first") == 0
    drawn = {place("random", epoch=epoch, seed=seed) for epoch in range(20) for seed in range(5)}
    assert drawn == {0, 1, 2, 3}
    assert place("random", epoch=7) == place("random", epoch=7)


def test_grow_threshold_is_relative_to_the_mean_of_existing_layers():
    assert place("max", threshold=1.9) == 1  # 0.4 > 1.9 x 0.2
    assert place("max", threshold=2.1) is None and place("random", threshold=2.1) is None
    assert place("max", sensitivities=[0.0, 0.0]) == 0  # at fixed epochs, whatever they are
    assert place("max", threshold=0.1, sensitivities=[0.0, 0.0]) is None
    for where in (0, 1, 2):
        sensitivities = [1.0, 2.0, 3.0]
        sensitivities[where] = float("nan")
        assert place("max", sensitivities=sensitivities) is None


def test_grow_is_due_at_its_epochs():
    growth = Growth(arm="max", first_epoch=3, every=2, insertions=2)
    assert [e for e in range(10) if edits.due(growth, e, 0)] == [3, 5, 7, 9]
    assert not edits.due(growth, 3, 2)
    for arm in ("small", "matched", "large", "none"):
        assert not edits.due(Growth(arm=arm, first_epoch=3), 3, 0)


def propose(arm="both", entropy=(0.0, 0.0, 0.0), past=(), accuracy=0.5, **given):
    settings = {"threshold": 1.0, "memory": 50, "max_depth": 6, "budget_depth": 3, **given}
    tuning = Tuning(arm=arm, **settings)
    return edits.propose(
        tuning, depth=len(entropy), entropy=entropy, sensitivities=[0.1, 0.5, 0.2],
        existing=[0.2] * 4, accuracy=accuracy, past=past, seed=0, epoch=100,
    )  # fmt: skip


@pytest.mark.parametrize("arm", ["both", "remove"])
def test_tune_removes_from_the_first_conflicting_layer_on(arm):
    assert propose(arm, (0.0, 0.0, 0.3, 0.0, 2.0)) == Edit(REMOVE, 2, 3, 5)
    assert propose(arm, (0.0, 0.2)) == Edit(REMOVE, 1, 1, 2)
    assert propose(arm, (0.0, None, 0.0)) == Edit(REMOVE, 1, 2, 3)


def test_tune_ignores_what_the_first_layer_merges():
    assert propose("both", (0.1, 0.1, 0.05)) == Edit(INSERT, 1, 1, 3)
    assert propose("both", (0.1, 0.1, 0.2)) == Edit(REMOVE, 2, 1, 3)
    assert propose("both", (None, 0.1, 0.2)) is None


def test_tune_keeps_its_bounds():
    assert propose("both", (0.0, 0.2, 0.2), min_depth=2) is None
    assert propose("both", max_depth=3) is None
    assert propose("both", max_depth=4) == Edit(INSERT, 1, 1, 3)


def test_tune_inserts_only_where_nothing_conflicts_and_it_may_help():
    assert propose("both") == propose("insert") == Edit(INSERT, 1, 1, 3)
    assert propose("insert", (0.0, 0.0, 0.3)) is None  # sensitivities would point there
    assert propose("both", threshold=2.6) is None  # 0.5 < 2.6 x 0.2
    assert propose("both", accuracy=0.99) is None and propose("both", accuracy=0.98)
    assert propose("remove") is None and propose("fixed") is None
    assert propose("fixed", (0.0, 0.3)) is None
    random = propose("both-random")
    assert random is not None and random.kind == INSERT


def test_tune_neither_reverses_nor_repeats_recent_edits():
    inserted, removed = Edit(INSERT, 1, 1, 3), Edit(REMOVE, 2, 1, 3)
    conflict = (0.0, 0.0, 0.3)
    assert propose("both", conflict, past=[JudgedEdit(inserted, 60, kept=True)]) is None
    assert propose("both", conflict, past=[JudgedEdit(inserted, 50, kept=True)]) == removed
    assert propose("both", conflict, past=[JudgedEdit(inserted, 60, kept=False)]) == removed
    assert propose("both", conflict, past=[JudgedEdit(removed, 60, kept=False)]) is None
    assert propose("both", past=[JudgedEdit(removed, 60, kept=True)]) is None
    assert propose("both", past=[JudgedEdit(inserted, 60, kept=True)]) == inserted
    assert propose("both", past=[JudgedEdit(inserted, 40, kept=False)]) == inserted


@pytest.mark.parametrize("arm", ["both", "both-random"])
def test_tune_tries_the_next_best_place_after_one_that_was_undone(arm):
    """The same for both arms: what chance may try again, the largest sensitivity may, too."""
    undone = [JudgedEdit(Edit(INSERT, 1, 1, 3), 60, kept=False)]
    found = propose(arm, past=undone, threshold=0.0)
    assert found.position == 2 if arm == "both" else found.position in (0, 2)
    undone.append(JudgedEdit(Edit(INSERT, 2, 1, 3), 70, kept=False))
    assert propose(arm, past=undone, threshold=0.0).position == 0
    undone.append(JudgedEdit(Edit(INSERT, 0, 1, 3), 80, kept=False))
    assert propose(arm, past=undone, threshold=0.0) is None
    elsewhere = [JudgedEdit(Edit(INSERT, 1, 1, 4), 60, kept=False)]  # in a network of other depth
    assert propose("both", past=elsewhere).position == 1
