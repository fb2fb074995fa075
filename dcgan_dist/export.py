"""Hand a generator on: `python -m dcgan_dist.export RUN OUT` writes weights, ONNX, and a model card.

    generator.safetensors  weights and frozen statistics     generator.onnx  z -> picture, any batch
    config.json            every layer, z, batch norm        README.md       the model card

Kept out: the discriminator and the optimisers, which stay in the run's checkpoints.
"""

import argparse
import json
import logging
import sys
import warnings
from collections.abc import Collection, Sequence
from dataclasses import replace
from html import escape
from importlib.util import find_spec
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as unpack_tensors
from safetensors.torch import save as pack_tensors
from torch import Tensor, nn

from dcgan_dist import pictures
from dcgan_dist.checkpoints import checkpoint
from dcgan_dist.config.settings import Config, Model
from dcgan_dist.gan import calibrate
from dcgan_dist.gan.batchnorm import BatchNorm
from dcgan_dist.gan.description import NetError, describe, parse_net
from dcgan_dist.gan.model import Generator
from dcgan_dist.ranks.devices import choose_device
from dcgan_dist.report.read_runs import Gathered, gather
from dcgan_dist.run_folder import untrusted
from dcgan_dist.run_folder.networks import Sampler, load, received_config
from dcgan_dist.run_folder.versions import versions
from shards import ShardsError
from shards.command import command
from shards.dataset.index import load as load_index
from shards.errors import ToldError
from shards.extras import install
from shards.printable import printable
from shards.redact import redact
from shards.storage import store
from shards.storage.paths import argument

SHOWN = 32


class ExportError(ToldError):
    """A generator cannot be handed on in this form."""


def tensors(sampler: Sampler) -> dict[str, Tensor]:
    """Weights, and of every batch norm its frozen mean and variance, by module name."""
    found = dict(sampler.generator.state_dict())
    for name, module in sampler.generator.named_modules():
        if isinstance(module, BatchNorm):
            assert module.running_mean is not None
            assert module.running_var is not None
            found |= {f"{name}.running_mean": module.running_mean, f"{name}.running_var": module.running_var}
    return {name: value.detach().cpu().contiguous() for name, value in found.items()}


def to_onnx(sampler: Sampler) -> bytes:
    """The frozen generator as ONNX: input `z` (n, z_size), output `picture` (n, 3, S, S) in [-1, 1].

    Raises ExportError where the packages for it are not installed.
    """
    if not all(find_spec(name) for name in ("onnx", "onnxscript")):
        raise ExportError(f"ONNX needs onnx and onnxscript: {install('onnx')}, or give --no-onnx")
    # The exporter warns of torchvision's operators, which no generator has.
    logging.getLogger("torch.onnx._internal.exporter._registration").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own deprecations
        program = torch.onnx.export(
            sampler.generator.cpu().eval().requires_grad_(False),  # its layers ask whether they learn
            (torch.zeros(2, sampler.generator.net.z_size),),
            input_names=["z"],
            output_names=["picture"],
            dynamic_shapes={"z": {0: torch.export.Dim("images")}},
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    data: bytes = program.model_proto.SerializeToString()
    return data


def settings(sampler: Sampler) -> dict[str, Any]:
    """What another program needs to draw, with nothing but the tensors beside it."""
    model, net, variant = sampler.config.model, sampler.generator.net, sampler.generator.variant
    return {
        "format": 2,
        "net": describe(net),
        "z_size": net.z_size,
        "noise": model.noise,
        "noise_rule": NOISE[model.noise],
        "kernel_size": net.kernel,
        "layers": layers(sampler.generator),
        "norm": variant.norm,
        "norm_eps": model.norm_eps,
        "norm_rule": "(x - running_mean) / sqrt(running_var + norm_eps) * weight + bias, along dimension 1",
        "batch_norm": calibrate.ON_NOISE,
        "activation": "relu",
        "output": variant.output,
        "output_rule": f"-1 is black, 1 is white; {CLIPPED[variant.output]}",
        "image_size": net.image_size,
        "image_range": [-1, 1],
        "image_order": "RGB, channels first",
        "step": sampler.step,
        "versions": versions(),
    }


CLIPPED = {"tanh": "in [-1, 1]", "linear": "to be clipped to [-1, 1]"}
NOISE = {"uniform": "independent, uniform on (-1, 1)", "normal": "independent, standard normal"}


def layers(g: Generator) -> list[dict[str, Any]]:
    """Every layer from z to the picture, in order: what it computes, and the names of its tensors."""
    first = g.net.g[0]
    told: list[dict[str, Any]] = [
        {
            "kind": "linear",
            "weight": "project.weight",
            "bias": None,
            "norm": _norm("project_norm", g.project_norm),
            "reshape": [first.channels, first.side, first.side],
            "activation": "relu",
        }
    ]
    norms = [(f"norms.{i}", norm) for i, norm in enumerate(g.norms)] + [("last_norm", g.last_norm)]
    for number, (conv, norm) in enumerate(zip(g.convs, norms, strict=True)):
        assert isinstance(conv, nn.ConvTranspose2d)
        told.append(
            {
                "kind": "conv_transpose2d",
                "weight": f"convs.{number}.weight",
                "bias": None,
                "channels": [conv.in_channels, conv.out_channels],
                "kernel_size": conv.kernel_size[0],
                "stride": conv.stride[0],
                "padding": _whole(conv.padding),
                "output_padding": conv.output_padding[0],
                "norm": _norm(*norm),
                "activation": "relu" if number < len(g.norms) else g.variant.output,
            }
        )
    return told


def _norm(name: str, norm: nn.Module) -> str | None:
    """The prefix of a batch norm's tensors: weight, bias, running_mean, running_var."""
    return name if isinstance(norm, BatchNorm) else None


def _whole(padding: str | tuple[int, ...]) -> int:
    assert isinstance(padding, tuple)
    return padding[0]


def card(sampler: Sampler, gathered: Gathered, *, known: Collection[str]) -> str:
    """The model card: what it is, how it was made, what was measured, what it is not for.

    Of how it was trained it says what rests on settings that are `known`.
    """
    config, weights = sampler.config, sum(p.numel() for p in sampler.generator.parameters())
    g, data, train, optim = sampler.generator, config.data, config.train, config.optim
    clipped = CLIPPED[g.variant.output]
    trained = {
        "Trained on": (_data(data.url), ["data.url"]),
        "Images a step": (f"{data.batch_images} images", ["data.batch_images"]),
        "Update rule": (train.update_rule, ["train.update_rule"]),
        "Optimiser": (
            f"Adam, learning rate {optim.lr:g}, beta1 {optim.beta1:g}",
            ["optim.lr", "optim.beta1"],
        ),
        "Seed": (str(train.seed), ["train.seed"]),
    }
    facts = {
        "Network": f"`{describe(g.net)}`, {weights:,} weights; every layer is in `config.json`",
        "Input": f"z, {g.net.z_size} numbers, {NOISE[config.model.noise]}",
        "Output": f"RGB pictures of {g.net.image_size} pixels, -1 is black, 1 is white, {clipped}",
        "Last activation": g.variant.output,
        "Batch norm": f"{_places(g.variant.norm)}; {calibrate.ON_NOISE}",
        "Steps": f"{sampler.step:,}",
        "Weights": "exponential mean" if sampler.averaged else "as trained",
        **{name: value for name, (value, rests_on) in trained.items() if set(rests_on) <= set(known)},
    }
    rows = "\n".join(f"| {name} | {value} |" for name, value in facts.items())
    kind = "standard_normal((" if config.model.noise == "normal" else "uniform(-1, 1, ("
    draw = f'{kind}16, {g.net.z_size})).astype("float32")'
    return CARD.format(facts=rows, measures=_measures(gathered), draw=draw, clipped=clipped)


def _places(norm: str) -> str:
    return {
        "paper": "on every layer but the last",
        "everywhere": "on every layer",
        "not_in_g": "none in the generator",
        "nowhere": "none",
    }[norm]


def _cell(text: str) -> str:
    """Foreign text inside a table of Markdown."""
    return escape(printable(redact(text))).replace("|", "\\|").replace("`", "'")


CARD = """# A DCGAN generator

![Samples](samples.png)

| | |
|---|---|
{facts}

Architecture and recipe: Radford, Metz, Chintala, "Unsupervised Representation Learning with Deep
Convolutional Generative Adversarial Networks" (2015).

## Draw

```python
import numpy, onnxruntime
session = onnxruntime.InferenceSession("generator.onnx")
z = numpy.random.default_rng(0).{draw}
picture = session.run(None, {{"z": z}})[0]  # (16, 3, S, S), {clipped}
```

## Measured

{measures}

## Limits

It draws what resembles its training pictures and inherits their gaps and biases. It was made for research on
generative models; pictures of faces that it draws are of nobody, but may resemble somebody.
"""


def _data(url: str) -> str:
    try:
        index = load_index(url)
    except ShardsError:
        return f"`{_cell(url)}`"
    source = _cell(", ".join(f"{name} {value}" for name, value in index.source.items()))
    return f"{index.kept:,} pictures of {index.image_size} pixels ({source})"


def _measures(gathered: Gathered) -> str:
    rows = [
        f"| {_cell(told['title'])} | {_cell(m['name'].strip())} | {m['value']:.3f} | {_cell(_verdict(m))} |"
        for told in gathered.findings.values()
        for m in told["measures"]
        if m["value"] is not None and m.get("rule")
    ]
    if not rows:
        return "Nothing yet: `python -m dcgan_dist.explore` and `python -m dcgan_dist.evaluate` measure."
    return "\n".join(["| exploration | measure | value | rule |", "|---|---|---|---|", *rows])


def _verdict(measure: dict[str, Any]) -> str:
    return f"{'met' if measure['passed'] else 'missed'}: {measure['rule']}"


def export(run: str, out: str, *, step: int | None = None, onnx: bool = True) -> list[str]:
    """Write everything into `out`, the card last; returns the names."""
    sampler = load(run, step=step)
    files = {
        "generator.safetensors": pack_tensors(tensors(sampler)),
        "config.json": json.dumps(settings(sampler), indent=1).encode(),
        "samples.png": pictures.grid_png(pictures.to_uint8(sampler.sample(SHOWN))),
    }
    if onnx:
        files["generator.onnx"] = to_onnx(sampler)
    _, known = received_config(run)
    files["README.md"] = card(sampler, gather(run), known=known).encode()
    store.make_folder(out)
    for name, data in files.items():
        store.write_bytes(store.join(out, name), data)
    return list(files)


def is_export(url: str) -> bool:
    """Whether a generator lies there that was handed on, and no run."""
    there = store.sizes_if_any(url)
    return "generator.safetensors" in there and "config.json" in there and "config.yaml" not in there


def load_export(url: str, *, device: str = "cpu") -> Sampler:
    """The generator of a folder that `export` wrote, which may come from anywhere. Raises ExportError."""
    where = store.join(url, "config.json")
    try:
        told = json.loads(untrusted.read(url, "config.json"))
        model = Model(net=told["net"], noise=told["noise"], norm=told["norm"], output=told["output"])
        model = replace(model, norm_eps=float(told["norm_eps"]))
        g = Generator(parse_net(model.net), norm_eps=model.norm_eps, variant=model.variant)
        found = unpack_tensors(untrusted.read(url, "generator.safetensors"))
        for name, module in g.named_modules():
            if isinstance(module, BatchNorm):
                module.running_mean = found.pop(f"{name}.running_mean").float()
                module.running_var = found.pop(f"{name}.running_var").float()
        checkpoint.load_weights(g, found | frozen(g), name="generator")
        step = int(told["step"])
    except (NetError, SafetensorError, *untrusted.WRONG) as error:
        raise ExportError(f"{where}: not a generator of ours ({printable(str(error))[:200]})") from None
    return Sampler(g.to(choose_device(device)).eval(), Config(model=model), step)


def frozen(g: Generator) -> dict[str, Tensor]:
    """The frozen statistics of every batch norm, by name."""
    return {name: buffer for name, buffer in g.state_dict().items() if ".running_" in name}


@command
def main(argv: Sequence[str]) -> int:
    """The command line. Errors of the user's making are one line."""
    parser = argparse.ArgumentParser(
        "python -m dcgan_dist.export", description="Weights, ONNX and a model card of a trained generator."
    )
    parser.add_argument("run", type=argument, help="run folder or URL")
    parser.add_argument("out", type=argument, help="folder or URL to write")
    parser.add_argument("--step", type=int, help="checkpoint to use (default: the newest)")
    parser.add_argument("--no-onnx", action="store_true", help="leave generator.onnx out")
    args = parser.parse_args(argv)
    names = export(args.run, args.out, step=args.step, onnx=not args.no_onnx)
    print(f"in {args.out}: {', '.join(names)}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
