"""From two plain networks to two players on this rank's device: precision, memory format, synchronised
batch norm, gradient all-reduce, compilation. Networks and step know nothing of it.
"""

import ctypes
import sys
from datetime import timedelta
from functools import lru_cache, partial
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from dcgan_dist.config.reading import ConfigError
from dcgan_dist.config.settings import Config
from dcgan_dist.gan.batchnorm import synchronise
from dcgan_dist.gan.description import parse_net
from dcgan_dist.gan.model import Discriminator, Generator, build
from dcgan_dist.gan.step import Cast, Player
from dcgan_dist.ranks.world import World
from dcgan_dist.seeds import seed_for
from dcgan_dist.training.ordered_sum import Ordered, mean_of_bucket, mean_of_gradients, needed
from dcgan_dist.training.precision import AUTOCAST

Network = TypeVar("Network", bound=nn.Module)
BUCKET_MB = 25
"""Gradients go in pieces of this size, so that those of a large network overlap with its backward pass, and a
small network's in one. (Left to its default, DDP cuts a first piece of 1 MB.)"""


def make_players(config: Config, world: World) -> tuple[Player[Generator], Player[Discriminator]]:
    """G and D with fresh weights, the same on every rank, ready to be updated together."""
    if world.device.type == "cpu":
        keep_freed_memory()
    seeds = seed_for(config.train.seed, "g"), seed_for(config.train.seed, "d")
    net, model = parse_net(config.model.net), config.model
    g, d = build(net, norm_eps=model.norm_eps, seeds=seeds, variant=model.variant)
    z, images = torch.zeros(2, net.z_size), torch.zeros(2, 3, net.image_size, net.image_size)
    return player(g, config, world, z), player(d, config, world, images)


def make_cast(config: Config, world: World) -> Cast:
    """The context in which convolutions run in `train.precision`, which is settled (see `precision`)."""
    assert config.train.precision != "auto", "settle it first"
    dtype = AUTOCAST.get(config.train.precision)
    return partial(torch.autocast, world.device.type, dtype=dtype, enabled=dtype is not None)


def player(net: Network, config: Config, world: World, example: Tensor) -> Player[Network]:
    """`net` on this rank's device with its optimiser, as `config.optim` and `config.train` say.

    `example` is an input of it, at least two rows.
    """
    dtype = torch.float64 if config.train.precision == "float64" else torch.float32
    net.to(world.device, dtype)
    net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optim = torch.optim.Adam(
        net.parameters(),
        lr=config.optim.lr,
        betas=(config.optim.beta1, config.optim.beta2),
        eps=config.optim.eps,
        weight_decay=config.optim.weight_decay,  # coupled: added to the gradient, as the authors do
        fused=True,
    )
    scaler = torch.amp.GradScaler(world.device.type, enabled=config.train.precision == "float16")
    parallel: nn.Module = net
    if config.train.graphs:
        return graphed(net, optim, scaler, world)
    if world.group is not None and world.ranks > 1:
        synchronise(net, statistics_group(world.group, config.train.timeout_seconds))
        parallel = DistributedDataParallel(net, gradient_as_bucket_view=True, bucket_cap_mb=BUCKET_MB)
        if config.train.deterministic and needed(world.group):
            parallel.register_comm_hook(Ordered(world.group), mean_of_bucket)
        _settle(parallel, example.to(world.device, dtype))
    helping: nn.Module = net
    if config.train.compile:
        parallel, helping = torch.compile(parallel), torch.compile(net)  # type: ignore[assignment]
    return Player(bare=net, parallel=parallel, helping=helping, optim=optim, scaler=scaler)


@lru_cache(maxsize=1)
def statistics_group(group: dist.ProcessGroup, timeout_seconds: float) -> dist.ProcessGroup:
    """The group for batch norm's sums: the same ranks, on GPUs by a communicator of their own.

    Sums of gradients take long and the next layer does not wait for them; on one communicator, batch norm's,
    which it waits for, would stand behind them. NCCL keeps the order in which the host asks, see
    `determinism.prepare`.
    """
    if dist.get_backend(group) != "nccl":
        return group
    made = dist.new_group(timeout=timedelta(seconds=timeout_seconds))
    assert isinstance(made, dist.ProcessGroup)
    return made


def graphed(
    net: Network, optim: torch.optim.Optimizer, scaler: torch.amp.GradScaler, world: World
) -> Player[Network]:
    """For updates that are recorded and replayed: no DDP, which wants eleven updates first, and no wish of
    Adam's to know its step on the host. Raises ConfigError where nothing can be recorded."""
    if world.device.type != "cuda":
        raise ConfigError("train.graphs=true needs a CUDA GPU, and this run is on a CPU; set it to false")
    if scaler.is_enabled():
        raise ConfigError("train.graphs=true cannot scale losses; choose train.precision bfloat16 or float32")
    for group in optim.param_groups:
        group["capturable"] = True
    if world.group is None or world.ranks == 1:
        return Player(bare=net, parallel=net, helping=net, optim=optim, scaler=scaler)
    if dist.get_backend(world.group) != "nccl":
        raise ConfigError(
            "train.graphs=true needs a GPU for each rank (NCCL); use fewer ranks, or set it to false"
        )
    synchronise(net, world.group)
    exchange = partial(mean_of_gradients, net, world.group)
    return Player(bare=net, parallel=net, helping=net, optim=optim, scaler=scaler, exchange=exchange)


def _settle(parallel: DistributedDataParallel, example: Tensor) -> None:
    """One backward pass, thrown away, behind which DDP groups the gradients anew, for good.

    The groups decide the order in which more than two ranks are summed: without this, the first step of a
    resumed run would be rounded otherwise than that step of the unbroken run.
    """
    parallel(example).sum().backward()
    parallel.zero_grad(set_to_none=True)


def keep_freed_memory() -> bool:
    """Let the C library keep large freed blocks instead of returning them to the kernel; whether it does.

    Activations are freed and asked for again at every layer; fetching their pages anew each time makes
    elementwise layers in float32 several times slower (glibc, tensors of tens of megabytes).
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is None:
        return False
    m_trim_threshold, m_mmap_threshold = -1, -3  # malloc.h
    # Older C libraries refuse more than 32 MiB, others know no threshold at all. To set the second without
    # the first would only switch off what the library adapts by itself.
    if not (mallopt(m_mmap_threshold, 1 << 30) or mallopt(m_mmap_threshold, 1 << 25)):
        return False
    return bool(mallopt(m_trim_threshold, (1 << 31) - 1))
