"""Helpers for tests that build networks."""

from __future__ import annotations

import jax
import numpy as np

from cbundles.networks import conv, fc


def golden_params(case, prefix="w:", depth=4) -> fc.Params:
    """The parameters of a stored network of width 10, in our layout."""
    hidden = range(1, depth)
    return fc.Params(
        first=case[f"{prefix}fc0/kernel"],
        first_bias=case[f"{prefix}fc0/bias"],
        hidden=np.stack([case[f"{prefix}fc{i}/kernel"] for i in hidden]),
        hidden_bias=np.stack([case[f"{prefix}fc{i}/bias"] for i in hidden]),
        last=case[f"{prefix}out/kernel"],
        last_bias=case[f"{prefix}out/bias"],
    )


def golden_network(case, blocks, residual, prefix="w:", *, statistics=False) -> conv.Params:
    """A stored VGG or ResNet in our layout: its parameters or its statistics. blocks: of each
    stage."""

    def unit(name: str, number: str | int) -> conv.Unit | conv.Norm:
        layer, norm = f"{prefix}{name}/conv{number}", f"{prefix}{name}/bn{number}"
        if statistics:
            return conv.Norm(case[f"{norm}/moving_mean"], case[f"{norm}/moving_variance"])
        kernel, bias = case[f"{layer}/kernel"], case[f"{layer}/bias"]
        return conv.Unit(kernel, bias, case[f"{norm}/gamma"], case[f"{norm}/beta"])

    def first_block(number: int) -> tuple[conv.Unit | conv.Norm, ...]:
        pair = (unit(f"block{number}", 1), unit(f"block{number}", 2))
        return (*pair, unit(f"block{number}/down", "")) if residual else pair

    def stacked(place: int, numbers: range, like) -> conv.Unit | conv.Norm:
        each = [unit(f"block{number}", place) for number in numbers]
        return jax.tree.map(lambda first, *a: np.stack([first, *a])[1:], like, *each)

    stages, done = [], 0
    for stage, count in enumerate(blocks):
        halves = stage > 0
        first = first_block(done) if halves else ()
        rest = range(done + halves, done + count)
        like = unit(f"block{done + count - 1}", 2)  # every kernel of the others has this shape
        stages.append(conv.Stage(first, (stacked(1, rest, like), stacked(2, rest, like))))
        done += count
    last = ((), ()) if statistics else (case["w:fc/kernel"], case["w:fc/bias"])
    return conv.Params(unit("stem", ""), tuple(stages), *last)


def cut(params: fc.Params, depth: int, width: int) -> fc.Params:
    """The network inside a padded one."""
    return fc.Params(
        params.first[:, :width],
        params.first_bias[:width],
        params.hidden[: depth - 1, :width, :width],
        params.hidden_bias[: depth - 1, :width],
        params.last[:width],
        params.last_bias,
    )
