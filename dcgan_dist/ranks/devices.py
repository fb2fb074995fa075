"""Which device a rank computes on.

NVIDIA's and AMD's GPUs are `cuda` to torch. Other accelerators, as Apple's (`mps`) and Intel's (`xpu`), are
taken only where one small update with all its sums works on them, and only by a process that is alone.
"""

import sys
from contextlib import nullcontext

import torch

from dcgan_dist.config.reading import ConfigError
from dcgan_dist.gan.description import parse_net
from dcgan_dist.gan.fingerprint import fingerprint
from dcgan_dist.gan.model import Discriminator, Generator, build
from dcgan_dist.gan.step import Player, update_both
from dcgan_dist.ranks.lost import first_line


def choose_device(wanted: str, *, local_rank: int = 0, ranks: int = 1) -> torch.device:
    """`auto`, `cpu` or an accelerator's name -> the device of this rank. Raises ConfigError.

    Says in a line why `auto` passes an accelerator by.
    """
    there = torch.accelerator.current_accelerator(check_available=True)
    if wanted == "cpu" or (wanted == "auto" and there is None):
        return torch.device("cpu")
    if there is None or wanted not in ("auto", there.type):
        found = f"the accelerator {there.type}" if there else "no accelerator"
        raise ConfigError(
            f"device={wanted}, but torch sees {found}; choose auto, or install a torch built for {wanted}"
        )
    if there.type == "cuda":
        # Several ranks may share one card: then gloo carries their sums, see `world.join`.
        return torch.device("cuda", local_rank % torch.accelerator.device_count())
    missing = "several ranks train on CPUs or CUDA GPUs only" if ranks > 1 else lacks(there)
    if missing is None:
        return there
    if wanted == "auto":
        print(f"device=auto is cpu: {there.type} is passed by, {missing}", file=sys.stderr, flush=True)
        return torch.device("cpu")
    raise ConfigError(f"device={wanted}: {missing}; choose cpu")


def lacks(device: torch.device) -> str | None:
    """What fails of one update of a small network on `device`, in its own words; None where all is there."""
    try:
        torch.ones(2, dtype=torch.float64, device=device).sum().item()
        g, d = build(parse_net("tiny16"), norm_eps=1e-8, seeds=(0, 1))
        real, z = torch.zeros(2, 3, 16, 16, device=device), torch.zeros(2, g.net.z_size, device=device)
        update_both(_player(g, device), _player(d, device), real=real, z=z, cast=nullcontext)
        fingerprint(g).item()
    except (RuntimeError, TypeError, AssertionError) as error:  # NotImplementedError is a RuntimeError
        return first_line(error)
    return None


def _player(net: Generator | Discriminator, device: torch.device) -> Player[Generator | Discriminator]:
    net.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    optim = torch.optim.Adam(net.parameters(), fused=True)
    scaler = torch.amp.GradScaler(device.type, enabled=False)
    return Player(bare=net, parallel=net, helping=net, optim=optim, scaler=scaler)
