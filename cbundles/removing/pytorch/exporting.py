"""What a module computes as a module of its own, through `torch.export`: dead code goes, and with
it the parameters that only dead code needed."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import torch
from jaxtyping import PyTree
from torch.fx import Graph, GraphModule, Node

from cbundles.auditing.models.pytorch.calls import COMPILED
from cbundles.errors import in_one_line
from cbundles.files import write_atomically
from cbundles.removing.pytorch.branches import Calling
from cbundles.removing.pytorch.in_place import work_in_place

COPIES = {
    torch.ops.aten.clone.default: 0,  # which of the arguments has the numbers
    torch.ops.aten.copy.default: 1,
}


def exported_module(calling: Calling, batch: PyTree) -> GraphModule:
    """What a module computes, for batches of any size, with parameters of its own. Raises
    ValueError where PyTorch cannot write the module down."""
    program = _exported(calling, batch)
    with _quietly():
        # Where nothing works in place any more, what nobody needs is seen.
        module = program.run_decompositions({}).module()
    graph = module.graph
    for node in list(graph.nodes):
        # (A module that is called checks the shapes of arguments.)
        if node.op == "call_module" or _only_checks(node):
            graph.erase_node(node)
        elif node.target in COPIES:
            _use_what_was_copied(node)
        elif node.target is torch.ops.aten.view.default:
            # It was a view of what the example has next to each other in memory; other inputs may
            # have it elsewhere, such as channels last.
            node.target = torch.ops.aten.reshape.default
    graph.eliminate_dead_code()
    work_in_place(graph)
    tensors = _own_tensors(module, graph, calling.model)
    return GraphModule(tensors, graph, type(calling.model).__name__)


def write_program(module: GraphModule, batch: PyTree, path: Path) -> None:
    """Write a module to a file that `torch.export.load` reads."""
    program = _exported(module, batch)
    content = io.BytesIO()
    with _quietly():
        torch.export.save(program, content)
    write_atomically(path, content.getvalue())


def name_in_the_model(name: str) -> str:
    """The name of a tensor, also inside a compiled module."""
    return ".".join(part for part in name.split(".") if part != COMPILED)


def _exported(module: torch.nn.Module, batch: PyTree) -> torch.export.ExportedProgram:
    samples = torch.export.Dim("samples")
    shapes = jax.tree.map(lambda _: {0: samples}, batch)
    try:
        with _quietly():
            return torch.export.export(module, (batch,), dynamic_shapes=(shapes,), strict=False)
    except Exception as error:  # whatever a model raises, or PyTorch about it
        reason = in_one_line(error)
        raise ValueError(
            f"torch.export cannot write this module down: {type(error).__name__}: {reason}"
        ) from error


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Inside, PyTorch does not warn of what it itself does in an old way."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        yield


def _only_checks(node: Node) -> bool:
    """Whether a node makes nothing. One that checks a branch would keep all of it alive."""
    name = getattr(node.target, "__name__", "")
    return not node.users and name.startswith(("_assert", "sym_constrain"))


def _use_what_was_copied(node: Node) -> None:
    """Nothing works in place, so that a copy is as good as what it is a copy of."""
    source = node.args[COPIES[node.target]]
    value, copied = source.meta["val"], node.meta["val"]
    same_form = value.shape == copied.shape and value.dtype == copied.dtype
    goes_out = any(user.op == "output" for user in node.users)
    if same_form and not goes_out and not node.kwargs.get("memory_format"):
        node.replace_all_uses_with(source)


def _own_tensors(module: torch.nn.Module, graph: Graph, model: torch.nn.Module) -> dict[str, Any]:
    """Copies of the tensors that a graph needs, by the names that they had in the model; one that
    has several names is copied once, under the first."""
    first_names = {
        id(tensor): name for name, tensor in (*model.named_parameters(), *model.named_buffers())
    }
    copies: dict[int, Any] = {}
    named = {}
    for node in graph.nodes:
        if node.op != "get_attr":
            continue
        value = _attribute(module, node.target)
        name = node.target.removeprefix("model.")  # of `Calling`
        node.target = name_in_the_model(first_names.get(id(value), name))
        named[node.target] = copies.setdefault(id(value), _copied(value))
    return named


def _attribute(module: Any, name: str) -> Any:
    for part in name.split("."):
        module = getattr(module, part)
    return module


def _copied(value: Any) -> Any:
    if isinstance(value, torch.nn.Parameter):
        return torch.nn.Parameter(value.detach().clone(), value.requires_grad)
    if isinstance(value, torch.Tensor):
        return value.detach().clone()
    return value  # a part of the program
