"""Convolutions whose weight gradient is one matrix product where a layer has many weights for its data.

The networks' deep layers have few places and many maps, and a CPU's convolution kernels are several times
slower there backwards than forwards. The gradient of a weight is a product, of all patches of the input with
the gradient of the output: the same sum, rounded in another order. Elsewhere these are torch's own layers.
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
        if not _is_slow(x, self.weight):
            return super().forward(x)
        x, weight = _cast(x, self.weight)
        found: Tensor = _Down.apply(x, weight, self.stride[0], int(self.padding[0]))  # type: ignore[no-untyped-call]
        return found


class ConvTranspose2d(nn.ConvTranspose2d):
    """`nn.ConvTranspose2d` under the same conditions."""

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        if not _is_slow(x, self.weight):
            return super().forward(x, output_size)
        x, weight = _cast(x, self.weight)
        found: Tensor = _Up.apply(  # type: ignore[no-untyped-call]
            x, weight, self.stride[0], int(self.padding[0]), self.output_padding[0]
        )
        return found


def _is_slow(x: Tensor, weight: Tensor) -> bool:
    # Measured on two cores with AVX-512, 3x3 to 5x5 kernels, float32 and bfloat16.
    learns = torch.is_grad_enabled() and weight.requires_grad
    return x.device.type == "cpu" and learns and 2 * weight.numel() >= x.numel()


def _cast(x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    # An autograd function stands outside of autocast.
    if torch.is_autocast_enabled("cpu"):
        dtype = torch.get_autocast_dtype("cpu")
        return x.to(dtype), weight.to(dtype)
    return x, weight


class _Down(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride, ctx.padding = stride, padding
        return functional.conv2d(x, weight, stride=stride, padding=padding)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        dx = None
        if ctx.needs_input_grad[0]:
            sizes = [ctx.stride] * 2, [ctx.padding] * 2, [1, 1], False, [0, 0], 1
            dx = torch.ops.aten.convolution_backward(dy, x, weight, None, *sizes, [True, False, False])[0]
        return dx, weight_gradient(x, dy, weight.shape[-1], ctx.stride, ctx.padding), None, None


class _Up(Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, stride: int, padding: int, output_padding: int
    ) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride, ctx.padding = stride, padding
        return functional.conv_transpose2d(
            x, weight, stride=stride, padding=padding, output_padding=output_padding
        )

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        dx = None
        if ctx.needs_input_grad[0]:
            dx = functional.conv2d(dy, weight, stride=ctx.stride, padding=ctx.padding)
        # It is the gradient of a convolution that takes what this one gives, and gives what it takes.
        return dx, weight_gradient(dy, x, weight.shape[-1], ctx.stride, ctx.padding), None, None, None


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
