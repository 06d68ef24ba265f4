"""Shapes of networks, and what follows from them. No JAX here, so that plans need none, but for a
user's architecture."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any, NamedTuple

from cbundles.config import Model, parse_blocks
from cbundles.data.dataset import Facts

# Images that are classified or convolved at once: activations are many times those.
CONV_BATCH = 256
POOL_ABOVE = 50  # pixels of width: wider images are halved once more after the stem


@dataclass(frozen=True)
class FcShape:
    """A fully connected network. inputs and outputs: pixels and classes; depth: hidden layers;
    width: neurons in each; block: what the layers after the first are, and normalisation: whether
    layers are standardised before the activation, see `fc`."""

    inputs: int
    depth: int
    width: int
    outputs: int
    block: str = "plain-relu"
    normalisation: str = "none"

    @property
    def is_normalised(self) -> bool:
        return self.normalisation != "none"

    @property
    def weights(self) -> int:
        """Matrices in a block."""
        return 2 if self.block.startswith("residual2") else 1

    @property
    def layers(self) -> int:
        """How many outputs are measured: those of all hidden layers."""
        return self.depth

    @property
    def columns(self) -> int:
        """Numbers in the largest activation that is measured."""
        return self.width

    @property
    def statistics(self) -> int:
        """Running statistics of batch normalisation, of which it has none."""
        return 0

    @cached_property
    def parameters(self) -> int:
        hidden = (self.depth - 1) * (self.weights * self.width + 1) * self.width
        norms = 2 * self.depth * self.width if self.is_normalised else 0
        return (self.inputs + 1) * self.width + hidden + (self.width + 1) * self.outputs + norms

    @property
    def bytes(self) -> int:
        """Bytes of the weights alone, in float32."""
        return 4 * self.parameters

    @cached_property
    def flops(self) -> int:
        """FLOPs of one sample's forward pass: multiplications and additions of the matrix
        products."""
        hidden = (self.depth - 1) * self.weights * self.width * self.width
        return 2 * (self.inputs * self.width + hidden + self.width * self.outputs)


class Stage(NamedTuple):
    """Kernel sizes (k, k, C, D) of a stage. first: of the block that halves the image (two, and a
    third for the skip of a ResNet), empty without such a block; rest: of each of the `repeats`
    other blocks; size: height and width of the activations."""

    first: tuple[tuple[int, ...], ...]
    rest: tuple[tuple[int, ...], ...]
    repeats: int
    size: tuple[int, int]


@dataclass(frozen=True)
class ConvShape:
    """A VGG or, with `residual`, a ResNet. image: height, width, channels; blocks: in each of the
    four stages; filters: of the first stage, doubled in each further one; bare: numbers of the
    stages, from 0, whose first block has lost its branch and is the skip that halves the image;
    inserted: sorted numbers of the blocks, from 0, that an inserted layer follows, a convolution of
    3x3 without normalisation; a number stands as often as layers follow that block."""

    image: tuple[int, int, int]
    blocks: tuple[int, int, int, int]
    filters: int
    residual: bool
    outputs: int
    bare: tuple[int, ...] = ()
    inserted: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        blocks = range(self.layers)
        if list(self.inserted) != sorted(self.inserted) or not set(self.inserted) <= set(blocks):
            raise ValueError(f"inserted layers follow blocks 0 to {self.layers - 1}, in order")

    @property
    def depth(self) -> int:
        """Layers as the paper counts them: the stem, two convolutions a branch, the output; and
        each inserted one."""
        return 2 + 2 * (self.layers - len(self.bare)) + len(self.inserted)

    @property
    def layers(self) -> int:
        """How many block outputs are measured. Those of inserted layers are not."""
        return sum(self.blocks)

    @property
    def branches(self) -> int:
        """How many branches are measured: of a ResNet all that it has."""
        return self.layers - len(self.bare) if self.residual else 0

    @property
    def columns(self) -> int:
        """Numbers in the largest activation that is measured."""
        sizes = [
            math.prod(s.size) * s.rest[0][3] for s in self.stages if s.repeats + len(s.first) > 0
        ]
        return max(sizes)

    @property
    def stem(self) -> tuple[int, int, int, int]:
        return (7, 7, self.image[2], self.filters)

    @cached_property
    def stages(self) -> tuple[Stage, ...]:
        size, channels = self._after_stem, self.filters
        result = []
        for number, blocks in enumerate(self.blocks):
            filters, halves = self.filters * 2**number, number > 0 and blocks > 0
            rest = ((3, 3, filters, filters),) * 2
            first: tuple[tuple[int, ...], ...] = ()
            if halves:
                first = ((3, 3, channels, filters), rest[1])
                if self.residual:
                    skip = (1, 1, channels, filters)
                    first = (skip,) if number in self.bare else (*first, skip)
                size = (-(-size[0] // 2), -(-size[1] // 2))
            if blocks:
                channels = filters
            result.append(Stage(first, rest, blocks - halves, size))
        return tuple(result)

    @property
    def places(self) -> tuple[tuple[int, int, int], ...]:
        """Height, width and channels of every block's output, which are those behind its inserted
        layers as well: there one more could follow."""
        counts = [(stage, bool(stage.first) + stage.repeats) for stage in self.stages]
        return tuple((*s.size, s.rest[0][3]) for s, blocks in counts for _ in range(blocks))

    @property
    def inserted_kernels(self) -> list[tuple[int, int, int, int]]:
        """(3, 3, D, D) of every inserted layer."""
        filters = [self.places[block][2] for block in self.inserted]
        return [(3, 3, d, d) for d in filters]

    @property
    def _after_stem(self) -> tuple[int, int]:
        factor = 4 if self.image[1] > POOL_ABOVE else 2
        return -(-self.image[0] // factor), -(-self.image[1] // factor)

    @property
    def features(self) -> int:
        """Channels of the last block."""
        last = max((n for n, blocks in enumerate(self.blocks) if blocks), default=0)
        return self.filters * 2**last

    @property
    def _kernels(self) -> list[tuple[tuple[int, ...], int]]:
        """Every normalised convolution's kernel and how many pixels it yields."""
        pixels = -(-self.image[0] // 2) * -(-self.image[1] // 2)
        found: list[tuple[tuple[int, ...], int]] = [(self.stem, pixels)]
        for stage in self.stages:
            kernels = (*stage.first, *stage.rest * stage.repeats)
            found += [(kernel, math.prod(stage.size)) for kernel in kernels]
        return found

    @property
    def stem_pixels(self) -> int:
        """Of the stem's output, before it is pooled."""
        return self._kernels[0][1]

    @property
    def outputs_of_convolutions(self) -> list[int]:
        """Numbers in the output of each normalised one, of one image."""
        return [kernel[-1] * pixels for kernel, pixels in self._kernels]

    @cached_property
    def parameters(self) -> int:
        """Trainable: kernels, and for each filter a bias, gamma and beta, of inserted layers a bias
        alone; and the output layer."""
        convolutions = sum(math.prod(kernel) + 3 * kernel[-1] for kernel, _ in self._kernels)
        convolutions += sum(math.prod(kernel) + kernel[-1] for kernel in self.inserted_kernels)
        return convolutions + (self.features + 1) * self.outputs

    @cached_property
    def statistics(self) -> int:
        """Running means and variances."""
        return sum(2 * kernel[-1] for kernel, _ in self._kernels)

    @property
    def bytes(self) -> int:
        """Bytes of parameters and running statistics in float32: the memory column of table 1."""
        return 4 * (self.parameters + self.statistics)

    @cached_property
    def flops(self) -> int:
        """FLOPs of one sample's forward pass: multiplications and additions of all
        convolutions."""
        convolutions = sum(math.prod(kernel) * pixels for kernel, pixels in self._kernels)
        for block, kernel in zip(self.inserted, self.inserted_kernels, strict=True):
            convolutions += math.prod(kernel) * math.prod(self.places[block][:2])
        return 2 * (convolutions + self.features * self.outputs)


@dataclass(frozen=True)
class OwnShape:
    """A user's architecture. build, source, keywords: see `networks.own.Named`; image: height,
    width, channels; the others: `networks.own.Sizes`."""

    build: str
    source: str
    keywords: str
    image: tuple[int, int, int]
    outputs: int
    sites: tuple[str, ...]
    columns: int
    parameters: int
    statistics: int
    flops: int

    @property
    def depth(self) -> int:
        """Layers that are measured."""
        return len(self.sites)

    @property
    def layers(self) -> int:
        """How many outputs are measured: all."""
        return len(self.sites)

    @property
    def bytes(self) -> int:
        """Bytes of parameters and running statistics in float32."""
        return 4 * (self.parameters + self.statistics)


Shape = FcShape | ConvShape | OwnShape


def shape_from_data(kind: type[Shape], sizes: dict[str, Any]) -> Shape:
    """A shape from what `dataclasses.asdict` and JSON made of one, which knows lists only. Raises
    TypeError or ValueError for what is none."""
    fields: dict[str, Any] = {
        name: tuple(size) if isinstance(size, list) else size for name, size in sizes.items()
    }
    return kind(**fields)


@cache  # a plan asks several times for each of up to 100,000 cells
def shape_of(model: Model, facts: Facts) -> Shape:
    """The network that a configuration describes, for images of a data set."""
    if model.family == "fc":
        return FcShape(
            facts.inputs,
            model.depth,
            model.width,
            facts.num_classes,
            model.block,
            model.normalisation,
        )
    if model.is_own:
        return _own_shape(model, facts)
    blocks, residual = parse_blocks(model.blocks), model.family == "resnet"
    return ConvShape(facts.image_shape, blocks, model.base_filters, residual, facts.num_classes)


def _own_shape(model: Model, facts: Facts) -> OwnShape:
    """The only kind of which a plan needs JAX: it has to be traced. InputError for what cannot be
    trained."""
    from cbundles.networks import own

    named = own.Named(model.build, model.source, json.dumps(model.keywords_of_build))
    sizes = own.sizes_of(named, facts.image_shape, facts.num_classes)
    return OwnShape(
        image=facts.image_shape, outputs=facts.num_classes, **named._asdict(), **sizes._asdict()
    )
