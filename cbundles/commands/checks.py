"""What a command cannot work with: networks of another kind, too few images, no trained network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cbundles import early_steps, keeping
from cbundles.config import GROW, NO_EDITS, SWEEP, TUNE, Cell, Experiment, Images
from cbundles.data.dataset import Facts
from cbundles.data.pipelines import require_square
from cbundles.errors import InputError
from cbundles.networks.shape import shape_of
from cbundles.store import Store

ARMS = {GROW: "growth.arm", TUNE: "tuning.arm"}  # what makes a cell one of this kind


def require_kind(experiment: Experiment, kind: str) -> None:
    """InputError unless all networks of an experiment are for this command: SWEEP, GROW, TUNE."""
    for cell in experiment.cells:
        if cell.kind == kind:
            continue
        if cell.model.is_own:
            raise InputError(f"{experiment.name}: model.build = {cell.model.build}: {NO_EDITS}")
        reason = f"{ARMS[kind]} is none" if cell.kind == SWEEP else f"{ARMS[cell.kind]} is set"
        raise InputError(
            f"{experiment.name}: {reason} for {cell.label}; cbundles {kind} cannot run "
            f"it, cbundles {cell.kind} can"
        )


def refuse_said_twice(flags: Mapping[str, tuple[str, object]], overrides: Sequence[str]) -> None:
    """InputError where --set says anew what a flag says, from which names and defaults follow.
    flags: by the keys of settings, each with its value."""
    for override in overrides:
        key, _, given = override.partition("=")
        flag, value = flags.get(key.strip(), ("", None))
        if value is not None:
            raise InputError(
                f"--set {override}: beside {flag} {value}, which says it already; nearest valid: "
                f"{flag} {given}"
            )


def require_epochs(cells: Sequence[Cell], keep: Sequence[str]) -> None:
    """InputError when networks are to be kept after epochs that there are not."""
    given = f"--keep-weights {','.join(keep)}"
    for cell in cells:
        if cell.kind != SWEEP and set(keep) - {keeping.LAST}:
            raise InputError(
                f"{given}: of networks that change their depth the trained ones are kept; "
                f"nearest valid: {keeping.LAST}"
            )
        late = keeping.too_late(keep, cell.training.epochs)
        if late is not None:
            raise InputError(
                f"{given}: {cell.label} is trained for {cell.training.epochs} epochs; "
                f"nearest valid: {keeping.LAST} instead of {late}"
            )


def check_against_data(cells: Sequence[Cell], facts: Mapping[Images, Facts]) -> None:
    """InputError for a cell that needs other, or more, images than its data set has, and for a
    user's architecture that cannot be trained on them."""
    if cells[0].model.is_own:  # then all are
        for cell in cells:
            shape_of(cell.model, facts[cell.data.images])  # which says what is wrong with it
    for cell in cells:
        _check_one(cell, facts[cell.data.images])


def _check_one(cell: Cell, facts: Facts) -> None:
    require_square(cell.data, facts.image_shape)
    available, left = facts.train, ""
    if cell.kind == TUNE:
        held_out = round(cell.tuning.held_out * facts.train)
        if not held_out:
            raise InputError(
                f"tuning.held_out = {cell.tuning.held_out}: none of {facts.train} training images "
                f"is held out; nearest valid: {1 / facts.train:g}"
            )
        available -= held_out
        left = f" left when tuning.held_out = {cell.tuning.held_out}"
    if cell.training.batch_size > available:
        raise InputError(
            f"training.batch_size = {cell.training.batch_size}: {cell.data.name} has {available} "
            f"training images{left}; nearest valid: {available}"
        )
    _check_early_steps(cell, facts)


def _check_early_steps(cell: Cell, facts: Facts) -> None:
    """InputError for a step that does not come before the last one of the first epoch."""
    batch_size = cell.training.batch_size
    steps = facts.train // batch_size
    late = [step for step in cell.early_steps if step >= steps]
    if late:
        nearest = steps - 1 if steps > 1 else early_steps.NONE
        raise InputError(
            f"probe.steps = {cell.probe.steps}: an epoch of {cell.data.name} has {steps} steps of "
            f"{batch_size} images, and the last one is measured anyway; nearest valid: {nearest} "
            f"instead of {late[-1]}"
        )


def require_kept(store: Store, cells: Sequence[Cell]) -> None:
    """InputError for a cell of which no trained network is there."""
    for cell in cells:
        path = store.weights_path(cell.id)
        if not path.is_file():
            raise InputError(
                f"{path}: missing; train it with cbundles sweep CONFIG.yaml --keep-weights --out "
                f"{store.folder}, or with cbundles lesion --config CONFIG.yaml --out {store.folder}"
            )


def require_trained(
    store: Store, cells: Sequence[Cell], fingerprints: Mapping[Images, str]
) -> None:
    """Read the trained networks of cells; InputError for one that is missing, damaged or not the
    one that its name says."""
    from cbundles.networks import saved

    require_kept(store, cells)
    for cell in cells:
        fingerprint = fingerprints[cell.data.images]
        saved.read_of_cell(store.weights_path(cell.id), cell.id, fingerprint, must_be_residual=True)
