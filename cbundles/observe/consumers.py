"""Which parameters read the value of a site: those of the first linear maps that it reaches.

A program is read once, in order. Of each value is kept from which parameters it was made, if from
nothing else, and which sites reach it without having met a parameter in a product on the way. Where
such a value meets parameters in a product or a convolution, these are its consumers. Another site
on the way takes over: what reads the sum reads the branch. The loop body of a scan is read until
nothing is new, so the consumers of a site inside it may be those of the next repetition, and the
parameters of all repetitions count as one.

On the same way it is seen which parameters have gone into a site's value since the sites before it:
those of the layer that makes it (`makers`).
"""

from __future__ import annotations

import collections
import functools
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

from cbundles.observe.program import Block, Operand, Step

PRODUCTS = frozenset(["dot_general", "conv_general_dilated"])
NOTHING: frozenset[int] = frozenset()


class Maker(NamedTuple):
    """A parameter that a site's value is made with.

    number: among the inputs of the program.
    scans: for each of its first axes along which a scan around the site walks, so that a repetition
        has a part of its own, which of the scans that is, the outermost being 0.
    """

    number: int
    scans: tuple[int, ...] = ()


NO_MAKERS: frozenset[Maker] = frozenset()


class _Flow(NamedTuple):
    """What is in a value."""

    parameters: frozenset[int] = NOTHING  # from which it was made, if from no data
    sites: frozenset[int] = NOTHING  # numbers of the sites' values that reach it
    is_data: bool = False  # made from what changes from batch to batch
    makers: frozenset[Maker] = NO_MAKERS  # parameters that went into it since the sites before it
    is_untouched: bool = False  # an input of the program as it is, or what a scan cuts from it

    def joined(self, other: _Flow) -> _Flow:
        is_data = self.is_data or other.is_data
        parameters = NOTHING if is_data else self.parameters | other.parameters
        return _Flow(parameters, self.sites | other.sites, is_data, self.makers | other.makers)

    def cut_by(self, scan: int) -> _Flow:
        """What a repetition of a scan is given of a value that the scan walks along."""
        if not self.is_untouched:  # nobody knows whether its first axis is that of the parameter
            return self
        cut = [one._replace(scans=(*one.scans, scan)) for one in self.makers]
        return self._replace(makers=frozenset(cut))

    def behind(self, scan: int) -> _Flow:
        """What is in a value when a repetition of a scan is over: of all repetitions."""
        outside = [
            one._replace(scans=tuple(other for other in one.scans if other < scan))
            for one in self.makers
        ]
        return self._replace(makers=frozenset(outside))


def consumers(
    block: Block, numbers: Mapping[str, int], parameters: Collection[int], data: Collection[int]
) -> dict[str, frozenset[int]]:
    """For each site the inputs of the program that read its value; empty where none does.

    Args:
        block: the whole program.
        numbers: of the sites' values, by the sites' names.
        parameters: which inputs of the program are parameters, counted from 0.
        data: which of them change from batch to batch.
    """
    follower = _Follower(set(numbers.values()))
    follower.follow(block, _flows_of_inputs(block, parameters, data))
    return {name: follower.consumers_of(number) for name, number in numbers.items()}


def makers(
    block: Block, numbers: Mapping[str, int], parameters: Collection[int]
) -> dict[str, frozenset[Maker]]:
    """For each of these sites the parameters with which its value is made from those of the others
    before it, or from the inputs. The arguments are those of `consumers`."""
    follower = _Follower(set(numbers.values()))
    follower.follow(block, _flows_of_inputs(block, parameters, ()))
    return {name: frozenset(follower.makers[number]) for name, number in numbers.items()}


def stacked_axes(block: Block) -> dict[int, int]:
    """For each input of a program that holds something for each repetition of a scan, such as the
    weights of all layers, how many of its first axes are those of scans; by its place."""
    axes = _axes_of_scans(block)
    return {place: axes[number] for place, number in enumerate(block.inputs) if number in axes}


def _axes_of_scans(block: Block) -> dict[int, int]:
    """Over how many first axes of values scans walk, by the numbers of the values."""
    axes: dict[int, int] = {}
    for step in block.steps:
        if step.inner is None:
            continue
        inside = _axes_of_scans(step.inner)
        whole = sum(step.scan_sizes) if step.repeats else len(step.inputs)
        for place, (operand, number) in enumerate(zip(step.inputs, step.inner.inputs, strict=True)):
            own = inside.get(number, 0) + (1 if place >= whole else 0)
            if isinstance(operand, int):
                axes[operand] = max(own, axes.get(operand, 0))
    return {number: own for number, own in axes.items() if own}


def _flows_of_inputs(
    block: Block, parameters: Collection[int], data: Collection[int]
) -> list[_Flow]:
    flows = []
    for place in range(len(block.inputs)):
        is_parameter = place in parameters
        flows.append(
            _Flow(
                parameters=frozenset([place]) if is_parameter else NOTHING,
                is_data=place in data,
                makers=frozenset([Maker(place)]) if is_parameter else NO_MAKERS,
                is_untouched=True,
            )
        )
    return flows


class _Follower:
    """Follows the values of sites through a program."""

    def __init__(self, sites: set[int]) -> None:
        self.sites = sites  # numbers of their values
        self.direct: dict[int, set[int]] = collections.defaultdict(set)  # consumers of a site
        self.next: dict[int, set[int]] = collections.defaultdict(set)  # sites made from a site
        self.makers: dict[int, set[Maker]] = collections.defaultdict(set)  # of a site
        self.scans = 0  # around what is being followed

    def follow(self, block: Block, inputs: Sequence[_Flow]) -> list[_Flow]:
        """The flows of a block's outputs."""
        flows = dict(zip(block.inputs, inputs, strict=True))
        flows |= dict.fromkeys(block.constants, _Flow())

        def of(operands: Iterable[Operand]) -> list[_Flow]:
            return [flows[o] if isinstance(o, int) else _Flow() for o in operands]

        for step in block.steps:
            results = self._through(step, of(step.inputs))
            for number, flow in zip(step.outputs, results, strict=True):
                flows[number] = self._at_site(number, flow) if number in self.sites else flow
        return of(block.outputs)

    def _through(self, step: Step, inputs: list[_Flow]) -> list[_Flow]:
        """The flows of a step's results."""
        if step.inner is None:
            return [self._through_whole(step, inputs)] * len(step.outputs)
        if not step.repeats:
            return self.follow(step.inner, inputs)
        constants, carried = step.scan_sizes
        along = slice(constants, constants + carried)
        cut = [flow.cut_by(self.scans) for flow in inputs[constants + carried :]]
        inputs = [*inputs[: constants + carried], *cut]
        while True:
            self.scans += 1
            results = self.follow(step.inner, inputs)
            self.scans -= 1
            results = [flow.behind(self.scans) for flow in results]
            pairs = zip(inputs[along], results[:carried], strict=True)
            state = [before.joined(after) for before, after in pairs]
            if state == inputs[along]:
                return results
            inputs = [*inputs[:constants], *state, *inputs[constants + carried :]]

    def _through_whole(self, step: Step, inputs: list[_Flow]) -> _Flow:
        """The flow of the results of a step without a block inside."""
        joined = functools.reduce(_Flow.joined, inputs, _Flow())
        if PRODUCTS.isdisjoint(step.primitives):
            return joined
        readers = frozenset().union(*(flow.parameters for flow in inputs if not flow.is_data))
        if not readers:  # a product of data with data, such as attention
            return joined
        for site in joined.sites:
            self.direct[site] |= readers
        return joined._replace(sites=NOTHING)

    def _at_site(self, number: int, flow: _Flow) -> _Flow:
        for before in flow.sites - {number}:
            self.next[before].add(number)
        self.makers[number] |= flow.makers
        return flow._replace(sites=frozenset([number]), makers=NO_MAKERS)

    def consumers_of(self, site: int) -> frozenset[int]:
        """What reads a site, or else the sites that are made from it."""
        waiting, seen, found = [site], {site}, set[int]()
        while waiting:
            one = waiting.pop()
            if self.direct[one]:
                found |= self.direct[one]
                continue
            new = self.next[one] - seen
            seen |= new
            waiting += sorted(new)
        return frozenset(found)
