"""Exact distributed training of deep convolutional GANs (Radford, Metz, Chintala 2015).

import dcgan_dist
g = dcgan_dist.load("runs/demo")
pictures = g.sample(16, seed=0)  # (16, 3, S, S) in [-1, 1]
"""

from typing import TYPE_CHECKING, Any

from dcgan_dist import launched as _launched  # noqa: F401

if TYPE_CHECKING:
    from dcgan_dist.run_folder.networks import Sampler, load

__all__ = ["Sampler", "load"]


def __getattr__(name: str) -> Any:
    # Importing `dcgan_dist.config` on a login node must not import torch.
    if name in __all__:
        from dcgan_dist.run_folder import networks

        return getattr(networks, name)
    raise AttributeError(f"module 'dcgan_dist' has no attribute {name!r}")
