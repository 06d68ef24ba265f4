"""The way of an audit: from a model and labelled inputs to what its layers do to them.

All inputs pass through the model once, a batch at a time, and of each activation only signatures
remain. Headroom takes a second pass of a part of the samples, at many learning rates; what it asks
for, the conflict rate, does not depend on how many there are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jaxtyping import Integer, PyTree

from cbundles.arrays import Numbers
from cbundles.auditing import choices, signing, weights
from cbundles.auditing.asked import check_names, checked_setting, labels_of_rows
from cbundles.auditing.batches import CutArrays, at_hand, batches_of, checked_labels, length_of
from cbundles.auditing.choices import Scan
from cbundles.auditing.findings import Findings
from cbundles.auditing.insertions import insertions_of
from cbundles.auditing.lesions import branches_in, lesions_of
from cbundles.auditing.measuring import Measuring, samples_to_scan
from cbundles.auditing.models import Call, subject_of
from cbundles.auditing.output import scores_in
from cbundles.auditing.peers import Watch
from cbundles.auditing.report import Audit
from cbundles.auditing.signing import SAMPLES, TOKENS
from cbundles.auditing.tensors import as_array
from cbundles.auditing.weights import GLOBAL
from cbundles.observe.selection import chosen_sites


def audit(
    model: Any,
    inputs: Any,
    labels: Integer[Numbers, "samples ..."] | Sequence[int],
    *,
    params: PyTree | None = None,
    call: Call | None = None,
    trainable: str | Sequence[str] | None = None,
    learning_rate: float = 1e-3,
    batch_size: int = 64,
    num_classes: int | None = None,
    layers: str | Sequence[str] | None = None,
    batch_norm: str = "running",
    amplitude: str | float = GLOBAL,
    rows: str = SAMPLES,
    headroom: bool = True,
    lesion: bool = False,
    insert: bool = False,
    peers: bool = False,
    output: str | int | None = None,
) -> Audit:
    """Which layers of a model conflict, how far the others are from it, and why.

    Nothing is trained, and neither the model nor its state or mode is changed.

    Args:
        model: a module of flax.nnx; a module of flax.linen, or a function ``f(params, batch)``,
            with `params`; a Keras 3 model on JAX; a module of PyTorch; a module that is a pytree,
            as those of Equinox are; or any function of a batch, such as ``jax.vmap(module)``.
        inputs: arrays or tensors, in any pytree, whose first axis is that of the samples; or an
            iterable of batches of them, which may come only once.
        labels: whole numbers, one for each sample; with rows="tokens" also one for each token.
        params: the numbers of a linen module (all its variables, or its parameters alone) or of a
            function.
        call: ``call(model, batch) -> output``, where that is not ``model(batch)``.
        trainable: names of the trainable parameters, or patterns that they match. Otherwise they
            are all parameters of nnx or Keras; of PyTorch those that want a gradient; of linen the
            collection "params"; else all real numbers.
        learning_rate: with which the model is trained; of a schedule that of the step in question.
        batch_size: of training.
        num_classes: if it is not one more than the largest label.
        layers: names, patterns or kinds of what is measured (`cbundles.observe.KINDS`). Otherwise
            activations, residual sums, and whatever the model names.
        batch_norm: "running": as at inference; "batch": all samples are one batch, and normalised
            by its statistics. Models of nnx and PyTorch are told so; others tell themselves, by
            `call`.
        amplitude: the weight that sets the scale: the largest of the whole model, "global", as in
            the papers; the largest of the layer that reads the activation, "consumer"; a number.
        rows: what is bundled: "samples", or "tokens", the second axis of inputs and activations.
        headroom: whether to scan learning rates, on up to 512 of the rows.
        lesion: whether to switch off every residual branch, alone and many at once; `Audit.lesions`
            says what it costs. Branches are measured as layers, too.
        insert: whether to say where one more layer would help, in `Audit.insertions`. Both need
            class scores as the model's output, and batches that come once are kept for them.
        peers: whether to measure what others do, too (`peer_measures`): effective rank, cosine
            between classes, ReLU states, 1 - cos(in, out), gradient norm, batch entropy.
        output: which part of the model's output are the class scores, where several could be: the
            key of a dictionary, or a place in a tuple.

    Raises:
        ValueError: what was given cannot work; the message says why, in a sentence.
    """
    check_names("layers", layers)
    check_names("trainable", trainable)
    setting = checked_setting(learning_rate, batch_size, batch_norm, rows, amplitude)
    array, classes = checked_labels(as_array(labels), num_classes)
    subject = subject_of(
        model,
        params=params,
        call=call,
        trainable=trainable,
        batch_norm=batch_norm,
    )
    samples = len(array)
    batches = batches_of(inputs, samples, whole=setting.whole)
    if lesion or insert:
        batches = at_hand(batches)
    tokens = signing.tokens_of(batches.first) if rows == TOKENS else None
    given_labels, array = array, labels_of_rows(array, tokens)
    part = samples_to_scan(samples, tokens)
    batches.keep(part)

    largest = weights.largest_weights(subject.parameters)
    of_model = weights.amplitude_of_model(setting.amplitude, largest)
    sites = subject.sites(batches.first)
    switched = branches_in(sites) if lesion else ()
    scores = scores_in(output, classes, given_labels.shape)
    chosen, skipped = chosen_sites(
        sites, layers, length_of(batches.first), tokens, classes, also=switched
    )
    measuring = Measuring(subject, sites, chosen, largest, setting, tokens)

    watch = None
    if peers and chosen:
        watch = Watch(subject, sites, chosen, batches.first, given_labels, scores, tokens)
    input_layer, measured = measuring.measure_layers(batches, array, classes, watch)
    of_peers = () if watch is None else watch.measured(measured)
    scans: list[Scan] = []
    if headroom and measured and not input_layer.diverged:
        measured, scans = measuring.with_headroom(batches, part, input_layer, measured)
    lesions = insertions = None
    if lesion:
        lesions = lesions_of(
            subject, sites, batches, given_labels, scores, measured, by_batch=setting.whole
        )
    if insert:
        insertions = insertions_of(subject, sites, batches, given_labels, scores)
    other = measuring.other_weight
    findings = Findings(
        input=input_layer,
        layers=tuple(measured),
        skipped=tuple(skipped),
        amplitude=of_model,
        choice=setting.amplitude,
        learning_rate=setting.learning_rate,
        batch_size=setting.batch_size,
        rows=rows,
        hangs_on=choices.sentences(input_layer, measured, scans, other and other[1]),
        lesions=lesions,
        insertions=insertions,
        peers=of_peers,
    )
    return Audit(findings, batches.inputs if isinstance(batches, CutArrays) else None)
