"""The newest checkpoint, on all ranks: rank 0 reads and checks it, the others hear it from rank 0.

So a checkpoint is read once, however many ranks there are, and only rank 0 needs the run folder.
"""

import json
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from dcgan_dist.checkpoints import checkpoint
from dcgan_dist.checkpoints.checkpoint import CheckpointError, Manifest
from dcgan_dist.checkpoints.snapshot import Parts
from dcgan_dist.checkpoints.tensor_file import TYPES
from dcgan_dist.config.settings import Config
from dcgan_dist.gan.step import Player
from dcgan_dist.ranks.world import World
from dcgan_dist.run_folder.same_run import differences
from shards import ShardsError
from shards.storage import store

NONE, FAILED = 0, -1


def newest_on_all(run_dir: str, here: World, saved: int) -> tuple[Manifest, Parts] | None:
    """The newest whole checkpoint of a run, on the CPU of every rank; None where there is none at all.

    `saved` is a step that was saved there once. Raises CheckpointError, on all ranks, or StoreError.
    """
    found = None
    try:
        found = _newest(run_dir, saved) if here.rank == 0 else None
    except (CheckpointError, ShardsError):
        here.agree(FAILED)
        raise
    text = _contents(*found) if found else b""
    size = here.agree(len(text))
    if size == FAILED:
        raise CheckpointError("rank 0 cannot go on")
    if size == NONE or here.group is None:
        return found
    letters = torch.frombuffer(bytearray(text or bytes(size)), dtype=torch.uint8)
    contents = json.loads(bytes(_spread(letters, here).numpy()))
    parts: Parts = found[1] if found else {}
    for part, name, kind, shape in contents["tensors"]:
        own = parts[part][name] if found else torch.empty(shape, dtype=KINDS[kind])
        parts.setdefault(part, {})[name] = _spread(own, here)
    return found or (Manifest(contents["step"], {}, contents["facts"]), parts)


KINDS = {name: kind for kind, name in TYPES.items()}


def _newest(run_dir: str, saved: int) -> tuple[Manifest, Parts] | None:
    found = checkpoint.read_newest(store.join(run_dir, "checkpoints"))
    if found is None and saved:
        raise CheckpointError(
            f"run.dir={run_dir} holds no checkpoint, but a run that came to step {saved}; "
            "put its checkpoints back, or delete that folder to start anew, or choose another run.dir"
        )
    return found


def _contents(manifest: Manifest, parts: Parts) -> bytes:
    """What the other ranks need to know before the numbers come."""
    tensors: list[tuple[Any, ...]] = [
        (part, name, TYPES[tensor.dtype], list(tensor.shape))
        for part, tensors in parts.items()
        for name, tensor in tensors.items()
    ]
    return json.dumps({"step": manifest.step, "facts": manifest.facts, "tensors": tensors}).encode()


def _spread(own: Tensor, here: World) -> Tensor:
    """Rank 0's tensor on every rank; `own` has its shape and type everywhere."""
    sent = own.to(here.device)
    dist.broadcast(sent, src=0, group=here.group)
    return sent.cpu()


def put_back(
    manifest: Manifest,
    parts: Parts,
    config: Config,
    g: Player[Any],
    d: Player[Any],
    ema: nn.Module | None,
    *,
    dataset: str,
) -> dict[str, Any]:
    """Go on from a checkpoint of this very run; what it says of the best one.

    Raises CheckpointError where it is of other pictures than the `dataset`, or of other settings.
    """
    if manifest.facts.get("dataset", dataset) != dataset:
        raise CheckpointError(
            f"run.dir={config.run.dir} was trained on other pictures than {config.data.url} "
            "now holds, or other ones were removed; put those back, or choose another run.dir"
        )
    checkpoint.restore(parts, g, d, ema)
    before = manifest.facts.get("config")
    changed = differences(before, config) if isinstance(before, dict) else ["configuration"]
    if changed:
        raise CheckpointError(
            f"run.dir={config.run.dir}: {checkpoint.stem(manifest.step)} is of a run with another "
            f"{', '.join(changed)}; go on with the settings in its manifest, or choose another run.dir"
        )
    for name, player in (("g", g), ("d", d)):
        try:
            player.scaler.load_state_dict(manifest.facts["scalers"][name])
        except (KeyError, TypeError, RuntimeError) as error:
            raise CheckpointError(
                f"{checkpoint.stem(manifest.step)}: no scaler of {name} ({error})"
            ) from None
    best = manifest.facts.get("best")
    return best if isinstance(best, dict) else {}
