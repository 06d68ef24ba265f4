"""Convolutions, lowered to whatever is fastest on the device at hand.

On accelerators XLA's own convolution is the right choice. On a CPU it falls to a hundredth of the
speed of a matrix product where images are small and channels many, and inside a compiled loop
nearly everywhere. There a convolution is written as products of matrices; which form wins was
measured (see docs/measurements.md). All compute the same function up to rounding.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from cbundles.materialised import computed_before, opaque_zero_of
from cbundles.networks.shape import CONV_BATCH

LAYOUT = ("NHWC", "HWIO", "NHWC")
WINOGRAD_CHANNELS = 64  # with fewer, transforming the tiles costs more than it saves

LARGE_SIDE = 16  # pixels, from which on larger tiles are faster
FOLDED_SIZE = 7  # of the kernel of a stem
FOLDED_FILTERS = 8  # with 16 it adds up as much as it need not copy
Transform = tuple[tuple[float, ...], ...]

# What a backward pass needs, and the gradients that it gives.
ImagesAndKernel = tuple[
    Float[Array, "batch height width channels"], Float[Array, "3 3 channels filters"]
]


def convolve(
    x: Float[Array, "batch height width channels"],
    kernel: Float[Array, "size size channels filters"],
    stride: int,
) -> Float[Array, "batch new_height new_width filters"]:
    """SAME convolution."""
    if jax.default_backend() != "cpu":
        return xla(x, kernel, stride)
    if len(x) > CONV_BATCH:
        return _in_parts(x, kernel, stride)
    side, channels = min(x.shape[1:3]), min(kernel.shape[2:])
    if kernel.shape[0] == 3 and stride == 1 and side > 2:
        if channels >= WINOGRAD_CHANNELS:
            if side >= LARGE_SIDE and x.shape[1] % 4 == x.shape[2] % 4 == 0:
                return winograd(x, kernel, F4)
            if x.shape[1] % 2 == x.shape[2] % 2 == 0:
                return winograd(x, kernel, F2)
        if side > 4:
            return rows(x, kernel)
    if (
        kernel.shape[0] == FOLDED_SIZE
        and stride == 2
        and kernel.shape[3] <= FOLDED_FILTERS
        and x.shape[1] % 2 == x.shape[2] % 2 == 0
    ):
        return folded(x, kernel)
    return patches(x, kernel, stride)


def _in_parts(
    x: Float[Array, "batch height width channels"],
    kernel: Float[Array, "size size channels filters"],
    stride: int,
) -> Float[Array, "batch new_height new_width filters"]:
    """`convolve` of many images, some after others: what products of all of them need is many times
    what they yield."""
    parts = -(-len(x) // CONV_BATCH)
    size = -(-len(x) // parts)
    filled = jnp.pad(x, ((0, parts * size - len(x)), (0, 0), (0, 0), (0, 0)))
    each = filled.reshape(parts, size, *x.shape[1:])
    found: Array = lax.map(lambda part: convolve(part, kernel, stride), each)
    return found.reshape(parts * size, *found.shape[2:])[: len(x)]


def xla(
    x: Float[Array, "batch height width channels"],
    kernel: Float[Array, "size size channels filters"],
    stride: int,
) -> Float[Array, "batch new_height new_width filters"]:
    """XLA's convolution."""
    strides = (stride, stride)
    return lax.conv_general_dilated(x, kernel, strides, "SAME", dimension_numbers=LAYOUT)


def patches(
    x: Float[Array, "batch height width channels"],
    kernel: Float[Array, "size size channels filters"],
    stride: int,
) -> Float[Array, "batch new_height new_width filters"]:
    """One product: the surroundings of every output pixel, (B H' W', k k C), times the kernel."""
    b, h, w, c = x.shape
    k = kernel.shape[0]
    height, width = -(-h // stride), -(-w // stride)
    missing = [max((n - 1) * stride + k - m, 0) for n, m in ((height, h), (width, w))]
    padding = [(n // 2, n - n // 2) for n in missing]
    padded = jnp.pad(x, ((0, 0), *padding, (0, 0)))
    spans = [(n - 1) * stride + 1 for n in (height, width)]
    # Down first, then across: 2 k slices to compile, not k^2.
    down = [lax.slice_in_dim(padded, i, i + spans[0], stride, axis=1) for i in range(k)]
    beside = jnp.concatenate(down, -1)
    across = [lax.slice_in_dim(beside, j, j + spans[1], stride, axis=2) for j in range(k)]
    columns = jnp.concatenate(across, -1).reshape(-1, k * k * c)
    weights = kernel.transpose(1, 0, 2, 3).reshape(k * k * c, -1)
    return (columns @ weights).reshape(b, height, width, -1)


def folded(
    x: Float[Array, "batch height width channels"], kernel: Float[Array, "7 7 channels filters"]
) -> Float[Array, "batch height/2 width/2 filters"]:
    """7x7, stride 2, even sides, for few filters: with the four pixels of each 2x2 as channels of
    one it is 4x4 with stride 1 on half the side. That is computed as by `rows`: four vertical
    shifts side by side, one product with four horizontal kernels, whose results are shifted and
    added.

    Patches are 49 C numbers for each pixel of the result; these are 16 C, and 4 D of the product.
    """
    (b, h, w, c), d = x.shape, kernel.shape[-1]
    height, width, shifts = h // 2, w // 2, (FOLDED_SIZE + 1) // 2
    padded = jnp.pad(x, ((0, 0), (2, 4), (2, 4), (0, 0)))  # SAME would be 2 and 3
    fours = padded.reshape(b, height + 3, 2, width + 3, 2, c).transpose(0, 1, 3, 2, 4, 5)
    fours = fours.reshape(b, height + 3, width + 3, 4 * c)
    stacked = jnp.concatenate([fours[:, i : i + height] for i in range(shifts)], -1)
    even = jnp.pad(kernel, ((0, 1), (0, 1), (0, 0), (0, 0)))
    kernels = even.reshape(shifts, 2, shifts, 2, c, d).transpose(0, 1, 3, 4, 2, 5)
    product = stacked.reshape(-1, 16 * c) @ kernels.reshape(16 * c, 4 * d)
    product = product.reshape(b, height, width + 3, 4 * d)
    parts = [product[:, :, j : j + width, j * d : (j + 1) * d] for j in range(shifts)]
    return parts[0] + parts[1] + parts[2] + parts[3]


@jax.custom_vjp
def rows(
    x: Float[Array, "batch height width channels"], kernel: Float[Array, "3 3 channels filters"]
) -> Float[Array, "batch height width filters"]:
    """3x3, stride 1, for few channels: three vertical shifts of x side by side, (B H (W+2), 3 C),
    one product with three horizontal kernels, (3 C, 3 D), whose results are shifted and added.

    A third of the memory traffic of `patches`. Its gradients are written out: that of x is the same
    convolution with the kernel mirrored, that of the kernel one more product.
    """
    (b, h, w, _), d = x.shape, kernel.shape[-1]
    product = _stacked(x) @ kernel.transpose(0, 2, 1, 3).reshape(-1, 3 * d)
    product = product.reshape(b, h, w + 2, 3 * d)
    parts = [product[:, :, j : j + w, j * d : (j + 1) * d] for j in range(3)]
    return parts[0] + parts[1] + parts[2]


def _stacked(
    x: Float[Array, "batch height width channels"],
) -> Float[Array, "batch*height*(width+2) 3*channels"]:
    """Each pixel beside the ones above and below it."""
    h, c = x.shape[1], x.shape[3]
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    return jnp.concatenate([padded[:, i : i + h] for i in range(3)], -1).reshape(-1, 3 * c)


def _rows_forward(
    x: Float[Array, "batch height width channels"], kernel: Float[Array, "3 3 channels filters"]
) -> tuple[Float[Array, "batch height width filters"], ImagesAndKernel]:
    return rows(x, kernel), (x, kernel)


def _rows_backward(
    saved: ImagesAndKernel, g: Float[Array, "batch height width filters"]
) -> ImagesAndKernel:
    x, kernel = saved
    (c, d), w = kernel.shape[2:], x.shape[2]
    mirrored = kernel[::-1, ::-1].transpose(0, 1, 3, 2)
    padded = jnp.pad(g, ((0, 0), (0, 0), (2, 2), (0, 0)))
    shifted = jnp.concatenate([padded[:, :, 2 - j : w + 4 - j] for j in range(3)], -1)
    product = lax.dot_general(_stacked(x), shifted.reshape(-1, 3 * d), (((0,), (0,)), ((), ())))
    return rows(g, mirrored), product.reshape(3, c, 3, d).transpose(0, 2, 1, 3)


rows.defvjp(_rows_forward, _rows_backward)


class Filtering(NamedTuple):
    """Winograd's minimal filtering F(m x m, 3x3): of m x m pixels at once, from tiles of m + 2
    pixels a side, with (m + 2)^2 products instead of 9 m^2."""

    pixels: int
    input: Transform
    kernel: Transform
    output: Transform

    @property
    def side(self) -> int:
        """Of a tile."""
        return self.pixels + 2


F2 = Filtering(
    2,
    input=((1, 0, -1, 0), (0, 1, 1, 0), (0, -1, 1, 0), (0, 1, 0, -1)),
    kernel=((1, 0, 0), (0.5, 0.5, 0.5), (0.5, -0.5, 0.5), (0, 0, 1)),
    output=((1, 1, 1, 0), (0, 1, -1, -1)),
)
F4 = Filtering(
    4,
    input=(
        (4, 0, -5, 0, 1, 0),
        (0, -4, -4, 1, 1, 0),
        (0, 4, -4, -1, 1, 0),
        (0, -2, -1, 2, 1, 0),
        (0, 2, -1, -2, 1, 0),
        (0, 4, 0, -5, 0, 1),
    ),
    kernel=(
        (1 / 4, 0, 0),
        (-1 / 6, -1 / 6, -1 / 6),
        (-1 / 6, 1 / 6, -1 / 6),
        (1 / 24, 1 / 12, 1 / 6),
        (1 / 24, -1 / 12, 1 / 6),
        (0, 0, 1),
    ),
    output=((1, 1, 1, 1, 1, 0), (0, 1, -1, 2, -2, 0), (0, 1, 1, 4, 4, 0), (0, 1, -1, 8, -8, 1)),
)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def winograd(
    x: Float[Array, "batch height width channels"],
    kernel: Float[Array, "3 3 channels filters"],
    filtering: Filtering = F2,
) -> Float[Array, "batch height width filters"]:
    """3x3, stride 1, sides that are multiples of `Filtering.pixels`: 4 (F2) or 2.25 (F4) products a
    pixel instead of 9; error below 1e-5 of the largest value.

    The gradient of x is the same convolution with the kernel mirrored; that of the kernel is the
    adjoint of its transform and takes as many products.
    """

    def convolved(given: ImagesAndKernel) -> Float[Array, "batch height width filters"]:
        return _filtered(*given, filtering)

    found: Array = computed_before(convolved, (x, kernel), opaque_zero_of(kernel))
    return found


def _filtered(
    x: Float[Array, "batch height width channels"],
    kernel: Float[Array, "3 3 channels filters"],
    filtering: Filtering,
) -> Float[Array, "batch height width filters"]:
    (b, h, w, _), m, n = x.shape, filtering.pixels, filtering.side
    kernels = [[kernel[i, j] for j in range(3)] for i in range(3)]
    product = _tiles(x, filtering) @ jnp.stack(_both_sides(filtering.kernel, kernels))
    product = product.reshape(n, n, b, h // m, w // m, -1)
    grid = [[product[i, j] for j in range(n)] for i in range(n)]
    found = _both_sides(filtering.output, grid)
    rows = [jnp.stack(found[i * m : (i + 1) * m], 3) for i in range(m)]
    return jnp.stack(rows, 2).reshape(b, h, w, -1)


def _tiles(
    x: Float[Array, "batch height width channels"], filtering: Filtering
) -> Float[Array, "products tiles channels"]:
    """The transformed surroundings of all groups of pixels."""
    (b, h, w, c), m, n = x.shape, filtering.pixels, filtering.side
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    last = (h - m + 1, w - m + 1)
    tiles = [
        [
            lax.slice(padded, (0, i, j, 0), (b, i + last[0], j + last[1], c), (1, m, m, 1))
            for j in range(n)
        ]
        for i in range(n)
    ]
    return jnp.stack(_both_sides(filtering.input, tiles)).reshape(n * n, -1, c)


def _both_sides(
    transform: Transform, grid: list[list[Float[Array, "*part"]]]
) -> list[Float[Array, "*part"]]:
    """``T G T^t`` for a square grid G of arrays, row by row."""
    columns = [[_combined(row, [line[j] for line in grid]) for row in transform]
               for j in range(len(grid))]  # fmt: skip
    return [
        _combined(row, [column[i] for column in columns])
        for i in range(len(transform))
        for row in transform
    ]


def _combined(
    factors: tuple[float, ...], terms: list[Float[Array, "*part"]]
) -> Float[Array, "*part"]:
    """The sum of terms times factors, without touching what is multiplied by 0 or 1."""
    total = None
    for factor, term in zip(factors, terms, strict=True):
        if factor:
            scaled = term if factor == 1 else -term if factor == -1 else factor * term
            total = scaled if total is None else total + scaled
    assert total is not None
    return total


def _winograd_forward(
    x: Float[Array, "batch height width channels"],
    kernel: Float[Array, "3 3 channels filters"],
    filtering: Filtering,
) -> tuple[Float[Array, "batch height width filters"], ImagesAndKernel]:
    return winograd(x, kernel, filtering), (x, kernel)


def _winograd_backward(
    filtering: Filtering, saved: ImagesAndKernel, g: Float[Array, "batch height width filters"]
) -> ImagesAndKernel:
    def gradients(given: tuple[Array, Array, Array]) -> ImagesAndKernel:
        return _gradients(*given, filtering)

    x, kernel = saved
    found: ImagesAndKernel = computed_before(gradients, (x, kernel, g), opaque_zero_of(kernel))
    return found


def _gradients(
    x: Float[Array, "batch height width channels"],
    kernel: Float[Array, "3 3 channels filters"],
    g: Float[Array, "batch height width filters"],
    filtering: Filtering,
) -> ImagesAndKernel:
    (b, h, w, d), channels = g.shape, x.shape[-1]
    m, n = filtering.pixels, filtering.side
    pixels = g.reshape(b, h // m, m, w // m, m, d)
    found = [[pixels[:, :, i, :, j] for j in range(m)] for i in range(m)]
    of_product = _both_sides(_transposed(filtering.output), found)
    product = lax.dot_general(
        _tiles(x, filtering),
        jnp.stack(of_product).reshape(n * n, -1, d),
        (((1,), (1,)), ((0,), (0,))),
    ).reshape(n, n, channels, d)
    kernels = [[product[i, j] for j in range(n)] for i in range(n)]
    of_kernel = jnp.stack(_both_sides(_transposed(filtering.kernel), kernels))
    mirrored = kernel[::-1, ::-1].transpose(0, 1, 3, 2)
    return _filtered(g, mirrored, filtering), of_kernel.reshape(kernel.shape)


def _transposed(transform: Transform) -> Transform:
    return tuple(zip(*transform, strict=True))


winograd.defvjp(_winograd_forward, _winograd_backward)
