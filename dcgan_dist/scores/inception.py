"""FID and KID, computed by torchmetrics from the features of an Inception network that the user has on disk.

No weights come with us and none are fetched. The file is a TorchScript module that takes uint8 (n, 3, S, S),
scales for itself, and with `return_features=True` gives (n, d): NVIDIA's `inception-2015-12-05.pt` is one.
TorchScript is a program, so it is loaded only where its sha256 is the one that the user gave, and from the
very bytes that have it.
"""

import hashlib
import io
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from dcgan_dist.config.reading import ConfigError
from dcgan_dist.ranks.world import World
from dcgan_dist.scores.precision_recall import shares
from shards.arrays import U8
from shards.extras import install

BATCH_IMAGES = 64
KID_SUBSETS = 100
KID_SUBSET_IMAGES = 1000


class Inception:
    """The network of `path`, on the rank's device. Raises ConfigError."""

    def __init__(self, path: str, sha256: str | None, device: torch.device) -> None:
        data = _read_checked(path, sha256)
        self.sha256, self.device = sha256, device
        try:
            with warnings.catch_warnings():
                # torch calls TorchScript deprecated; Inception's public file is in it all the same.
                warnings.simplefilter("ignore", DeprecationWarning)
                self._net = torch.jit.load(io.BytesIO(data), map_location=device).eval()  # type: ignore[no-untyped-call]
        except (RuntimeError, ValueError) as error:
            first = str(error).strip().splitlines()[0]
            raise ConfigError(f"eval.inception={path} is no TorchScript module: {first}") from None

    @torch.no_grad()
    def features(self, images: U8, here: World) -> Tensor:
        """Uint8 (n, S, S, 3) -> (n, d), each rank computing its share. Raises ConfigError."""
        mine = shares(len(images), here, BATCH_IMAGES)
        found = [self._net(self._batch(images[rows]), return_features=True) for rows in mine]
        width = torch.zeros(1, dtype=torch.float64, device=self.device)
        width[0] = found[0].shape[1] if found else 0
        columns = int(here.gather(width).max())
        everything = torch.zeros(len(images), columns, device=self.device)
        for rows, features in zip(mine, found, strict=True):
            everything[rows] = features
        return here.sum(everything)

    def _batch(self, images: U8) -> Tensor:
        return torch.from_numpy(images).permute(0, 3, 1, 2).contiguous().to(self.device)


def _read_checked(path: str, sha256: str | None) -> bytes:
    if not Path(path).is_file():
        raise ConfigError(
            f"eval.inception={path} is not there; give a local TorchScript file, or leave it out"
        )
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise ConfigError(f"eval.inception={path} cannot be read: {error.strerror}") from None
    found = hashlib.sha256(data).hexdigest()
    if found != sha256:
        raise ConfigError(
            f"eval.inception={path} has sha256 {found}, eval.inception_sha256 is {sha256}; set "
            "it to that of a file that you trust, for TorchScript is a program"
        )
    return data


class _Given(nn.Module):
    """Hands features through to torchmetrics, which asks for a network."""

    def __init__(self, columns: int) -> None:
        super().__init__()
        self.num_features = columns

    def forward(self, features: Tensor) -> Tensor:
        return features


def frechet_and_kernel(real: Tensor, fake: Tensor) -> dict[str, float]:
    """FID and KID of features (n, d), the same on every rank. Raises ConfigError without torchmetrics."""
    try:
        # Here and not at the top, because it is an extra and takes seconds.
        from torchmetrics.image.fid import FrechetInceptionDistance
        from torchmetrics.image.kid import KernelInceptionDistance
    except ImportError:
        raise ConfigError(f"FID needs torchmetrics: {install('fid')}") from None
    given = _Given(real.shape[1])
    subset = min(KID_SUBSET_IMAGES, len(real), len(fake))
    with warnings.catch_warnings():  # that KID keeps features in memory, where they are already
        warnings.simplefilter("ignore", UserWarning)
        kid = KernelInceptionDistance(
            feature=given, subsets=KID_SUBSETS, subset_size=subset, sync_on_compute=False
        )
    # Every rank has all features: nothing is to be gathered.
    fid = FrechetInceptionDistance(feature=given, sync_on_compute=False)
    fid, kid = fid.to(real.device), kid.to(real.device)
    with torch.random.fork_rng(
        devices=[real.device] if real.is_cuda else []
    ):  # its subsets come from torch's own stream
        torch.manual_seed(0)
        for metric in (fid, kid):
            metric.update(real, real=True)
            metric.update(fake, real=False)
        return {"fid": float(fid.compute()), "kid": float(kid.compute()[0])}
