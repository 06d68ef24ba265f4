"""Which layers of a model conflict, how far the others are from it, and why one may believe it.

`audit` takes any model and labelled inputs. How the parts fit:

    any_model   the way of an audit, from a model to an `Audit`: begin here
    asked       how layers are judged, and which label each row has
    models      models of every library as functions; `subject` says what an audit needs of one
    batches     inputs, a batch at a time; `tensors` those of PyTorch
    weights     which weight sets the scale
    measuring   all batches through the model, and what remains of them
    signing     activations to signatures, while the model runs
    counting    signatures to bundles, conflict rates and headroom
    choices     what the verdict hangs on
    lesions     branches switched off: their `branch_scores`, and in `lesion_findings` the costs;
                `trials` tries models without them, `judging` given orders on other samples
    insertions  layers that do not exist, and how much they would help: `insertion_findings`
    peers       what others measure of the same layers, in the same pass; `peer_measures` has the
                measures as functions of arrays, `peer_sums` what they need of a batch
    output      which part of a model's output these three look at
    report      `Audit`: what was found; `verdict`, `table` and `pictures` say and show it

docs/audit.md has examples.
"""

from cbundles.auditing.any_model import audit
from cbundles.auditing.findings import Layer
from cbundles.auditing.judging import JudgedOrders, judge_orders
from cbundles.auditing.layer_peers import LayerPeers
from cbundles.auditing.report import Audit
from cbundles.auditing.subject import Reducer, Subject
from cbundles.observe.layers import Sites

__all__ = [
    "Audit",
    "JudgedOrders",
    "Layer",
    "LayerPeers",
    "Reducer",
    "Sites",
    "Subject",
    "audit",
    "judge_orders",
]
