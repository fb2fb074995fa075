"""All settings of a run: what they mean, their one default each, and how small and large they may be.

Out of bounds is what no machine or clock can follow; float32 holds 1e30, and what Adam makes of it.

Kept out: the rules between settings; see `config.rules`.

A setting comes from a YAML file or from the command line (`--optim.lr 1e-4`), which wins wherever it stands.
Nothing here needs torch: `python -m dcgan_dist.config FILE --ranks 32` checks a run on a login node.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Literal, get_args

import yaml

from dcgan_dist.config import reading
from dcgan_dist.config.bounds import bounded
from dcgan_dist.config.reading import Place
from dcgan_dist.gan.description import Activation, Head, Norm, Output, Variant
from shards.storage import store

Precision = Literal["auto", "float64", "float32", "bfloat16", "float16"]
Device = Literal["auto", "cpu", "cuda", "mps", "xpu"]
DEVICES: tuple[str, ...] = get_args(Device)


@dataclass(frozen=True)
class Data:
    """Where the pictures come from and how they are read."""

    url: Place = "data/rooms"
    """Folder or URL of a dataset that `python -m shards build` wrote."""
    batch_images: int = bounded(128, least=2, most=10**7)
    """Images per step, summed over all ranks (paper: 128)."""
    threads: int = bounded(2, least=1, most=4096)
    """Reading and decoding threads of each rank; for npy one is enough."""
    requests: int = bounded(16, least=1, most=4096)
    """Reads of remote storage in flight at once, for each rank."""
    prefetch_bytes: int = bounded(2**28, least=0)
    """How far each rank reads ahead of decoding from remote storage; local disks have the kernel for that."""
    cache_dir: Place | None = None
    """A folder of this machine that keeps what was read, for later epochs and for other ranks and runs."""
    cache_bytes: int = bounded(2**36, least=0)
    """The most that the folder may hold, over all datasets."""
    warn_after_seconds: float = bounded(30.0, least=0, most=10**9)
    """Tell what a rank waits for when a batch takes longer than this."""
    max_bad_fraction: float = bounded(0.001, least=0)
    """Stop when more than this share of an epoch's samples, over all ranks, were damaged and replaced."""


@dataclass(frozen=True)
class Model:
    """Both networks."""

    net: str = "dcgan64"
    """Preset (dcgan64, imagenet32, svhn32, small32, tiny16) or a description: see gan/description.py."""
    noise: Literal["uniform", "normal"] = "uniform"
    """Distribution of z: uniform on (-1, 1) as in the paper, or normal as in the authors' SVHN model."""
    norm_eps: float = bounded(1e-8, more_than=0, most=1e30)
    """Added to batch norm's variance (authors' code: 1e-8; batch norm always runs in float32 or better)."""
    norm: Norm = "paper"
    """Batch norm: paper = all layers but G's output and D's input; everywhere makes samples oscillate."""
    head: Head = "flat"
    """D's end: flat = all of the last maps (paper), pooled = their means (stabler, slower)."""
    output: Output = "tanh"
    """G's output: tanh (paper), or linear, which learns the range of colours more slowly."""
    d_activation: Activation = "leaky_relu"
    """D's activation: leaky_relu of slope 0.2 (paper), relu, or maxout of two (Goodfellow et al. 2014)."""

    @property
    def variant(self) -> Variant:
        return Variant(self.norm, self.head, self.output, self.d_activation)


@dataclass(frozen=True)
class Optim:
    """Adam, the same for both networks (paper, section 4)."""

    lr: float = bounded(2e-4, least=0, most=1e30)
    """Step size; the paper finds 1e-3 too high."""
    beta1: float = bounded(0.5, least=0, less_than=1)
    """Decay of the gradient's mean; the paper finds 0.9 to oscillate."""
    beta2: float = bounded(0.999, least=0, less_than=1)
    """Decay of the gradient's square."""
    eps: float = bounded(1e-8, least=0, most=1e30)
    """Added to the root of the gradient's mean square."""
    weight_decay: float = bounded(1e-5, least=0, most=1e30)
    """L2 penalty added to the gradient, not decoupled (authors' code: 1e-5; the paper does not name it)."""


@dataclass(frozen=True)
class Train:
    """The run itself."""

    epochs: float = bounded(5.0, least=0, most=10**9)
    """Passes over the data; one step takes one global batch, whichever network it updates."""
    steps: int | None = bounded(None, least=0)
    """Number of steps; overrides epochs."""
    update_rule: Literal["alternate", "both"] = "alternate"
    """alternate: even steps update G, odd ones D (authors' code); both: D, then G, on every step."""
    precision: Precision = "auto"
    """Type of the convolutions; auto: bfloat16 where the device is faster in it, else float32 (older GPUs:
    float16). Batch norm, losses, weights and Adam stay in float32 (float64: all in it)."""
    ema_decay: float | None = bounded(None, least=0, less_than=1)
    """Keep an exponential mean of the generator's weights with this decay per G update; sampling uses it."""
    seed: int = bounded(42, least=0)
    """Seeds weights, noise and data order."""
    device: Device = "auto"
    """auto takes the GPU of this rank if there is one that can do all that training needs, else the CPU."""
    compile: bool = False
    """torch.compile both networks (GPUs; it fails on CPUs)."""
    graphs: bool = False
    """On NVIDIA GPUs: each update as one CUDA graph, for hosts that launch kernels too slowly."""
    deterministic: bool = True
    """On GPUs: only kernels that repeat themselves to the bit, as resuming exactly needs."""
    allow_tf32: bool = False
    """On GPUs: float32 convolutions and products with mantissas of 10 bits (TensorFloat-32), faster."""
    timeout_seconds: float = bounded(600.0, least=1, most=10**9)
    """How long ranks wait for each other before the run is given up."""


@dataclass(frozen=True)
class Run:
    """What the run leaves behind."""

    dir: Place = "runs/dcgan"
    """Run folder, local or any fsspec URL; starting the same command again resumes from it."""
    log_steps: int = bounded(50, least=1)
    """Steps between two lines of metrics."""
    sample_steps: int = bounded(500, least=1)
    """Steps between two sample grids."""
    sample_images: int = bounded(64, least=2, most=4096)
    """Pictures on a sample grid; at least 2, for they are normalised by their own statistics."""
    checkpoint_steps: int = bounded(1000, least=1)
    """Steps between two checkpoints; the last step always has one."""
    checkpoint_minutes: float | None = bounded(10.0, least=0, most=10**9)
    """A checkpoint also once the last is so old, with the next line of metrics; null: by steps alone."""
    checkpoints_kept: int = bounded(3, least=1)
    """How many of the newest checkpoints to keep."""
    checkpoint_keep_steps: int | None = bounded(None, least=1)
    """Keep also every checkpoint whose step is a multiple of this."""
    checkpoint_best: Literal["swd", "fid", "kid"] | None = None
    """Keep also the checkpoint whose score of this kind is the lowest so far; of those of scored steps."""
    profile_steps: int = bounded(0, least=0)
    """Trace so many steps of rank 0, some steps after the start, into DIR/profile; Perfetto opens it."""


@dataclass(frozen=True)
class Eval:
    """Scores of samples, during training and by python -m dcgan_dist.evaluate."""

    steps: int | None = bounded(None, least=1)
    """Steps between two scorings during training; null: none."""
    images: int = bounded(1024, least=16)
    """Samples that are scored, against as many real pictures and as many more for the floor."""
    inception: Place | None = None
    """A local TorchScript file of Inception, for FID and KID; see dcgan_dist/scores/inception.py."""
    inception_sha256: str | None = None
    """The sha256 of that file, which is loaded only if it matches."""


@dataclass(frozen=True)
class Config:
    data: Data = field(default_factory=Data)
    model: Model = field(default_factory=Model)
    optim: Optim = field(default_factory=Optim)
    train: Train = field(default_factory=Train)
    run: Run = field(default_factory=Run)
    eval: Eval = field(default_factory=Eval)


def read_config(argv: Sequence[str], prog: str) -> Config:
    """The settings of a command line. `--help` prints them all and exits. Raises ConfigError."""
    return reading.read(Config, argv, prog=prog)


def parse_config(text: str, where: str) -> Config:
    """The settings of a YAML text that was read from `where`. Raises ConfigError."""
    return reading.parse(Config, text, where=where)


def dump(config: Config) -> str:
    """The effective settings as YAML that `read_config` reads back."""
    return str(yaml.safe_dump(asdict(config), sort_keys=False))


def config_of(run: str) -> Config:
    """The settings a run was started with. Raises ConfigError or ShardsError."""
    url = store.join(run, "config.yaml")
    return parse_config(store.read_bytes(url, limit_bytes=store.SMALL_BYTES).decode(errors="replace"), url)
