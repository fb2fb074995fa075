"""The rules between settings, and between them, the ranks and the dataset.

Kept out: how small and how large one setting may be, which stands beside its default; see `config.settings`.
"""

from bisect import bisect

from dcgan_dist.config.bounds import check_bounds
from dcgan_dist.config.reading import ConfigError
from dcgan_dist.config.settings import Config
from dcgan_dist.gan.description import NetError, parse_net
from shards import Index
from shards.dataset.index import NoDatasetError, check_listing
from shards.dataset.index import load as load_index


def check(config: Config, *, ranks: int) -> None:
    """The bounds of settings, and the rules between them that need no dataset. Raises ConfigError."""
    data, train = config.data, config.train
    if ranks < 1:
        raise ConfigError(f"ranks={ranks} must be at least 1")
    check_bounds(config)
    _check_best(config)
    if train.graphs and train.compile:
        raise ConfigError("train.graphs and train.compile exclude each other; choose one")
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


DRAWN_IMAGES = 12000
"""As many as the demo draws."""


def check_data(config: Config) -> Index:
    """The dataset's index, checked against the settings and the shards. Raises ConfigError or ShardsError."""
    size = parse_net(config.model.net).image_size
    try:
        index = load_index(config.data.url)
    except NoDatasetError as error:
        images = max(DRAWN_IMAGES, config.data.batch_images)
        raise ConfigError(f"{error} --images {images} --size {size}") from None
    check_listing(config.data.url, index)
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


def check_shares(batch_images: int, ranks: int) -> None:
    """Raises ConfigError where a batch does not divide over the ranks."""
    if batch_images % ranks:
        below = max(batch_images // ranks, 1) * ranks
        fitting = [count for count in range(1, batch_images + 1) if batch_images % count == 0]
        place = bisect(fitting, ranks)
        near = " and ".join(map(str, fitting[place - 1 : place + 1]))
        raise ConfigError(
            f"data.batch_images={batch_images} does not divide over {ranks} ranks; nearest that do: "
            f"{below} and {below + ranks} images, or {near} ranks"
        )
