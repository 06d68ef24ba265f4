"""The way from a model and the names of its blocks to the smaller model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jaxtyping import Integer, PyTree

from cbundles.arrays import Numbers
from cbundles.auditing.asked import check_names
from cbundles.auditing.jax_subject import JaxSubject
from cbundles.auditing.models import Call, subject_of
from cbundles.removing import given
from cbundles.removing.choosing import Blocks
from cbundles.removing.on_jax.removed import remove_on_jax
from cbundles.removing.removed import Removed


def remove(
    model: Any,
    blocks: Blocks,
    *,
    params: PyTree | None = None,
    inputs: PyTree,
    call: Call | None = None,
    trainable: str | Sequence[str] | None = None,
    labels: Integer[Numbers, "samples ..."] | Sequence[int] | None = None,
    output: str | int | None = None,
    recalibrate: bool | PyTree = False,
) -> Removed:
    """The model without the branches of some residual sums: each of these becomes its skip, and
    what only the branches needed is gone. The model itself stays as it is.

    Args:
        model, params, call, trainable, output: as in `cbundles.audit`.
        blocks: which residual sums lose their branches: names of sums or branches, as an audit has
            them; patterns of names; or numbers, in the order of the model, from 1. A name in a scan
            means all repetitions, or one: ``stack/sum[3]``.
        inputs: arrays or tensors, in any pytree, whose first axis is that of the samples. The model
            is traced, timed and judged on them, up to 256 at once; the smaller one takes any number
            of samples.
        labels: one for each sample, or token. With them accuracies are reported.
        recalibrate: whether the statistics of batch normalisations are taken anew, since those of
            the whole model do not fit any more. True: on `inputs`; or other inputs, such as images
            of training, where `inputs` are those of a test.

    Raises:
        ValueError: what was given cannot work, such as a block that cannot be removed; the message
            says why, in a sentence.
    """
    check_names("trainable", trainable)
    subject = subject_of(
        model,
        params=params,
        call=call,
        trainable=trainable,
        batch_norm="running",
    )
    checked = given.checked(inputs, labels, output, recalibrate)
    no_statistics = subject.no_statistics
    if checked.for_statistics is not None and no_statistics is not None:
        raise ValueError(f"recalibrate: {no_statistics}")
    if isinstance(subject, JaxSubject):
        return remove_on_jax(subject, blocks, checked)
    from cbundles.auditing.models.pytorch.subject import TorchSubject
    from cbundles.removing.pytorch.module import remove_from_module

    assert isinstance(subject, TorchSubject)
    return remove_from_module(subject, blocks, checked)
