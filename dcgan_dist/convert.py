"""Other people's weights as a run folder: `python -m dcgan_dist.convert dcgan-code DIR OUT`.

`dcgan-code` reads the arrays of the authors' Theano models (`*gen_params*_NN.npy` and
`*discrim_params*_NN.npy`). Theano convolves where PyTorch correlates, so every kernel is flipped in both
axes; layouts agree otherwise.
"""

import argparse
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from dcgan_dist.checkpoints import checkpoint
from dcgan_dist.checkpoints.checkpoint import CheckpointError
from dcgan_dist.config.settings import Config, Data, Model, Optim, Run, dump
from dcgan_dist.gan.description import PRESETS, parse_net
from dcgan_dist.gan.model import Discriminator, Generator
from dcgan_dist.run_folder.versions import versions
from shards.command import command
from shards.errors import NPY_ERRORS
from shards.storage import store
from shards.storage.paths import argument


def read_arrays(folder: Path, part: str) -> list[Tensor]:
    """The numbered float arrays of `gen` or `discrim`, in order. Raises CheckpointError."""
    found = sorted(
        (int(match[1]), path)
        for path in folder.glob(f"*{part}_params*.npy")
        if (match := re.search(r"_(\d+)\.npy$", path.name))
    )
    if not found:
        raise CheckpointError(f"{folder}: no files like *{part}_params*_01.npy")
    if [number for number, _ in found] != list(range(1, len(found) + 1)):
        numbers = ", ".join(str(number) for number, _ in found)
        raise CheckpointError(f"{folder}: the {part} arrays are numbered {numbers}; some are missing")
    try:
        # Mapped, so that a header that promises more than the file holds is refused and costs nothing.
        arrays = [np.load(path, mmap_mode="r", allow_pickle=False) for _, path in found]
        return [torch.from_numpy(np.array(array)).float() for array in arrays]
    except (OSError, *NPY_ERRORS) as error:
        raise CheckpointError(f"{folder}: a {part} array cannot be read: {error}") from None


def fill_generator(g: Generator, arrays: Sequence[Tensor]) -> None:
    """Order of the authors' lists: projection, its gain and bias, then each deconvolution with its own."""
    norm = g.project_norm
    targets = [
        (g.project.weight, "transposed"),
        *((norm.get_parameter(part), "") for part in ("weight", "bias")),
    ]
    for conv, norm in zip(g.convs, [*g.norms, None], strict=True):
        targets += _layer(conv, norm)
    _fill(targets, arrays, "generator")


def fill_discriminator(d: Discriminator, arrays: Sequence[Tensor]) -> None:
    """Order of the authors' lists: each convolution with its gain and bias (the first has none), then the
    logit."""
    targets = [t for conv, norm in zip(d.convs, [None, *d.norms], strict=True) for t in _layer(conv, norm)]
    _fill([*targets, (d.logit.weight, "transposed")], arrays, "discriminator")


def _layer(conv: nn.Module, norm: nn.Module | None) -> Iterator[tuple[Tensor, str]]:
    yield conv.get_parameter("weight"), "flipped"
    if norm is not None:
        yield norm.get_parameter("weight"), ""
        yield norm.get_parameter("bias"), ""


@torch.no_grad()
def _fill(targets: Sequence[tuple[Tensor, str]], arrays: Sequence[Tensor], what: str) -> None:
    if len(targets) != len(arrays):
        raise CheckpointError(
            f"{what}: {len(arrays)} arrays, but the network has {len(targets)}; check --net"
        )
    for number, ((target, how), array) in enumerate(zip(targets, arrays, strict=True), start=1):
        value = {"flipped": lambda a: a.flip(2, 3), "transposed": lambda a: a.T}.get(how, lambda a: a)(array)
        if value.shape != target.shape:
            raise CheckpointError(
                f"{what}: array {number} is {tuple(array.shape)} but the network needs "
                f"{tuple(target.shape)}; check --net"
            )
        target.copy_(value)


def convert_dcgan_code(folder: Path, out: str, config: Config) -> None:
    """Write a run folder with the authors' weights at step 0."""
    net = parse_net(config.model.net)
    g = Generator(net, norm_eps=config.model.norm_eps)
    d = Discriminator(net, norm_eps=config.model.norm_eps)
    fill_generator(g, read_arrays(folder, "gen"))
    fill_discriminator(d, read_arrays(folder, "discrim"))
    store.make_folder(store.join(out, "checkpoints"))
    store.write_bytes(store.join(out, "config.yaml"), dump(config).encode())
    facts = {"imported": "dcgan-code", "images_seen": 0, "ranks": 1, "versions": versions()}
    parts = {"g": dict(g.state_dict()), "d": dict(d.state_dict())}
    checkpoint.write(store.join(out, "checkpoints"), 0, parts, facts)


@command
def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        "python -m dcgan_dist.convert", description="Import weights of another code base as a run folder."
    )
    parser.add_argument("format", choices=["dcgan-code"], help="where the weights come from")
    parser.add_argument("folder", type=argument, help="folder with the arrays")
    parser.add_argument("out", type=argument, help="run folder or URL to write")
    parser.add_argument("--net", default="svhn32", help=f"one of {', '.join(PRESETS)}, or a description")
    parser.add_argument("--noise", default="normal", choices=["uniform", "normal"], help="(default: normal)")
    args = parser.parse_args(argv)
    config = Config(
        data=Data(url="unknown", batch_images=64),
        model=Model(net=args.net, noise=args.noise),
        optim=Optim(lr=5e-4),
        run=Run(dir=args.out),
    )
    convert_dcgan_code(Path(args.folder), args.out, config)
    print(f"imported; draw from it: python -m dcgan_dist.sample {args.out}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
