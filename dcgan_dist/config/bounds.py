"""How small and how large settings may be.

Kept out: rules between settings; see `config.check`.
"""

from bisect import bisect
from collections.abc import Mapping
from typing import Any

from dcgan_dist.config.reading import ConfigError

AT_LEAST = {
    0: (
        *("data.prefetch_bytes", "data.cache_bytes", "data.warn_after_seconds", "data.max_bad_fraction"),
        *("optim.lr", "optim.eps", "optim.weight_decay"),
        *("run.checkpoint_minutes", "train.epochs", "train.steps", "train.seed", "run.profile_steps"),
    ),
    1: (
        *("data.threads", "data.requests", "train.timeout_seconds", "run.log_steps", "run.sample_steps"),
        *("run.checkpoint_steps", "run.checkpoints_kept", "run.checkpoint_keep_steps", "eval.steps"),
    ),
    2: ("data.batch_images", "run.sample_images"),
    16: ("eval.images",),
}
AT_MOST = {  # what no machine or clock can follow; float32 holds 1e30, and what Adam makes of it
    4096: ("data.threads", "data.requests", "run.sample_images"),
    10**7: ("data.batch_images",),
    10**9: ("data.warn_after_seconds", "run.checkpoint_minutes", "train.epochs", "train.timeout_seconds"),
    1e30: ("model.norm_eps", "optim.lr", "optim.eps", "optim.weight_decay"),
}


def check_bounds(values: Mapping[str, Any]) -> None:
    """Settings by their dotted names; None is within all bounds. Raises ConfigError."""
    given = {name: value for name, value in values.items() if value is not None}
    if not given["model.norm_eps"] > 0:
        raise ConfigError(
            f"model.norm_eps={given['model.norm_eps']} must be more than 0; the default is 1e-8"
        )
    for least, names in AT_LEAST.items():
        for name in sorted(given.keys() & set(names)):
            if not given[name] >= least:
                raise ConfigError(f"{name}={given[name]} must be at least {least}")
    for most, names in AT_MOST.items():
        for name in sorted(given.keys() & set(names)):
            if given[name] > most:
                raise ConfigError(f"{name}={given[name]} must be at most {most}")


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
