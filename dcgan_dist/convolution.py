"""Convolutions done otherwise where a CPU's kernels are slow: the same sums, rounded in another order.

Deep layers have few places and many maps, and backwards the kernels are several times slower there than
forwards: their weight gradient is one matrix product, of all patches of the input with the gradient of the
output. The layer that draws the picture has three maps: it becomes a convolution to four pictures of half the
size, a pixel of each in turn (Shi et al. 2016, efficient sub-pixel convolution). Elsewhere, and without
gradients, these are torch's own layers.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn import functional


class Conv2d(nn.Conv2d):
    """`nn.Conv2d` of one group, without bias and dilation, with the same stride and padding both ways."""

    def forward(self, x: Tensor) -> Tensor:
        return _apply(_Convolve, self, x) if _is_slow(x, self.weight) else super().forward(x)


class ConvTranspose2d(nn.ConvTranspose2d):
    """`nn.ConvTranspose2d` under the same conditions."""

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        if _is_slow(x, self.weight):
            return _apply(_Convolve, self, x)
        if _has_few_maps(self, x):
            return _apply(_DrawFewMaps, self, x)
        return super().forward(x, output_size)


# Both measured on two cores with AVX-512, 3x3 to 5x5 kernels, float32 and bfloat16.
def _is_slow(x: Tensor, weight: Tensor) -> bool:
    return _learns(x, weight) and 2 * weight.numel() >= x.numel()


def _has_few_maps(layer: ConvTranspose2d, x: Tensor) -> bool:
    shape = layer.kernel_size[0], layer.stride[0], layer.padding[0], layer.output_padding[0]
    return _learns(x, layer.weight) and layer.out_channels <= 4 and shape in ((4, 2, 1, 0), (5, 2, 2, 1))


def _learns(x: Tensor, weight: Tensor) -> bool:
    return x.device.type == "cpu" and torch.is_grad_enabled() and weight.requires_grad


def _apply(function: type[Function], layer: Conv2d | ConvTranspose2d, x: Tensor) -> Tensor:
    x, weight = _cast(x, layer.weight)
    sizes = layer.stride, layer.padding, layer.dilation, layer.transposed, layer.output_padding, layer.groups
    found: Tensor = function.apply(x, weight, sizes)  # type: ignore[no-untyped-call]
    return found


def _cast(x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    # An autograd function stands outside of autocast.
    if torch.is_autocast_enabled("cpu"):
        dtype = torch.get_autocast_dtype("cpu")
        return x.to(dtype), weight.to(dtype)
    return x, weight


class _Convolve(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, sizes: tuple[Any, ...]) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.sizes = sizes
        return torch.convolution(x, weight, None, *sizes)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        (stride, _), (padding, _), _, transposed, *_ = ctx.sizes
        dx = None
        if ctx.needs_input_grad[0]:
            only_x = [True, False, False]
            dx = torch.ops.aten.convolution_backward(dy, x, weight, None, *ctx.sizes, only_x)[0]
        # A transposed one has the gradient of the convolution the other way round.
        taken, given = (dy, x) if transposed else (x, dy)
        return dx, weight_gradient(taken, given, weight.shape[-1], stride, padding), None


class _DrawFewMaps(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, sizes: tuple[Any, ...]) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.sizes = sizes
        return by_sub_pixels(x, weight, padding=sizes[1][0])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        wanted = [*ctx.needs_input_grad[:2], False]
        dx, dweight, _ = torch.ops.aten.convolution_backward(dy, *ctx.saved_tensors, None, *ctx.sizes, wanted)
        return dx, dweight, None


def by_sub_pixels(x: Tensor, weight: Tensor, *, padding: int) -> Tensor:
    """conv_transpose2d of stride 2 to twice the size, (n, in, h, w) -> (n, out, 2h, 2w).

    `weight` (in, out, k, k), k 4 or 5. Row 2i + a of the output takes rows i - 1, i and i + 1 of the input,
    with rows a + padding + 2, a + padding and a + padding - 2 of the kernel, where it has these.
    """
    before, after, kernel, _ = weight.shape
    low, high = 2 - padding, padding + 4 - kernel
    # Six rows, by three of the input and two of the output.
    wide = functional.pad(weight, (low, high, low, high))
    parts = wide.reshape(before, after, 3, 2, 3, 2).flip(2, 4).permute(1, 3, 5, 0, 2, 4)
    halves = functional.conv2d(x, parts.reshape(4 * after, before, 3, 3), padding=1)
    return functional.pixel_shuffle(halves, 2)


def weight_gradient(x: Tensor, dy: Tensor, kernel: int, stride: int, padding: int) -> Tensor:
    """dL/dW (out, in, kernel, kernel) of y = conv2d(x, W), from x (n, in, h, w) and dL/dy (n, out, i, j)."""
    images, channels = x.shape[:2]
    maps, *places = dy.shape[1:]
    # Channels last, so that a patch is `kernel` contiguous rows.
    padded = functional.pad(x.permute(0, 2, 3, 1), (0, 0, padding, padding, padding, padding))
    by_image, by_row, by_column, _ = padded.stride()
    patches = padded.as_strided(
        (images, *places, kernel, kernel, channels),
        (by_image, by_row * stride, by_column * stride, by_row, by_column, 1),
    ).reshape(-1, kernel * kernel * channels)
    product = dy.permute(0, 2, 3, 1).reshape(-1, maps).t() @ patches
    return product.view(maps, kernel, kernel, channels).permute(0, 3, 1, 2)
