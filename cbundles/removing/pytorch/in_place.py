"""Sums and ReLUs of a graph that work in place, as those of many models do: fresh memory for each
of them would cost a smaller module a part of the time that it has saved.

To see what nobody needs, a graph was written in which nothing works in place. Here a step may write
over its operand again, where nobody else reads that, and no derivative needs it.
"""

from __future__ import annotations

import operator

import torch
from torch.fx import Graph, Node

aten = torch.ops.aten

IN_PLACE = {aten.relu.default: aten.relu_.default, aten.add.Tensor: aten.add_.Tensor}
# What makes a tensor of its own. Of these, derivatives need what goes in, and not what comes out.
MAKERS = (
    aten.add.Tensor,
    aten.add_.Tensor,
    aten.conv1d.default,
    aten.conv2d.default,
    aten.conv3d.default,
    aten.layer_norm.default,
    aten.linear.default,
    operator.getitem,  # the first of what a normalisation by collected statistics makes
)


def work_in_place(graph: Graph) -> None:
    """Let sums and ReLUs write over an operand where they can."""
    for node in graph.nodes:
        if node.target not in IN_PLACE:
            continue
        operands = list(node.args)
        if node.target is aten.add.Tensor and not node.kwargs and not _may_go(operands[0], node):
            operands.reverse()  # a sum is the same from either side
        if _may_go(operands[0], node):
            node.args = tuple(operands)
            node.target = IN_PLACE[node.target]


def _may_go(operand: object, node: Node) -> bool:
    """Whether nobody but this node reads an operand, which has the form of its result."""
    if not isinstance(operand, Node) or list(operand.users) != [node]:
        return False
    if operand.target not in MAKERS or not _is_of_batch_norm(operand):
        return False
    value, result = operand.meta["val"], node.meta["val"]
    return value.shape == result.shape and value.dtype == result.dtype


def _is_of_batch_norm(operand: Node) -> bool:
    """Of what has several parts only the values of batch normalisations are known to be new."""
    if operand.target is not operator.getitem:
        return True
    made, part = operand.args
    return made.target is aten._native_batch_norm_legit_no_training.default and part == 0
