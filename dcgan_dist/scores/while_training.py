"""Scores while training goes on, every `eval.steps` steps, on all ranks together."""

from typing import Any

from dcgan_dist.config.settings import Config
from dcgan_dist.gan.model import Generator
from dcgan_dist.ranks.world import World
from dcgan_dist.run_folder.networks import Sampler
from dcgan_dist.scores.inception import Inception
from dcgan_dist.scores.suite import draw, protocol, read_reals, score
from shards.dataset.reader import Blocks


class Scorer:
    """Holds the real pictures; every rank must ask at the same steps. Raises ConfigError or ShardsError."""

    def __init__(self, config: Config, here: World, blocks: Blocks) -> None:
        self.config, self.here = config, here
        path, sum_ = config.eval.inception, config.eval.inception_sha256
        self.inception = Inception(path, sum_, here.device) if path else None
        self.reals = read_reals(blocks, config.eval.images, here)

    @property
    def protocol(self) -> dict[str, Any]:
        """What the numbers stand on."""
        return protocol(self.config.eval.images, self.config.data.url, self.inception)

    def due(self, done: int, last: int) -> bool:
        """Whether this step's samples are to be scored."""
        steps = self.config.eval.steps
        return steps is not None and (done % steps == 0 or done == last)

    def scores(self, step: int, g: Generator) -> dict[str, float]:
        """Of samples of a copy of `g` whose batch norm no rank shares and training never sees."""
        sampler = Sampler(g.replica().float(), self.config, step)
        return score(self.reals, draw(sampler, self.config.eval.images, self.here), self.here, self.inception)
