"""All settings of a run: what they mean, their one default each, and the rules between them.

A setting comes from a YAML file or from the command line (`--optim.lr 1e-4`), which wins wherever it stands.
Nothing here needs torch: `python -m dcgan_dist.config FILE --ranks 32` checks a run on a login node.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Literal, get_args

import yaml

from dcgan_dist.config import reading
from dcgan_dist.config.bounds import check_bounds, check_shares
from dcgan_dist.config.reading import ConfigError, Place
from dcgan_dist.gan.description import Activation, Head, NetError, Norm, Output, Variant, parse_net
from shards import Index
from shards.dataset.index import check_listing
from shards.dataset.index import load as load_index
from shards.storage import store

Precision = Literal["auto", "float64", "float32", "bfloat16", "float16"]
Device = Literal["auto", "cpu", "cuda", "mps", "xpu"]
DEVICES: tuple[str, ...] = get_args(Device)


@dataclass(frozen=True)
class Data:
    """Where the pictures come from and how they are read."""

    url: Place = "data/rooms"
    """Folder or URL of a dataset that `python -m shards build` wrote."""
    batch_images: int = 128
    """Images per step, summed over all ranks (paper: 128)."""
    threads: int = 2
    """Reading and decoding threads of each rank; for npy one is enough."""
    requests: int = 16
    """Reads of remote storage in flight at once, for each rank."""
    prefetch_bytes: int = 2**28
    """How far each rank reads ahead of decoding from remote storage; local disks have the kernel for that."""
    cache_dir: Place | None = None
    """A folder of this machine that keeps what was read, for later epochs and for other ranks and runs."""
    cache_bytes: int = 2**36
    """The most that the folder may hold, over all datasets."""
    warn_after_seconds: float = 30.0
    """Tell what a rank waits for when a batch takes longer than this."""
    max_bad_fraction: float = 0.001
    """Stop when more than this share of an epoch's samples, over all ranks, were damaged and replaced."""


@dataclass(frozen=True)
class Model:
    """Both networks."""

    net: str = "dcgan64"
    """Preset (dcgan64, imagenet32, svhn32, small32, tiny16) or a description: see gan/description.py."""
    noise: Literal["uniform", "normal"] = "uniform"
    """Distribution of z: uniform on (-1, 1) as in the paper, or normal as in the authors' SVHN model."""
    norm_eps: float = 1e-8
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

    lr: float = 2e-4
    """Step size; the paper finds 1e-3 too high."""
    beta1: float = 0.5
    """Decay of the gradient's mean; the paper finds 0.9 to oscillate."""
    beta2: float = 0.999
    """Decay of the gradient's square."""
    eps: float = 1e-8
    """Added to the root of the gradient's mean square."""
    weight_decay: float = 1e-5
    """L2 penalty added to the gradient, not decoupled (authors' code: 1e-5; the paper does not name it)."""


@dataclass(frozen=True)
class Train:
    """The run itself."""

    epochs: float = 5.0
    """Passes over the data; one step takes one global batch, whichever network it updates."""
    steps: int | None = None
    """Number of steps; overrides epochs."""
    update_rule: Literal["alternate", "both"] = "alternate"
    """alternate: even steps update G, odd ones D (authors' code); both: D, then G, on every step."""
    precision: Precision = "auto"
    """Type of the convolutions; auto: bfloat16 where the device is faster in it, else float32 (older GPUs:
    float16). Batch norm, losses, weights and Adam stay in float32 (float64: all in it)."""
    ema_decay: float | None = None
    """Keep an exponential mean of the generator's weights with this decay per G update; sampling uses it."""
    seed: int = 42
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
    timeout_seconds: float = 600.0
    """How long ranks wait for each other before the run is given up."""


@dataclass(frozen=True)
class Run:
    """What the run leaves behind."""

    dir: Place = "runs/dcgan"
    """Run folder, local or any fsspec URL; starting the same command again resumes from it."""
    log_steps: int = 50
    """Steps between two lines of metrics."""
    sample_steps: int = 500
    """Steps between two sample grids."""
    sample_images: int = 64
    """Pictures on a sample grid; at least 2, for they are normalised by their own statistics."""
    checkpoint_steps: int = 1000
    """Steps between two checkpoints; the last step always has one."""
    checkpoint_minutes: float | None = 10.0
    """A checkpoint also once the last is so old, with the next line of metrics; null: by steps alone."""
    checkpoints_kept: int = 3
    """How many of the newest checkpoints to keep."""
    checkpoint_keep_steps: int | None = None
    """Keep also every checkpoint whose step is a multiple of this."""
    checkpoint_best: Literal["swd", "fid", "kid"] | None = None
    """Keep also the checkpoint whose score of this kind is the lowest so far; of those of scored steps."""
    profile_steps: int = 0
    """Trace so many steps of rank 0, some steps after the start, into DIR/profile; Perfetto opens it."""


@dataclass(frozen=True)
class Eval:
    """Scores of samples, during training and by python -m dcgan_dist.evaluate."""

    steps: int | None = None
    """Steps between two scorings during training; null: none."""
    images: int = 1024
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


def check(config: Config, *, ranks: int) -> None:
    """The rules between settings that need no dataset. Raises ConfigError."""
    data, optim, train = config.data, config.optim, config.train
    if ranks < 1:
        raise ConfigError(f"ranks={ranks} must be at least 1")
    check_bounds(
        {f"{group}.{name}": value for group, part in asdict(config).items() for name, value in part.items()}
    )
    _check_best(config)
    if train.graphs and train.compile:
        raise ConfigError("train.graphs and train.compile exclude each other; choose one")
    below_one = {"optim.beta1": optim.beta1, "optim.beta2": optim.beta2, "train.ema_decay": train.ema_decay}
    for name, fraction in below_one.items():
        if fraction is not None and not 0 <= fraction < 1:
            raise ConfigError(f"{name}={fraction} must be at least 0 and less than 1")
    if data.cache_dir is not None and "://" in data.cache_dir:
        raise ConfigError(f"data.cache_dir={data.cache_dir} must be a folder of this machine, not a URL")
    try:
        parse_net(config.model.net)
    except NetError as error:
        raise ConfigError(f"model.net: {error}") from None
    check_shares(data.batch_images, ranks)


def _check_best(config: Config) -> None:
    best, scored, saved = config.run.checkpoint_best, config.eval.steps, config.run.checkpoint_steps
    if best is not None and (scored is None or scored % saved):
        raise ConfigError(
            f"run.checkpoint_best={best} needs eval.steps, a multiple of run.checkpoint_steps={saved}, "
            f"not {'null' if scored is None else scored}"
        )
    if best in ("fid", "kid") and config.eval.inception is None:
        raise ConfigError(f"run.checkpoint_best={best} needs eval.inception, a file of its weights")


def check_data(config: Config) -> Index:
    """The dataset's index, checked against the settings and the shards. Raises ConfigError or ShardsError."""
    index = load_index(config.data.url)
    check_listing(config.data.url, index)
    size = parse_net(config.model.net).image_size
    if index.image_size != size:
        raise ConfigError(
            f"model.net={config.model.net} draws {size}x{size} pictures but {config.data.url} holds "
            f"{index.image_size}x{index.image_size}; rebuild it with --size {size} or choose another net"
        )
    if index.kept < config.data.batch_images:
        raise ConfigError(
            f"data.batch_images={config.data.batch_images} is more than the {index.kept} pictures of "
            f"{config.data.url}; lower it or build a larger dataset"
        )
    if config.eval.steps is not None and index.kept < 2 * config.eval.images:
        raise ConfigError(
            f"eval.images={config.eval.images} needs twice as many real pictures, {config.data.url} has "
            f"{index.kept}; lower it to {index.kept // 2}"
        )
    return index


def config_of(run: str) -> Config:
    """The settings a run was started with. Raises ConfigError or ShardsError."""
    url = store.join(run, "config.yaml")
    return parse_config(store.read_bytes(url, limit_bytes=store.SMALL_BYTES).decode(errors="replace"), url)


def total_steps(config: Config, index: Index) -> int:
    """Steps of the whole run. Raises ConfigError where a part of an epoch gives none."""
    if config.train.steps is not None:
        return config.train.steps
    per_epoch = index.kept // config.data.batch_images
    steps = int(config.train.epochs * per_epoch)
    if config.train.epochs and not steps:
        raise ConfigError(
            f"train.epochs={config.train.epochs} gives no step, for an epoch has {per_epoch}; "
            "raise it, or say train.steps"
        )
    return steps
