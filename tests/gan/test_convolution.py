"""Convolutions done otherwise are those of torch's own layers."""

import pytest
import torch
from torch import Tensor, nn

from dcgan_dist.gan import convolution
from dcgan_dist.gan.convolution import Conv2d, ConvTranspose2d

# Kernel, stride, padding, output padding: of the paper's networks, its 32x32 ones, the tutorials'.
SHAPES = [(5, 2, 2, 1), (3, 1, 1, 0), (3, 2, 1, 1), (4, 2, 1, 0)]


def gradients(layer: nn.Module, x: Tensor, dy: Tensor) -> tuple[Tensor, ...]:
    x = x.clone().requires_grad_()
    y = layer(x)
    assert isinstance(layer.weight, Tensor)
    return (y.detach(), *torch.autograd.grad(y, (x, layer.weight), dy.to(y)))


def pair(
    ours: type[nn.Module], shape: tuple[int, int, int, int]
) -> tuple[nn.Module, nn.Module, Tensor, Tensor]:
    """Our layer and torch's with the same weights, an input and the gradient of an output, in float64."""
    kernel, stride, padding, output_padding = shape
    up = ours is ConvTranspose2d
    more = {"output_padding": output_padding} if up else {}
    layers = [
        made(6, 10, kernel, stride=stride, padding=padding, bias=False, **more).double()
        for made in (ours, nn.ConvTranspose2d if up else nn.Conv2d)
    ]
    layers[1].load_state_dict(layers[0].state_dict())
    x = torch.randn(2, 6, 4, 4, dtype=torch.float64).to(memory_format=torch.channels_last)
    return layers[0], layers[1], x, torch.randn_like(layers[1](x))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("ours", [Conv2d, ConvTranspose2d])
def test_all_gradients_are_those_of_torch(
    ours: type[nn.Module], shape: tuple[int, int, int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    layer, theirs, x, dy = pair(ours, shape)
    expected = gradients(theirs, x, dy)
    used: list[int] = []
    product = convolution.weight_gradient
    monkeypatch.setattr(convolution, "weight_gradient", lambda *a: used.append(1) or product(*a))
    for found, wanted in zip(gradients(layer, x, dy), expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)
    assert used, "torch's own was taken"


@pytest.mark.parametrize("ours", [Conv2d, ConvTranspose2d])
def test_autocast_rounds_as_in_torchs_layers(ours: type[nn.Module]) -> None:
    layer, theirs, x, dy = pair(ours, SHAPES[0])
    exact = gradients(theirs, x, dy)
    layer.float(), theirs.float()
    with torch.autocast("cpu", torch.bfloat16):
        rounded = [gradients(each, x.float(), dy) for each in (layer, theirs)]
    for found, wanted, true in zip(*rounded, exact, strict=True):
        assert found.dtype == wanted.dtype
        error, theirs_error = ((each.double() - true).abs().mean() for each in (found, wanted))
        assert error < 1.2 * theirs_error + 1e-6


@pytest.mark.parametrize("ours", [Conv2d, ConvTranspose2d])
def test_a_frozen_layer_is_torchs_own(ours: type[nn.Module], monkeypatch: pytest.MonkeyPatch) -> None:
    layer, _, x, _ = pair(ours, SHAPES[0])
    monkeypatch.setattr(convolution, "_cast", lambda *_: pytest.fail("not torch's own"))
    with torch.no_grad():
        layer(x)
    layer.requires_grad_(False)
    layer(x.requires_grad_()).sum().backward()
    assert x.grad is not None


@pytest.mark.parametrize(
    ("capability", "weights_per_input", "ours"),
    [
        ("AVX512", 1, True),
        ("AVX512", 0.5, False),
        ("AVX2", 1, True),
        ("AVX2", 0.5, False),
        ("SVE256", 99, False),
    ],
)
def test_the_way_follows_from_instruction_set_and_shapes(
    capability: str, weights_per_input: float, ours: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    taken: list[int] = []
    way = convolution._convolve
    monkeypatch.setattr(convolution, "_convolve", lambda *a: taken.append(1) or way(*a))
    layer = Conv2d(10, 10, 4, stride=2, padding=1, bias=False)  # 1,600 weights
    images = round(1600 / weights_per_input / (10 * 4 * 4))
    layer(torch.ones(images, 10, 4, 4))
    assert bool(taken) == ours
