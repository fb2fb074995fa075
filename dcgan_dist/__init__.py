"""Exact distributed training of deep convolutional GANs (Radford, Metz, Chintala 2015).

import dcgan_dist
run = dcgan_dist.train("configs/demo.yaml", {"train.steps": 200})
pictures = dcgan_dist.load(run).sample(16, seed=0)  # (16, 3, S, S) in [-1, 1]
scores = dcgan_dist.evaluate(run)["scores"]
"""

from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from dcgan_dist import launched as _launched  # noqa: F401

if TYPE_CHECKING:
    from dcgan_dist.library import Model, Run, evaluate, load, train

__all__ = ["Model", "Run", "evaluate", "load", "train"]


def __getattr__(name: str) -> Any:
    # Importing `dcgan_dist.config` on a login node must not import torch.
    if name in __all__:
        import dcgan_dist.library

        if name == "train":
            import dcgan_dist.train
        # The commands' modules, which now stand here under their names, can be called.
        return globals().get(name) or getattr(dcgan_dist.library, name)
    if name == "__version__":
        try:
            return version("dcgan_dist")
        except PackageNotFoundError:  # a checkout that is only on the path
            return "0+unknown"
    raise AttributeError(f"module 'dcgan_dist' has no attribute {name!r}")
