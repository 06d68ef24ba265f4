"""Sites: the places in a program where a value is made that one may want to see or to change.

A value is a site if the program names it (`jax.ad_checkpoint.checkpoint_name`), or if it can be
recognised from how it is made:

    activation    a nonlinear function of one array, element by element
    linear        a product of which one factor is a parameter
    convolution   a convolution
    sum, branch   a residual sum, that is skip + branch, and its branch

To recognise them, the steps of a block are read once, in order, and of each value is kept from what
it was made and how (`_Origin`). Sets of values are the bits of an integer.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax.numpy as jnp

from cbundles.observe import jaxprs
from cbundles.observe.program import Aval, Block, Dtype, Step

KINDS = ("named", "activation", "sum", "branch", "linear", "convolution")

# What makes a function of one array nonlinear enough to be an activation. Squares, roots and
# exponentials are not among them: they are how normalisations and softmax are written.
BENDS = frozenset(["clamp", "erf", "erfc", "logistic", "max", "min", "select_n", "tanh"])
# Statistics of many elements and random numbers are not activations, whatever is done to them.
NOT_DATA = jaxprs.words(
    """argmax argmin bitcast_convert_type iota random_bits random_wrap reduce_and reduce_max
    reduce_min reduce_or reduce_prod reduce_sum sort threefry2x32 top_k"""
)
# Activations that are written out as a product of their input and one of these.
PRODUCTS = {"erf": "gelu", "erfc": "gelu", "logistic": "silu", "tanh": "gelu"}

REASONS = {
    "cond": "inside cond: only one of its branches is evaluated",
    "while": "inside while: how often it is evaluated is not known in advance",
    "shard_map": "inside shard_map: it is evaluated on parts of arrays",
} | dict.fromkeys(
    jaxprs.CUSTOM_DERIVATIVES, "inside a function with its own derivative, which is one step"
)


@dataclasses.dataclass(frozen=True)
class Site:
    """A place where a value is made."""

    name: str  # path/label, with #2, #3, ... where several would have the same name
    path: str  # the scopes of the modules around it; "" outside any
    label: str  # what the program calls it, or what it was recognised as
    kind: str  # one of KINDS; "named" if it has a name and was not recognised
    repeats: tuple[int, ...]  # (): once; (n,): in a scan of length n; (m, n): in a scan in a scan
    shape: tuple[int, ...]  # of the value, each time
    dtype: Dtype


@dataclasses.dataclass(frozen=True)
class Skipped:
    """What would be a site, but is not observed."""

    name: str
    kind: str
    reason: str


class Found(NamedTuple):
    """What there is to observe in a program, and what there is not."""

    sites: tuple[Site, ...]  # in the order in which their values are made
    numbers: dict[str, int]  # of a site's value, by the site's name
    homes: dict[str, Block]  # in which that value is made
    branches: dict[str, int]  # the number of the branch, by the name of its sum
    skipped: tuple[Skipped, ...]

    def branch_names(self) -> dict[str, str]:
        """For each residual sum, by its name, the name of a site at which its branch is seen."""
        # A value may be a branch and something else as well, such as a sum.
        by_kind = sorted(self.sites, key=lambda site: site.kind == "branch")
        names = {self.numbers[site.name]: site.name for site in by_kind}
        return {name: names[number] for name, number in self.branches.items()}


def others_that_need(branch: int, its_sum: Step, block: Block) -> str:
    """Who else in a block needs a branch, in words; "" where nobody does."""
    others = [
        f"{step.path}/{step.called_name}".lstrip("/")
        for step in block.steps
        if branch in step.inputs and step is not its_sum
    ]
    if branch in block.outputs:
        others.append("what is returned")
    return ", ".join(others)


class _Place(NamedTuple):
    """A site that has no name of its own yet, and the number of its value."""

    number: int
    home: Block
    path: str
    label: str
    kind: str
    repeats: tuple[int, ...]
    aval: Aval
    branch: int | None = None  # the number of the branch, of a sum


def find(block: Block) -> Found:
    """All sites of a program."""
    skipped: list[Skipped] = []
    places = _places(block, "", (), [True] * len(block.inputs), skipped)
    places.sort(key=lambda place: place.number)  # a branch is made before its sum is recognised
    used: collections.Counter[str] = collections.Counter()
    sites, numbers, homes, branches = [], {}, {}, {}
    for place in places:
        name = plain = f"{place.path}/{place.label}".lstrip("/")
        used[plain] += 1
        while name in numbers:
            name = f"{plain}#{used[plain]}"
            used[plain] += name in numbers
        shape, dtype = place.aval.shape, place.aval.dtype
        site = Site(name, place.path, place.label, place.kind, place.repeats, shape, dtype)
        sites.append(site)
        numbers[name] = place.number
        homes[name] = place.home
        if place.branch is not None:
            branches[name] = place.branch
    return Found(tuple(sites), numbers, homes, branches, tuple(skipped))


def _places(
    block: Block,
    path: str,
    repeats: tuple[int, ...],
    raw: Sequence[bool],
    skipped: list[Skipped],
) -> list[_Place]:
    """The places of a block; what is not observed is appended to `skipped`. raw: see `_Origin`."""
    path = f"{path}/{block.path}".strip("/")
    reader = _Reader(block, raw)
    places = []
    for step in block.steps:
        here = f"{path}/{step.path}".strip("/")
        recognised = reader.read(step)
        branch = None
        for number, label, kind, aval in recognised:
            place = _Place(number, block, here, label, kind, repeats, aval)
            if kind == "branch":  # its sum comes next
                branch = number
            elif kind == "sum":
                place = place._replace(branch=branch)
            places.append(place)
        if step.inner is not None:
            is_raw = [origin.raw for origin in reader.origins_of(step)]
            inside = repeats + step.repeats
            places += _places(step.inner, path, inside, is_raw, skipped)
        elif not recognised and not step.is_elementwise:
            reason = REASONS.get(step.primitive, f"inside {step.primitive}, which is one step")
            for hidden in step.hidden():
                for place in _places(hidden, here, (), [True] * len(hidden.inputs), skipped):
                    name = f"{place.path}/{place.label}".lstrip("/")
                    skipped.append(Skipped(name, place.kind, reason))
    return _without_doubles(places, reader.absorbed())


def _without_doubles(places: list[_Place], absorbed: set[int]) -> list[_Place]:
    """Without activations that are parts of others; and of a value that has a name and has been
    recognised too one place only, with this name and this kind."""
    named = {place.number: place for place in places if place.kind == "named"}
    kept: dict[tuple[int, str], _Place] = {}
    for place in places:
        if place.number in absorbed and place.kind == "activation":
            continue
        name = named.get(place.number, place)
        key = place.number, name.label
        if key not in kept or kept[key].kind == "named":
            kept[key] = place._replace(path=name.path, label=name.label)
    return list(kept.values())


Recognised = tuple[int, str, str, Aval]  # a value's number, label, kind and aval


class _Origin(NamedTuple):
    """From what a value was made, and how."""

    root: int | None = None  # it is a function of this value, element by element; None: a constant
    bend: str = ""  # what makes that function nonlinear
    raw: bool = False  # moved about at most, from an input of the program: data or a parameter
    is_data: bool = True  # neither a statistic nor a random number
    above: int = 0  # all values from which it was made
    straight: int = 0  # those of them that reach it without a nonlinearity


class _Reader:
    """Reads the steps of a block in order."""

    def __init__(self, block: Block, raw: Sequence[bool]) -> None:
        self.origins = {number: _Origin(number, raw=True) for number in block.constants}
        for number, is_raw in zip(block.inputs, raw, strict=True):
            self.origins[number] = _Origin(number, raw=is_raw)
        self.arrays = 0  # values that are matrices or more, of real numbers
        self.activations: dict[int, _Origin] = {}
        self.uses: dict[int, list[_Origin]] = collections.defaultdict(list)
        self.outputs = block.outputs

    def origins_of(self, step: Step) -> list[_Origin]:
        """The origins of a step's inputs; a number is as good as a constant."""
        sources = []
        for operand, aval in zip(step.inputs, step.input_avals, strict=True):
            source = self.origins[operand] if isinstance(operand, int) else _Origin()
            is_array = getattr(aval, "ndim", 0) > 0
            sources.append(source if is_array else source._replace(root=None))
        return sources

    def read(self, step: Step) -> list[Recognised]:
        """Note where a step's results come from; number, label, kind and aval of its sites."""
        sources = self.origins_of(step)
        for operand, aval in zip(step.inputs, step.input_avals, strict=True):
            if isinstance(operand, int) and _is_real(aval, 2):
                self.arrays |= 1 << operand
        origin = self._origin(step, sources)
        for number in step.outputs:
            begins = origin.root is None and any(source.root is not None for source in sources)
            self.origins[number] = origin._replace(root=number) if begins else origin
        for operand in step.inputs:
            if isinstance(operand, int) and step.outputs:
                self.uses[operand].append(self.origins[step.outputs[0]])
        return [] if step.backward else list(self._recognised(step, sources))

    def _origin(self, step: Step, sources: list[_Origin]) -> _Origin:
        """The origin of a step's results; without a root if it is theirs that begins."""
        varying = [source for source in sources if source.root is not None]
        roots = {source.root for source in varying}
        elementwise = step.is_elementwise
        root, bend = None, ""
        if elementwise and len(roots) == 1:
            (root,) = roots
            bend = _bend(step, sources) or next((s.bend for s in varying if s.bend), "")
        above = straight = 0
        for operand, source in zip(step.inputs, sources, strict=True):
            if isinstance(operand, int):
                above |= source.above | 1 << operand
                straight |= source.straight | 1 << operand
        moves = step.primitive in jaxprs.MOVES
        is_data = step.primitive not in NOT_DATA
        if varying and (elementwise or moves):
            is_data = is_data and any(source.is_data for source in varying)
        # A softmax is no activation, but what has passed it is no linear function either.
        within = frozenset() if elementwise else step.primitives
        if (bend and is_data) or step.primitive == "exp" or not BENDS.isdisjoint(within):
            straight = 0
        raw = moves and all(source.raw or source.root is None for source in sources)
        return _Origin(root, bend, raw, is_data, above, straight)

    def _recognised(self, step: Step, sources: list[_Origin]) -> Iterator[Recognised]:
        if len(step.outputs) != 1:
            return
        number, aval = step.outputs[0], step.output_avals[0]
        name = step.primitive
        if name == "name":
            yield number, step.called_name, "named", aval
        elif name == "conv_general_dilated":
            yield number, "convolution", "convolution", aval
        elif name == "dot_general" and self._is_linear(step, sources):
            yield number, "linear", "linear", aval
        elif name in ("add", "add_any") and (branch := self._branch(step, sources)) is not None:
            yield branch, "branch", "branch", aval
            yield number, "sum", "sum", aval
        elif _is_real(aval, 1) and (label := self._activation(step, sources)):
            self.activations[number] = self.origins[number]
            yield number, label, "activation", aval

    def _is_linear(self, step: Step, sources: list[_Origin]) -> bool:
        """Scores of attention, say, are products of two arrays that come from the same one."""
        above = []
        for operand, source in zip(step.inputs, sources, strict=True):
            above.append(source.above | (1 << operand if isinstance(operand, int) else 0))
        return any(source.raw for source in sources) or not above[0] & above[1] & self.arrays

    def _activation(self, step: Step, sources: list[_Origin]) -> str:
        """The label of an activation; "" for everything else."""
        origin = self.origins[step.outputs[0]]
        if not origin.bend or not origin.is_data:
            return ""
        if _bend(step, sources):
            return step.called_name
        varying = [source for source in sources if source.root is not None]
        if step.primitive in ("mul", "div") and len(varying) == 2:  # such as x * logistic(x)
            return PRODUCTS.get(origin.bend, origin.bend)
        return ""

    def absorbed(self) -> set[int]:
        """Activations that are used for nothing but other activations of the same array, such as
        the tanh in gelu."""
        parts = set()
        for number, origin in self.activations.items():
            whole = any(
                other.root == origin.root and other.above >> number & 1
                for other in self.activations.values()
            )
            stays = all(use.root == origin.root for use in self.uses[number])
            if whole and stays and number not in self.outputs:
                parts.add(number)
        return parts

    def _branch(self, step: Step, sources: list[_Origin]) -> int | None:
        """The number of the branch of a residual sum; None if it is no residual sum."""
        left, right = step.inputs
        avals = step.input_avals
        if not (isinstance(left, int) and isinstance(right, int)):
            return None
        if not _is_real(avals[0], 2) or avals[0].shape != avals[1].shape:
            return None
        if sources[0].root == sources[1].root:  # a function of one array, such as a part of gelu
            return None
        # Identity shortcut: the branch is made from the skip.
        if sources[0].above >> right & 1:
            return left
        if sources[1].above >> left & 1:
            return right
        # Projection shortcut: both are made from one array, and only the skip is so without a
        # nonlinearity.
        shared = sources[0].above & sources[1].above & self.arrays
        only_left = shared & sources[0].straight & ~sources[1].straight
        only_right = shared & sources[1].straight & ~sources[0].straight
        if bool(only_left) == bool(only_right):
            return None
        return right if only_left else left


def _bend(step: Step, sources: list[_Origin]) -> str:
    """What makes a step itself nonlinear; "" if it is linear."""
    if step.primitive == "select_n":  # chosen by the array itself, as in where(x > 0, x, 0)
        return "select_n" if sources[0].root is not None else ""
    return min(BENDS & step.primitives, default="")


def _is_real(aval: Aval, at_least: int) -> bool:
    """An array of real numbers of at least so many axes."""
    if getattr(aval, "ndim", 0) < at_least:
        return False
    return bool(jnp.issubdtype(aval.dtype, jnp.floating))
