"""The number type of the convolutions: `train.precision: auto` becomes a name before the first step.

Rank 0 decides for all ranks, once for a run: what it decided stands in the run's config.yaml and is kept when
the run goes on, on whatever machine. bfloat16 pays only where the device has units for it, and on some CPUs
that have them float32 is faster still; so on a CPU the two are timed.
"""

import logging
import time
from dataclasses import replace
from typing import get_args

import torch
from torch.nn import functional

from dcgan_dist.config.settings import Config, Precision, config_of
from dcgan_dist.ranks.world import World
from shards.storage import store

AUTOCAST = {"bfloat16": torch.bfloat16, "float16": torch.float16}
"""The types that convolutions are cast to; in the others everything has one type."""
GAIN = 1.2
"""bfloat16 is chosen where its convolutions are at least so many times as fast as those of float32."""
LOSS = 0.8
"""Half precision that is asked for by name and is slower than this is worth a warning."""
log = logging.getLogger(__name__)


def settle(config: Config, here: World) -> Config:
    """`config` with `train.precision` as rank 0 decides it; all ranks must call it.

    Says on rank 0 which precision `auto` became and why, and warns where one that was asked for by name is
    emulated. Raises ConfigError or ShardsError where the run's own config.yaml cannot be read.
    """
    wanted, names = config.train.precision, get_args(Precision)
    if wanted == "auto":
        chosen, why = _decide(config, here) if here.rank == 0 else ("float32", "")
        chosen = names[here.agree(names.index(chosen))]
        if here.rank == 0:
            print(f"train.precision=auto is {chosen}: {why}", flush=True)
        config = replace(config, train=replace(config.train, precision=chosen))
    _warn_of_slowness(config, here, auto=wanted == "auto")
    return config


def _decide(config: Config, here: World) -> tuple[Precision, str]:
    if store.exists(store.join(config.run.dir, "config.yaml")):
        before = config_of(config.run.dir).train.precision
        if before != "auto":
            return before, "as this run began"
    return choose(here.device)


def choose(device: torch.device) -> tuple[Precision, str]:
    """The precision that suits `device`, and the reason in a few words."""
    if device.type == "cuda":
        major, minor = torch.cuda.get_device_capability(device)
        if major >= 8:
            return "bfloat16", f"this GPU has units for it (compute capability {major}.{minor})"
        return "float16", f"this GPU has no bfloat16 units (compute capability {major}.{minor})"
    if device.type != "cpu":
        return "float32", f"nothing faster has been tried on {device.type}"
    capability = torch.backends.cpu.get_cpu_capability()
    if not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return "float32", f"this CPU has no bfloat16 units ({capability})"
    gain = speed(device, torch.bfloat16)
    told = f"bfloat16 convolutions are {gain:.2g} times as fast as float32 here ({capability})"
    return ("bfloat16" if gain >= GAIN else "float32"), told


def speed(device: torch.device, dtype: torch.dtype) -> float:
    """How many times as fast as in float32 a convolution is in `dtype`, on one thread of this CPU.

    In seconds of the thread's own CPU time, and of turns by both the quickest of each: what else the machine
    does must not decide.
    """
    x = torch.ones(8, 64, 16, 16, device=device).to(memory_format=torch.channels_last)
    weight = torch.ones(64, 64, 4, 4, device=device).to(memory_format=torch.channels_last)
    seconds: dict[torch.dtype, list[float]] = {torch.float32: [], dtype: []}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.no_grad():
            for _ in range(16):  # the first turn of each makes ready and is never the quickest
                for kind, taken in seconds.items():
                    given = x.to(kind), weight.to(kind)
                    began = time.thread_time()
                    functional.conv2d(*given, stride=2, padding=1)
                    taken.append(time.thread_time() - began)
    finally:
        torch.set_num_threads(threads)
    return min(seconds[torch.float32]) / min(seconds[dtype])


def _warn_of_slowness(config: Config, here: World, *, auto: bool) -> None:
    dtype = AUTOCAST.get(config.train.precision)
    if here.device.type != "cpu" or dtype is None:
        return
    told = here.gather(torch.tensor(speed(here.device, dtype), dtype=torch.float64))
    slowest = float(told.min())
    if here.rank == 0 and slowest < LOSS:
        where = "" if here.ranks == 1 else f" on rank {int(told.argmin())}"
        cure = "the run began with it" if auto else "train.precision=auto would choose float32 for a new run"
        log.warning(
            "train.precision=%s: convolutions take %.3g times as long as in float32%s, %s",
            *(config.train.precision, 1 / slowest, where, cure),
        )
