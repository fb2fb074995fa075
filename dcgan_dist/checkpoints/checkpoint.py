"""Checkpoints, whole or absent, at any fsspec URL, without pickle.

    checkpoints/step-00001000.g.safetensors   the generator, and likewise .d, .g_optim, .d_optim, .ema
    checkpoints/step-00001000.json            the manifest, written last: bytes and sha256 of every part

A checkpoint without its manifest does not exist; one whose parts do not match it is named and passed over.
Storage that does not answer is another matter: going on from an older one, or anew, would lose work.
"""

import hashlib
import json
import logging
import re
from collections.abc import Collection
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as parse_tensors
from torch import Tensor, nn

from dcgan_dist.checkpoints.snapshot import Parts
from dcgan_dist.checkpoints.tensor_file import TYPES, pieces_of
from dcgan_dist.gan.step import Player
from shards import ShardsError
from shards.errors import DamagedError, MissingError, ToldError
from shards.printable import printable
from shards.redact import redacted
from shards.storage import store

FORMAT = 1
log = logging.getLogger("dcgan_dist")


class CheckpointError(ToldError):
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


def restore(parts: Parts, g: Player[nn.Module], d: Player[nn.Module], ema: nn.Module | None) -> None:
    """Put a snapshot back. Raises CheckpointError when it is of other networks."""
    for name, module in (("g", g.bare), ("d", d.bare), ("ema", ema)):
        if module is not None:
            load_weights(module, parts.get(name, {}), name=name)
    for name, player in (("g_optim", g), ("d_optim", d)):
        if name not in parts:
            raise CheckpointError(f"the checkpoint has no {name}; it can be sampled from, not gone on with")
        _load_optim(player.optim, parts[name], name=name)


def _load_optim(optim: torch.optim.Optimizer, tensors: dict[str, Tensor], *, name: str) -> None:
    weights = [weight for group in optim.param_groups for weight in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        number, _, field = key.partition(".")
        weight = weights[int(number)] if number in map(str, range(len(weights))) else None
        fits = (torch.float32, torch.float64) if field == "step" or weight is None else (weight.dtype,)
        if (
            weight is None
            or value.dtype not in fits
            or value.shape != (() if field == "step" else weight.shape)
        ):
            raise CheckpointError(
                f"checkpoint of another network: {name}.{printable(key)} belongs to no weight"
            )
        if field != "step":
            # In the weight's own memory format: fused Adam walks both without looking at strides.
            value = torch.empty_like(weight, dtype=value.dtype, requires_grad=False).copy_(value)
        state.setdefault(int(number), {})[field] = value
    whole = [set(entry) == {"step", "exp_avg", "exp_avg_sq"} for entry in state.values()]
    if whole and (not all(whole) or len(whole) != len(weights)):
        raise CheckpointError(f"checkpoint of another optimizer: {name} lacks a mean or a step of a weight")
    optim.load_state_dict({"state": state, "param_groups": optim.state_dict()["param_groups"]})


def load_weights(module: nn.Module, tensors: dict[str, Tensor], *, name: str) -> None:
    """Fill `module`, which gets its memory now if it is on the meta device.

    Raises CheckpointError that names the first tensor that does not fit.
    """
    wanted = module.state_dict()
    for key in sorted(wanted.keys() | tensors.keys()):
        here = tuple(wanted[key].shape) if key in wanted else "absent"
        there = tuple(tensors[key].shape) if key in tensors else "absent"
        if here != there:
            raise CheckpointError(
                f"checkpoint of another network: {name}.{printable(key)} is {there}, model.net wants {here}; "
                "use the model.net of the run's config.yaml"
            )
    if any(tensor.is_meta for tensor in wanted.values()):
        module.to_empty(device="cpu")
    module.load_state_dict(tensors)


def write(folder: str, step: int, parts: Parts, facts: dict[str, Any]) -> None:
    """Parts first, manifest last. Raises StoreError; the checkpoint is then absent, others are untouched."""
    manifest = store.join(folder, f"{stem(step)}.json")
    store.remove(manifest)  # of a damaged one: its parts change under it
    files = {}
    for part, tensors in parts.items():
        pieces, found = pieces_of(tensors), hashlib.sha256()
        name = f"{stem(step)}.{part}.safetensors"
        store.write_pieces(store.join(folder, name), pieces)
        for piece in pieces:
            found.update(piece)
        files[name] = {"bytes": sum(map(len, pieces)), "sha256": found.hexdigest()}
    fields = {"format": FORMAT, "step": step, "files": files, **facts}
    store.write_bytes(manifest, json.dumps(redacted(fields), indent=1, sort_keys=True).encode())


def steps(folder: str) -> list[int]:
    """Steps that have a manifest, oldest first. Raises StoreError when the folder cannot be listed."""
    found = (re.fullmatch(r"step-(\d{8,18})\.json", name) for name in store.sizes_if_any(folder))
    return sorted(int(match[1]) for match in found if match)


def newest_name(run: str) -> str:
    """The newest checkpoint of a run, in words for people."""
    try:
        there = steps(store.join(run, "checkpoints"))
    except ShardsError:
        return "unknown, as storage fails too"
    return f"{stem(there[-1])} in {run}" if there else "none"


def foreign(folder: str) -> list[str]:
    """Names of files that no run of ours wrote there."""
    own = r"\.?step-\d{8,18}\.(\w+\.safetensors|json)(\.\w+\.\w+\.tmp)?"
    return [name for name in store.sizes_if_any(folder) if not re.fullmatch(own, name)]


def read_manifest(folder: str, step: int) -> Manifest:
    """Raises CheckpointError when it is not one of ours, StoreError when storage fails."""
    url = store.join(folder, f"{stem(step)}.json")
    try:
        return parse_manifest(store.read_bytes(url, limit_bytes=store.SMALL_BYTES), step, where=url)
    except MissingError as error:
        raise CheckpointError(str(error)) from None


def parse_manifest(data: bytes, step: int, *, where: str) -> Manifest:
    """The manifest of `step` that was read from `where`. Raises CheckpointError."""
    try:
        fields = json.loads(data)
        version, files = fields.pop("format"), fields.pop("files")
        if type(version) is not int or version != FORMAT:
            raise CheckpointError(
                f"{where}: format {json.dumps(version)[:20]}, but this version reads format {FORMAT}; "
                "use the version of dcgan_dist that wrote it"
            )
        for name, facts in files.items():
            if not re.fullmatch(rf"{stem(step)}\.\w+\.safetensors", name):
                raise CheckpointError(f"{where}: names a foreign file {name!r}")
            if type(facts["bytes"]) is not int or type(facts["sha256"]) is not str:
                raise TypeError("bytes and sha256 are wanted for every file")
        if fields.pop("step") != step:
            raise ValueError("it is of another step")
        return Manifest(step, files, fields)
    except CheckpointError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        told = str(error).replace("\n", " ")[:100]
        raise CheckpointError(f"{where}: not a checkpoint's manifest ({told})") from None


def read(folder: str, step: int, *, only: tuple[str, ...] = ()) -> tuple[Manifest, Parts]:
    """A checkpoint, every byte checked; `only` names the parts wanted.

    Raises CheckpointError when it is damaged, StoreError when storage fails.
    """
    manifest = read_manifest(folder, step)
    parts = {}
    for name, facts in manifest.files.items():
        part = name.split(".")[-2]
        if only and part not in only:
            continue
        url = store.join(folder, name)
        try:
            data = store.read_bytes(url, check=partial(_matches, facts))
        except DamagedError:
            raise CheckpointError(f"{url}: damaged, it does not match its manifest") from None
        except MissingError as error:
            raise CheckpointError(f"{url}: damaged ({error})") from None
        parts[part] = _parsed(data, url)
    return manifest, parts


def _parsed(data: bytes, url: str) -> dict[str, Tensor]:
    """The tensors of a file, all of them real numbers. Raises CheckpointError."""
    try:
        found = parse_tensors(data)
    # torch knows not every type that the format has: KeyError, and what it makes of them otherwise.
    except (SafetensorError, KeyError, ValueError, TypeError, AttributeError, RuntimeError) as error:
        told = printable(str(error))[:200]
        raise CheckpointError(f"{url}: damaged, or with numbers of an unknown type ({told})") from None
    for key, tensor in found.items():
        if tensor.dtype not in TYPES:
            raise CheckpointError(f"{url}: {printable(key)} holds {tensor.dtype}, which no checkpoint has")
    return found


def _matches(facts: dict[str, Any], data: bytes) -> bool:
    return bool(len(data) == facts["bytes"] and hashlib.sha256(data).hexdigest() == facts["sha256"])


def read_newest(folder: str, *, only: tuple[str, ...] = ()) -> tuple[Manifest, Parts] | None:
    """The newest checkpoint that is whole; damaged ones are named in the log. None when there is none at all.

    Raises CheckpointError when there are some but none is whole, StoreError when storage fails.
    """
    there = steps(folder)
    for step in reversed(there):
        try:
            return read(folder, step, only=only)
        except CheckpointError as error:
            log.warning("skipping a checkpoint: %s", error)
    if there:
        raise CheckpointError(
            f"none of the {len(there)} checkpoints in {folder} is whole; move them away to start anew"
        )
    return None


def prune(
    folder: str,
    *,
    keep: int,
    keep_steps: int | None = None,
    pinned: Collection[int] = (),
    damaged: Collection[int] = (),
) -> None:
    """Remove all but the newest `keep`, those at multiples of `keep_steps` and `pinned` ones, manifest first.

    `damaged` ones do not count as newest. Parts that an interrupted write left behind go too.
    """
    whole = [step for step in steps(folder) if step not in damaged]
    newest = whole[-keep:]
    also = {step for step in whole if step in pinned or (keep_steps and step % keep_steps == 0)}
    kept = {stem(step) for step in also.union(newest)}
    oldest = min(newest, default=0)
    names = sorted(store.sizes_if_any(folder), key=lambda name: not name.endswith(".json"))
    for name in names:
        own = re.match(r"\.?(step-\d{8,18})\.", name)
        if own and own[1] not in kept and int(own[1].removeprefix("step-")) < oldest:
            store.remove(store.join(folder, name))
