"""The networks of a run folder or URL: the generator as a `Sampler` to draw with, and the discriminator."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from dcgan_dist.checkpoints import checkpoint
from dcgan_dist.checkpoints.checkpoint import CheckpointError, Manifest
from dcgan_dist.checkpoints.snapshot import Parts
from dcgan_dist.config import reading
from dcgan_dist.config.reading import ConfigError
from dcgan_dist.config.settings import Config
from dcgan_dist.gan.calibrate import BATCH_IMAGES, BATCHES, calibrate
from dcgan_dist.gan.description import NetError, parse_net
from dcgan_dist.gan.model import Discriminator, Generator
from dcgan_dist.gan.noise import Noise, draw_noise
from dcgan_dist.ranks.devices import choose_device
from dcgan_dist.run_folder import untrusted
from dcgan_dist.seeds import seed_for
from shards import ShardsError
from shards.storage import store


@dataclass(frozen=True)
class Sampler:
    """A generator with frozen batch norm: a picture depends on its z alone, not on its neighbours."""

    generator: Generator
    config: Config
    step: int
    averaged: bool = False
    """Whether its weights are the exponential mean."""

    def noise(self, images: int, *, seed: int = 0) -> Tensor:
        """z of the run's own distribution, (images, z_size) float32."""
        z_size = self.generator.net.z_size
        return draw_noise(images, z_size, kind=self.config.model.noise, seed=seed_for(seed, "draw"))

    def freeze(self, batches: int = BATCHES) -> None:
        """Freeze batch norm at its statistics over `batches` batches of 128 z, the same every time."""
        device = next(self.generator.parameters()).device
        seeds = (seed_for(i, "freeze") for i in range(batches))
        z_size, kind = self.generator.net.z_size, self.config.model.noise
        noise = Noise(range(BATCH_IMAGES), z_size, kind=kind, device=device)
        calibrate(self.generator, map(noise.draw, seeds))

    @torch.no_grad()
    def __call__(self, z: Tensor, *, batch_images: int = 256) -> Tensor:
        """z (n, z_size) -> pictures (n, 3, S, S) in [-1, 1], on the CPU."""
        device = next(self.generator.parameters()).device
        return torch.cat([self.generator(part.to(device)).cpu() for part in torch.split(z, batch_images)])

    def sample(self, images: int, *, seed: int = 0) -> Tensor:
        """`images` pictures, (images, 3, S, S) in [-1, 1]; the same for the same seed."""
        return self(self.noise(images, seed=seed))


def load(run: str, *, step: int | None = None, device: str = "cpu") -> Sampler:
    """The generator of a run folder or URL (its EMA if there is one), at its newest or a given checkpoint.

    Raises CheckpointError when there is none, ConfigError when its settings or the device are wrong.
    """
    config, manifest, parts = read_run(run, step=step, only=("g", "ema"))
    model = config.model
    with torch.device("meta"):
        g = Generator(parse_net(model.net), norm_eps=model.norm_eps, variant=model.variant)
    name = "ema" if "ema" in parts else "g"
    checkpoint.load_weights(g, parts.get(name, {}), name=name)
    # The weights were copied into a float32 network, whatever the run's precision.
    sampler = Sampler(g.to(choose_device(device)), config, manifest.step, name == "ema")
    sampler.freeze()
    return sampler


def read_run(run: str, *, step: int | None, only: tuple[str, ...]) -> tuple[Config, Manifest, Parts]:
    """Settings and those parts of the newest or a given checkpoint of a run, which may be another's.

    Raises CheckpointError or ConfigError.
    """
    try:
        config, _ = received_config(run)
        folder = untrusted.folder(run, "checkpoints")
    except ShardsError as error:
        raise CheckpointError(f"{run} is not a run folder: {error}") from None
    if step is None:
        found = checkpoint.read_newest(folder, only=only)
        if found is None:
            raise CheckpointError(f"{run} has no whole checkpoint; train it first")
    elif step not in checkpoint.steps(folder):
        there = ", ".join(map(str, checkpoint.steps(folder))) or "none"
        raise CheckpointError(f"{run} has no checkpoint at step {step}; there are: {there}")
    else:
        found = checkpoint.read(folder, step, only=only)
    return config, *found


def received_config(run: str) -> tuple[Config, frozenset[str]]:
    """The settings of a run that is only looked at, and the names of those that its config.yaml says.

    All of `model` must be known here; what else another version named otherwise is left at its default.
    Raises ConfigError or ShardsError.
    """
    text, where = untrusted.read(run, "config.yaml").decode(errors="replace"), store.join(run, "config.yaml")
    config, known = reading.parse_some(Config, text, where=where, needed=("model",))
    try:
        parse_net(config.model.net)
    except NetError as error:
        raise ConfigError(f"{where}: model.net: {error}") from None
    if not 0 < config.model.norm_eps < math.inf:
        raise ConfigError(f"{where}: model.norm_eps={config.model.norm_eps} must be more than 0")
    return config, known


def load_discriminator(run: str, *, step: int | None = None) -> tuple[Discriminator, Config, int]:
    """D of a run folder or URL on the CPU, settings and step. Raises CheckpointError, ConfigError."""
    config, manifest, parts = read_run(run, step=step, only=("d",))
    model = config.model
    with torch.device("meta"):
        d = Discriminator(parse_net(model.net), norm_eps=model.norm_eps, variant=model.variant)
    checkpoint.load_weights(d, parts.get("d", {}), name="d")
    return d, config, manifest.step
