"""The way of an auto-tuning: from a start that is too deep to a network that does not conflict."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import PyTree

from cbundles import criterion as criteria
from cbundles.auditing import Audit, audit
from cbundles.auditing.asked import made_folder
from cbundles.auditing.counting import added_entropy
from cbundles.auditing.findings import Layer
from cbundles.auditing.models import subject_of
from cbundles.auditing.tensors import as_array
from cbundles.autotuning.asked import (
    Build,
    Train,
    check_audited,
    checked_blocks,
    digest_of_probe,
    known_functions,
    numbers_asked_for,
    probe_at_hand,
)
from cbundles.autotuning.progress import NUMBERS, Progress
from cbundles.autotuning.trained import (
    Trained,
    numbers_of,
    require_trained_in_place,
    unchangeable_numbers,
    with_numbers,
)
from cbundles.autotuning.tuned import Attempt, Tuned
from cbundles.bundles import Bundles
from cbundles.decisions.autotune import Decision, decide_on_blocks
from cbundles.decisions.own_blocks import StageOf, numbers_of_path, places_of_blocks


def autotune(
    build: Build,
    start: Sequence[int],
    *,
    train: Train,
    probe: tuple[PyTree, Any],
    check_epochs: int = 10,
    epochs: int | None = None,
    stage_of: StageOf = numbers_of_path,
    criterion: str = criteria.ENTROPY,
    folder: str | Path | None = None,
    say: Callable[[str], None] = print,
    **audited: Any,
) -> Tuned:
    """The depth that a data set needs, found as in the paper (sec. 3.6), of any model.

    A network is trained; when its last layer conflicts after one of the first epochs, the first
    conflicting block and all later ones of its stage go, and the smaller network is trained from
    scratch. Each restart removes at least one block, so there is an end.

    Args:
        build: ``build(blocks)`` returns an untrained model for a number of blocks in each stage:
            whatever `cbundles.audit` takes; a linen module alone, or with its variables in a pair;
            a function with its parameters in a pair.
        start: blocks to start from: more than are needed.
        train: ``train(model, epoch)`` is one epoch, counted from 1, of your own loop. It is given
            what ``build`` returned, and from then on what it returned itself: the model; or its
            state, for a linen module a pair (module, variables), variables, or something with
            ``params`` as Flax's ``TrainState`` has; for a function a pair (function, params), or
            params. None means that it has trained in place.
        probe: inputs and labels on which layers are measured, as for an audit: of the training
            set, always the same; the paper takes 2,048.
        check_epochs: after each of so many first epochs a network may be pruned.
        epochs: so many in all are trained where none is; `check_epochs` where that is not said.
        stage_of: ``stage_of(name of a layer)`` says where it belongs, as (stage, block), or None
            for a layer outside of all blocks. Otherwise the first two numbers of its path do.
        criterion: by what a layer conflicts: "entropy", H > 0, as in the paper; "conflict_rate",
            above 0.001.
        folder: where decisions are kept, and the last network's numbers; the same call then goes
            on where it was interrupted. ``~`` is your home. None: nowhere.
        say: is told what is decided, and why, a line each time.
        audited: further arguments of `cbundles.audit`, such as learning_rate, batch_size, layers.

    Returns:
        The chain of networks, the last one, and a row of a table.

    Raises:
        ValueError: what was given cannot work, among it layers whose names do not tell blocks.

    Source: "Conflicting Bundles", sec. 3.6.
    """
    blocks = checked_blocks(start)
    given, probe = probe, probe_at_hand(probe)
    check_audited(audited, probe[1])
    asked = {
        "start": list(blocks),
        **numbers_asked_for(check_epochs, epochs, criterion),
        "audited": {name: repr(one) for name, one in audited.items() if not callable(one)},
        "probe": digest_of_probe(given, probe),
        "functions": known_functions(build, train, stage_of, audited.get("call")),
    }
    total = asked["epochs"]
    progress = Progress.begun(None if folder is None else made_folder(folder), asked)
    trained = None
    if progress.ended:
        trained = _trained_before(build, progress, probe, audited)
        if trained is None:
            progress.reopen()
            say(f"{NUMBERS}: not the last network's numbers; it is trained anew")
    for attempt in progress.chain:
        say(f"recorded: {attempt.decision}")
        blocks = attempt.left

    has_told = False

    def look(trained: Trained, epoch: int, blocks: tuple[int, ...]) -> _Look:
        nonlocal has_told
        found = _audited(trained, probe, audited)
        if found.input.conflict_rate and not has_told:
            has_told = True
            say(
                f"of the probe set some {found.findings.rows} are equal and have different labels "
                f"(H {found.input.entropy:.3f}): of layers is told what they add to that"
            )
        return _judged(found, epoch, blocks, stage_of, criterion, check_epochs)

    while not progress.ended:
        looked, trained = _attempt(build, train, blocks, total, check_epochs, look)
        decision = looked.decision
        is_last = decision.conflict is None or not sum(decision.left)
        progress.add(Attempt.decided(decision, looked.layers, looked.measured), ended=is_last)
        say(str(decision))
        blocks = decision.left
    assert trained is not None  # read from the folder, or trained just now
    if progress.folder is not None:
        progress.keep(numbers_of(trained))
    return _tuned(progress, trained, criterion, audited)


class _Look(NamedTuple):
    """What an audit of a network leads to. layers, measured: see `Attempt`."""

    decision: Decision
    layers: tuple[str, ...]
    measured: tuple[float | None, ...]


def _attempt(
    build: Build,
    train: Train,
    blocks: tuple[int, ...],
    epochs: int,
    check_epochs: int,
    look: Callable[[Trained, int, tuple[int, ...]], _Look],
) -> tuple[_Look, Trained]:
    """Train a network to the end, or until it conflicts after one of the first epochs."""
    made = built = build(blocks)
    for epoch in range(1, epochs + 1):
        given = unchangeable_numbers(made)
        returned = train(made, epoch)
        if returned is None:
            require_trained_in_place(made, given)
        else:
            made = returned
        if epoch <= check_epochs or epoch == epochs:
            trained = Trained.of_loop(made, built)
            looked = look(trained, epoch, blocks)
            if looked.decision.conflict is not None:
                break
    return looked, trained


def _audited(trained: Trained, probe: tuple[PyTree, Any], audited: dict[str, Any]) -> Audit:
    inputs, labels = probe
    how = {"headroom": False, **audited}
    return audit(trained.model, inputs, labels, params=trained.params, **how)


def _judged(
    found: Audit,
    epoch: int,
    blocks: tuple[int, ...],
    stage_of: StageOf,
    criterion: str,
    check_epochs: int,
) -> _Look:
    """What an audit leads to."""
    places = places_of_blocks([layer.name for layer in found.layers], blocks, stage_of)
    chosen = [found.layers[place] for place in places]
    inputs = found.input.bundles
    measured = tuple(_added_to_inputs(layer, inputs, criterion) for layer in chosen)
    decision = decide_on_blocks(blocks, epoch, measured, by=criterion, checks=check_epochs)
    return _Look(decision, tuple(layer.name for layer in chosen), measured)


def _added_to_inputs(layer: Layer, inputs: Bundles, criterion: str) -> float | None:
    """How much a layer conflicts beyond what equal inputs of different classes do where it bundles
    them, too. None where it diverged."""
    if layer.diverged:
        return None
    if criterion == criteria.ENTROPY:
        return added_entropy(layer.bundles, inputs)
    return max(0.0, (layer.conflict_rate or 0.0) - (layer.rate_of_equal_inputs or 0.0))


def _trained_before(
    build: Build, progress: Progress, probe: tuple[PyTree, Any], audited: dict[str, Any]
) -> Trained | None:
    """The last network of an auto-tuning that has ended, from its file. None where its numbers are
    not there, or are of another version of the model."""
    numbers = progress.kept()
    if numbers is None:
        return None
    built = build(progress.chain[-1].blocks)
    whole = built if isinstance(built, tuple) else (built, None)
    try:
        return with_numbers(Trained(*whole), numbers, probe[0], audited.get("call"))
    except ValueError:
        return None


def _tuned(progress: Progress, trained: Trained, criterion: str, audited: dict[str, Any]) -> Tuned:
    first, last = progress.chain[0], progress.chain[-1]
    numbers = subject_of(
        trained.model,
        params=trained.params,
        call=audited.get("call"),
        trainable=audited.get("trainable"),
        batch_norm=audited.get("batch_norm", "running"),
    ).parameters
    row = {
        "start": list(first.blocks),
        "blocks": list(last.blocks),
        "restarts": len(progress.chain) - 1,
        "epochs": last.epochs,
        "parameters": sum(int(np.size(as_array(one))) for one in numbers.values()),
        f"{criterion} of the last layer": last.measured[-1],
    }
    given_up = last.left != last.blocks
    return Tuned(tuple(progress.chain), trained.model, trained.params, row, given_up)
