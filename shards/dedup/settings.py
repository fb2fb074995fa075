"""What decides the result of a de-duplication, the dataset apart."""

from dataclasses import dataclass

from shards.dedup.grouping import MAX_RADIUS
from shards.errors import ShardsError

HASHES = ("autoencoder", "perceptual")


@dataclass(frozen=True, slots=True)
class Settings:
    """What decides the result, the dataset apart."""

    hash: str = "autoencoder"
    radius: int = 0
    epochs: int = 15
    train_images: int = 100_000

    def __post_init__(self) -> None:
        if self.hash not in HASHES:
            raise ShardsError(f"hash={self.hash!r} is not known; choose one of {', '.join(HASHES)}")
        for name, value, high in (
            ("radius", self.radius, MAX_RADIUS),
            ("epochs", self.epochs, 1000),
            ("train_images", self.train_images, 10**7),
        ):
            low = 0 if name == "radius" else 1
            if not low <= value <= high:
                raise ShardsError(f"{name}={value} is outside [{low}, {high}]; give one inside")
