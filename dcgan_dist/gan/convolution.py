"""Convolutions whose weight gradient is one matrix product where a CPU's kernels are slower than that: the
same sums, rounded in another order.

The product is that of all patches of the input with the gradient of the output. It gains where weights are
many and places few. Elsewhere, and without gradients, these are torch's own layers.
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
        return _convolve(self, x) if _gains(x, self.weight) else super().forward(x)


class ConvTranspose2d(nn.ConvTranspose2d):
    """`nn.ConvTranspose2d` under the same conditions."""

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        if _gains(x, self.weight):
            return _convolve(self, x)
        return super().forward(x, output_size)


MEASURED = ("AVX2", "AVX512")
"""Instruction sets, as torch names them, on which the product gains with 4x4 and 5x5 kernels: surely from two
weights for each number of the input on, see benchmarks/convolution.jsonl. Nobody has measured others; torch's
own layers are taken there."""


def _gains(x: Tensor, weight: Tensor) -> bool:
    learns = x.device.type == "cpu" and torch.is_grad_enabled() and weight.requires_grad
    return learns and weight.numel() >= x.numel() and torch.backends.cpu.get_cpu_capability() in MEASURED


def _convolve(layer: Conv2d | ConvTranspose2d, x: Tensor) -> Tensor:
    x, weight = _cast(x, layer.weight)
    sizes = layer.stride, layer.padding, layer.dilation, layer.transposed, layer.output_padding, layer.groups
    found: Tensor = _Convolve.apply(x, weight, sizes)  # type: ignore[no-untyped-call]
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
