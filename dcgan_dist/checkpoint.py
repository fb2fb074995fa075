"""Checkpoints, whole or absent, at any fsspec URL, without pickle.

    checkpoints/step-00001000.g.safetensors   the generator, and likewise .d, .g_optim, .d_optim, .ema
    checkpoints/step-00001000.json            the manifest, written last: bytes and sha256 of every part

A checkpoint without its manifest does not exist; one whose parts do not match it is named and passed over.
"""

import hashlib
import json
import logging
import re
from dataclasses import dataclass
from typing import Any

import torch
from safetensors.torch import load as parse_tensors
from safetensors.torch import save as pack_tensors
from torch import Tensor, nn

from dcgan_dist.step import Player
from shards import ShardsError, store

FORMAT = 1
Parts = dict[str, dict[str, Tensor]]
log = logging.getLogger("dcgan_dist")


class CheckpointError(ValueError):
    """A checkpoint is damaged, of another format, or of another network."""


@dataclass(frozen=True)
class Manifest:
    """What a checkpoint holds; `facts` is everything else that was written down (config, versions,
    scalers)."""

    step: int
    files: dict[str, dict[str, Any]]
    facts: dict[str, Any]


def stem(step: int) -> str:
    return f"step-{step:08d}"


def snapshot(g: Player[nn.Module], d: Player[nn.Module], ema: nn.Module | None) -> Parts:
    """A copy of all state on the CPU, safe to write while training goes on."""
    parts = {"g": g.bare.state_dict(), "d": d.bare.state_dict()}
    parts |= {"g_optim": _optim_tensors(g.optim), "d_optim": _optim_tensors(d.optim)}
    if ema is not None:
        parts["ema"] = ema.state_dict()
    return {part: {k: _copy(v) for k, v in tensors.items()} for part, tensors in parts.items()}


def _copy(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu", copy=True).contiguous()


def _optim_tensors(optim: torch.optim.Optimizer) -> dict[str, Tensor]:
    state = optim.state_dict()["state"]
    return {f"{i}.{key}": value for i, entry in state.items() for key, value in entry.items()}


def restore(parts: Parts, g: Player[nn.Module], d: Player[nn.Module], ema: nn.Module | None) -> None:
    """Put a snapshot back. Raises CheckpointError when it is of other networks."""
    for name, module in (("g", g.bare), ("d", d.bare), ("ema", ema)):
        if module is not None:
            load_weights(module, parts.get(name, {}), name=name)
    for name, player in (("g_optim", g), ("d_optim", d)):
        _load_optim(player.optim, parts.get(name, {}), name=name)


def _load_optim(optim: torch.optim.Optimizer, tensors: dict[str, Tensor], *, name: str) -> None:
    weights = [weight for group in optim.param_groups for weight in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        number, _, field = key.partition(".")
        if not number.isdigit() or int(number) >= len(weights):
            raise CheckpointError(f"checkpoint of another network: {name}.{key} belongs to no weight")
        weight = weights[int(number)]
        if value.shape == weight.shape:
            # In the weight's own memory format: fused Adam walks both without looking at strides.
            value = torch.empty_like(weight, dtype=value.dtype, requires_grad=False).copy_(value)
        state.setdefault(int(number), {})[field] = value
    optim.load_state_dict({"state": state, "param_groups": optim.state_dict()["param_groups"]})


def load_weights(module: nn.Module, tensors: dict[str, Tensor], *, name: str) -> None:
    """Fill `module`. Raises CheckpointError that names the first tensor that does not fit."""
    wanted = module.state_dict()
    for key in sorted(wanted.keys() | tensors.keys()):
        here = tuple(wanted[key].shape) if key in wanted else "absent"
        there = tuple(tensors[key].shape) if key in tensors else "absent"
        if here != there:
            raise CheckpointError(
                f"checkpoint of another network: {name}.{key} is {there}, model.net wants {here}; "
                "use the model.net of the run's config.yaml"
            )
    module.load_state_dict(tensors)


def write(folder: str, step: int, parts: Parts, facts: dict[str, Any]) -> None:
    """Parts first, manifest last."""
    files = {}
    for part, tensors in parts.items():
        data = pack_tensors(tensors)
        name = f"{stem(step)}.{part}.safetensors"
        store.write_bytes(store.join(folder, name), data)
        files[name] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    manifest = {"format": FORMAT, "step": step, "files": files, **facts}
    data = json.dumps(manifest, indent=1, sort_keys=True).encode()
    store.write_bytes(store.join(folder, f"{stem(step)}.json"), data)


def steps(folder: str) -> list[int]:
    """Steps that have a manifest, oldest first."""
    try:
        names = store.sizes(folder)
    except ShardsError:
        return []
    found = (re.fullmatch(r"step-(\d{8,})\.json", name) for name in names)
    return sorted(int(match[1]) for match in found if match)


def read_manifest(folder: str, step: int) -> Manifest:
    """Raises CheckpointError when it is not one of ours."""
    url = store.join(folder, f"{stem(step)}.json")
    try:
        fields = json.loads(store.read_bytes(url))
        version, files = fields.pop("format"), fields.pop("files")
        if version != FORMAT:
            raise CheckpointError(f"{url}: format {version}, but this version reads format {FORMAT}")
        for name, facts in files.items():
            if not re.fullmatch(rf"{stem(step)}\.\w+\.safetensors", name):
                raise CheckpointError(f"{url}: names a foreign file {name!r}")
            facts["bytes"], facts["sha256"]
        return Manifest(fields.pop("step"), files, fields)
    except CheckpointError:
        raise
    except (ShardsError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{url}: not a checkpoint's manifest ({error})") from None


def read(folder: str, step: int, *, only: tuple[str, ...] = ()) -> tuple[Manifest, Parts]:
    """A checkpoint, every byte checked; `only` names the parts wanted. Raises CheckpointError."""
    manifest = read_manifest(folder, step)
    parts = {}
    for name, facts in manifest.files.items():
        part = name.split(".")[-2]
        if only and part not in only:
            continue
        try:
            data = store.read_bytes(store.join(folder, name))
        except ShardsError as error:
            raise CheckpointError(f"{stem(step)}: {error}") from None
        if len(data) != facts["bytes"] or hashlib.sha256(data).hexdigest() != facts["sha256"]:
            raise CheckpointError(f"{store.join(folder, name)}: damaged, it does not match its manifest")
        parts[part] = parse_tensors(data)
    return manifest, parts


def read_newest(folder: str, *, only: tuple[str, ...] = ()) -> tuple[Manifest, Parts] | None:
    """The newest checkpoint that is whole; damaged ones are named in the log. None when there is none."""
    for step in reversed(steps(folder)):
        try:
            return read(folder, step, only=only)
        except CheckpointError as error:
            log.warning("skipping a checkpoint: %s", error)
    return None


def prune(folder: str, *, keep: int) -> None:
    """Remove all but the newest `keep`, manifest first, and parts that an interrupted write left behind."""
    kept = {stem(step) for step in steps(folder)[-keep:]}
    oldest = min(kept, default="")
    names = sorted(store.sizes(folder), key=lambda name: not name.endswith(".json"))
    for name in names:
        own = re.match(r"step-\d{8,}", name)
        if own and own[0] not in kept and own[0] < oldest:
            store.remove(store.join(folder, name))
