"""Convolutions, lowered to whatever is fastest on the device at hand.

On accelerators XLA's own convolution is the right choice. On a CPU it falls to a hundredth of the
speed of a matrix product where images are small and channels many, and inside a compiled loop
nearly everywhere. There a convolution is written as products of matrices; which form wins was
measured (see docs/measurements.md). All compute the same function up to rounding.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

LAYOUT = ("NHWC", "HWIO", "NHWC")
WINOGRAD_CHANNELS = 64  # with fewer, transforming the tiles costs more than it saves

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
    side, channels = min(x.shape[1:3]), min(kernel.shape[2:])
    if kernel.shape[0] == 3 and stride == 1 and side > 2:
        if channels >= WINOGRAD_CHANNELS and x.shape[1] % 2 == x.shape[2] % 2 == 0:
            return winograd(x, kernel)
        if side > 4:
            return rows(x, kernel)
    return patches(x, kernel, stride)


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


# Winograd's minimal filtering F(2x2, 3x3): tiles of 4x4 pixels, 16 products for 4 x 9.
INPUT_TRANSFORM = ((1, 0, -1, 0), (0, 1, 1, 0), (0, -1, 1, 0), (0, 1, 0, -1))
KERNEL_TRANSFORM = ((1, 0, 0), (0.5, 0.5, 0.5), (0.5, -0.5, 0.5), (0, 0, 1))
OUTPUT_TRANSFORM = ((1, 1, 1, 0), (0, 1, -1, -1))


@jax.custom_vjp
def winograd(
    x: Float[Array, "batch height width channels"], kernel: Float[Array, "3 3 channels filters"]
) -> Float[Array, "batch height width filters"]:
    """3x3, stride 1, even sides: 16 products of transformed tiles instead of 36, error below 1e-5.

    The gradient of x is the same convolution with the kernel mirrored; that of the kernel is the
    adjoint of its transform and takes 16 products as well.
    """
    b, h, w, _ = x.shape
    kernels = [[kernel[i, j] for j in range(3)] for i in range(3)]
    product = _tiles(x) @ jnp.stack(_both_sides(KERNEL_TRANSFORM, kernels))
    product = product.reshape(4, 4, b, h // 2, w // 2, -1)
    found = _both_sides(OUTPUT_TRANSFORM, [[product[i, j] for j in range(4)] for i in range(4)])
    pixels = jnp.stack([jnp.stack(found[:2], 3), jnp.stack(found[2:], 3)], 2)
    return pixels.reshape(b, h, w, -1)


def _tiles(
    x: Float[Array, "batch height width channels"],
) -> Float[Array, "16 batch*height*width//4 channels"]:
    """The transformed 4x4 surroundings of all 2x2 pixels."""
    b, h, w, c = x.shape
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    last = (h - 1, w - 1)
    tiles = [
        [
            lax.slice(padded, (0, i, j, 0), (b, i + last[0], j + last[1], c), (1, 2, 2, 1))
            for j in range(4)
        ]
        for i in range(4)
    ]
    return jnp.stack(_both_sides(INPUT_TRANSFORM, tiles)).reshape(16, -1, c)


Transform = tuple[tuple[float, ...], ...]


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


def _winograd_backward(
    saved: ImagesAndKernel, g: Float[Array, "batch height width filters"]
) -> ImagesAndKernel:
    x, kernel = saved
    (b, h, w, d), channels = g.shape, x.shape[-1]
    mirrored = kernel[::-1, ::-1].transpose(0, 1, 3, 2)
    pixels = g.reshape(b, h // 2, 2, w // 2, 2, d)
    found = [[pixels[:, :, i, :, j] for j in range(2)] for i in range(2)]
    of_product = jnp.stack(_both_sides(_transposed(OUTPUT_TRANSFORM), found)).reshape(16, -1, d)
    product = lax.dot_general(_tiles(x), of_product, (((1,), (1,)), ((0,), (0,))))
    product = product.reshape(4, 4, channels, d)
    kernels = [[product[i, j] for j in range(4)] for i in range(4)]
    of_kernel = jnp.stack(_both_sides(_transposed(KERNEL_TRANSFORM), kernels))
    return winograd(g, mirrored), of_kernel.reshape(kernel.shape)


def _transposed(transform: Transform) -> Transform:
    return tuple(zip(*transform, strict=True))


winograd.defvjp(lambda x, kernel: (winograd(x, kernel), (x, kernel)), _winograd_backward)
