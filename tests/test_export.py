"""An exported generator, drawn from by a program that knows its files alone."""

import json
from pathlib import Path
from typing import Any

import onnxruntime
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional

import dcgan_dist
from dcgan_dist import export
from dcgan_dist.checkpoints.checkpoint import write
from dcgan_dist.config.settings import Config, Model, dump
from dcgan_dist.gan.description import PRESETS, describe, parse_net
from dcgan_dist.gan.model import build
from dcgan_dist.pictures import to_uint8

NARROW = {  # as deep as the presets, and narrow enough to be drawn at once
    "dcgan64": "z100 k5 g 32@4 16@8 8@16 4@32 3@64 d 4@32 8@16 16@8 32@4",
    "imagenet32": "z256 k3 g 16@4 16@8 8@8 8@16 4@16 4@32 3@32 d 4@32 4@16 8@16 8@8 16@8 16@4",
    "even kernel": "z20 k4 g 16@4 8@8 3@16 d 8@8 16@4",
}
ACTIVATIONS = {"relu": torch.relu, "tanh": torch.tanh, "linear": lambda x: x}


def drawn(folder: Path, z: Tensor) -> Tensor:
    """Pictures by the words of config.json and the numbers of the safetensors."""
    told: dict[str, Any] = json.loads((folder / "config.json").read_text())
    tensors = load_file(folder / "generator.safetensors")
    h = z
    for layer in told["layers"]:
        assert layer["bias"] is None
        if layer["kind"] == "linear":
            h = functional.linear(h, tensors[layer["weight"]])
        else:
            assert layer["kind"] == "conv_transpose2d"
            h = functional.conv_transpose2d(
                h,
                tensors[layer["weight"]],
                stride=layer["stride"],
                padding=layer["padding"],
                output_padding=layer["output_padding"],
            )
        if layer["norm"] is not None:
            mean, var, gain, bias = (
                tensors[f"{layer['norm']}.{name}"]
                for name in ("running_mean", "running_var", "weight", "bias")
            )
            h = functional.batch_norm(h, mean, var, gain, bias, eps=told["norm_eps"])
        if "reshape" in layer:
            h = h.view(len(h), *layer["reshape"])
        h = ACTIVATIONS[layer["activation"]](h)
    assert h.shape[1:] == (3, told["image_size"], told["image_size"])
    return h


def made(folder: Path, model: Model) -> str:
    """A run folder with fresh, uneven weights."""
    g, d = build(parse_net(model.net), norm_eps=model.norm_eps, seeds=(1, 2), variant=model.variant)
    with torch.no_grad():
        for number, weight in enumerate(g.parameters()):
            weight.add_(0.2 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(number)))
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "config.yaml").write_text(dump(Config(model=model)))
    write(str(folder / "checkpoints"), 7, {"g": dict(g.state_dict()), "d": dict(d.state_dict())}, {})
    return str(folder)


@pytest.mark.parametrize(
    "model",
    [
        *(Model(net=net) for net in ("tiny16", *NARROW.values())),
        Model(net="tiny16", output="linear", noise="normal"),
        Model(net="tiny16", norm="everywhere"),
        Model(net="tiny16", norm="nowhere", norm_eps=1e-5),
        Model(net="tiny16", norm="not_in_g", output="linear"),
    ],
    ids=lambda model: f"{model.net[:14]}-{model.norm}-{model.output}",
)
def test_a_plain_program_draws_what_sample_draws(tmp_path: Path, model: Model) -> None:
    run, out = made(tmp_path / "run", model), tmp_path / "model"
    assert export.main([run, str(out), "--no-onnx"]) == 0
    sampler = dcgan_dist.load(run)
    z = sampler.noise(9, seed=3)
    expected, found = sampler(z), drawn(out, z)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    differ = (to_uint8(found).astype(int) - to_uint8(expected)).astype(bool)
    assert differ.mean() < 1e-3  # of those that rounding put on a border
    if model.output == "linear" and model.norm == "paper":
        assert expected.abs().max() > 1


def test_card_and_settings_say_the_same(tmp_path: Path) -> None:
    run, out = made(tmp_path / "run", Model(net="tiny16", output="linear")), tmp_path / "model"
    assert export.main([run, str(out)]) == 0
    told, card = json.loads((out / "config.json").read_text()), (out / "README.md").read_text()
    assert told["net"] == PRESETS["tiny16"]
    for said in (told["net"], told["noise_rule"], told["output_rule"].partition("; ")[2], told["batch_norm"]):
        assert said in card
    assert "| Last activation | linear |" in card
    assert "20 batches of 128 z" in card
    z = dcgan_dist.load(run).noise(5)
    session = onnxruntime.InferenceSession(out / "generator.onnx", providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"z": z.numpy()})
    torch.testing.assert_close(torch.from_numpy(found), drawn(out, z), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("net", [*PRESETS, *NARROW.values()])
def test_a_network_and_its_description_are_the_same(net: str) -> None:
    assert parse_net(describe(parse_net(net))) == parse_net(net)
