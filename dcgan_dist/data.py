"""The exact order for anybody's training loop: any webdataset tars, any number of ranks and workers, no state
but the number of a step.

    order = ExactOrder("s3://bucket/set", batch_images=256, seed=0)   # this rank's rows of each global batch
    order.load_state_dict({"step": 1200})
    for batch in order:
        batch.pictures, batch.labels, batch.step

The order is that of the trainer, `docs/order.md`: a function of (seed, step) and of nothing else. Kept out:
cutting and indexing, which are `python -m shards`'.
"""

from collections.abc import Iterator, Sequence
from contextlib import closing
from functools import cached_property, lru_cache, partial
from itertools import count
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from dcgan_dist.config.reading import ConfigError
from dcgan_dist.config.rules import check_shares
from dcgan_dist.config.settings import Data
from dcgan_dist.stream.feed import Feed
from dcgan_dist.stream.fetch import Fetch
from dcgan_dist.stream.lanes import Lanes
from dcgan_dist.stream.plan import EpochPlan, Plan, lanes
from shards.dataset.reader import Blocks
from shards.dataset.samples import Sample, Samples, label_in, sample_of
from shards.tars.records import Buffer, Files

__all__ = ["Batch", "ExactOrder", "InOrder", "Sample", "Samples", "exact_order"]


class Batch:
    """The rows of one rank of the global batch of `step`, in the order of its rows.

    It is no list to torch's DataLoader, which would take its samples apart.
    """

    def __init__(
        self,
        rows: Sequence[tuple["Opened | Packed", int]],
        step: int,
        pictures: NDArray[np.uint8] | None = None,
    ) -> None:
        self._rows, self.step, self._pictures = rows, step, pictures

    def __reduce__(self) -> tuple[Any, ...]:
        # Between processes torch hands a tensor over in shared memory.
        shared = None if self._pictures is None else torch.from_numpy(self._pictures)
        return _unpacked, (list(self), self.step, shared)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, at: int) -> Sample:
        opened, row = self._rows[at]
        return opened.sample(row)

    def __iter__(self) -> Iterator[Sample]:
        return (opened.sample(row) for opened, row in self._rows)

    @property
    def keys(self) -> list[str]:
        """The name of each sample in its tar."""
        return [opened.key(row) for opened, row in self._rows]

    @property
    def labels(self) -> NDArray[np.int64]:
        """(n,): -1 for a sample without a label."""
        return np.array([opened.label(row) for opened, row in self._rows], np.int64)

    @property
    def metas(self) -> list[dict[str, Any]]:
        """What each `.json` says."""
        return [sample.meta for sample in self]

    @property
    def pictures(self) -> NDArray[np.uint8]:
        """(n, h, w, 3), of pictures of one size. Raises ShardsError where one is damaged, ValueError where
        they are of several sizes."""
        if self._pictures is None:
            found = [sample.picture for sample in self]
            if len({picture.shape for picture in found}) > 1:
                raise ValueError("the pictures are of several sizes; take the picture of each sample")
            self._pictures = np.stack(found)
        return self._pictures


def _unpacked(samples: list[Sample], step: int, pictures: Tensor | None) -> Batch:
    packed = Packed(samples)
    rows = [(packed, row) for row in range(len(samples))]
    return Batch(rows, step, None if pictures is None else pictures.numpy())


class ExactOrder(IterableDataset[Batch]):
    """Global batches in the exact order, or one rank's rows of each: an iterable of `Batch`.

    It begins at the step of its state and goes on over all epochs, up to `steps` if given. `rank` of `ranks`
    are torch.distributed's where a group was made, else one rank of one. In torch's DataLoader
    (`batch_size=None`) each worker makes whole batches, every W-th, and they come in order; torchdata's
    StatefulDataLoader saves and resumes it. Pictures of one size are decoded ahead by `threads`; there a
    damaged one is replaced as the trainer does it. Memory is a block for each lane.

    Raises ShardsError where `url` is no dataset, and ConfigError where `batch_images` does not go into equal
    rows of ranks, or is more than the dataset has.
    """

    def __init__(
        self,
        url: str,
        batch_images: int,
        seed: int,
        *,
        rank: int | None = None,
        ranks: int | None = None,
        steps: int | None = None,
        threads: int = 2,
    ) -> None:
        grouped = dist.is_available() and dist.is_initialized()
        self.rank = rank if rank is not None else dist.get_rank() if grouped else 0
        self.ranks = ranks if ranks is not None else dist.get_world_size() if grouped else 1
        if not 0 <= self.rank < self.ranks:
            raise ConfigError(f"rank={self.rank} must be at least 0 and less than ranks={self.ranks}")
        if batch_images < 1:
            raise ConfigError(f"batch_images={batch_images} must be at least 1")
        check_shares(batch_images, self.ranks)
        self.samples = Samples(url)
        if len(self.samples) < batch_images:
            raise ConfigError(
                f"batch_images={batch_images} is more than the {len(self.samples)} samples of {url}; lower it"
            )
        self.plan = Plan(self.samples.blocks.kept_counts, batch_images=batch_images, seed=seed)
        self.lanes, self.steps = lanes(self.rank, self.ranks, batch_images), steps
        self.threads = threads
        self._step, self._own = 0, False

    @property
    def steps_per_epoch(self) -> int:
        """Fewer samples than a batch are left out of each epoch, other ones in each."""
        return self.plan.steps_per_epoch

    def state_dict(self) -> dict[str, int]:
        """The step of the batch that comes next."""
        return {"step": self._step}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on at a step that `state_dict` told, here or on any other number of ranks and workers."""
        step = state.get("step")
        if type(step) is not int or step < 0:
            raise ValueError(f"{state} is not the state of an order, which is {{'step': n}}")
        # The state of a worker is of its own batches; before there are workers it is of all.
        self._step, self._own = step, get_worker_info() is not None

    def __iter__(self) -> Iterator[Batch]:
        info = get_worker_info()
        stride = info.num_workers if info else 1
        if info and not self._own:
            self._step, self._own = self._step + info.id, True
        read = self._pictures if self.samples.index.image_size else self._files
        for batch in read(self._step, stride):
            self._step = batch.step + stride
            yield batch

    def _pictures(self, first: int, stride: int) -> Iterator[Batch]:
        """Of a dataset of pictures of one size, which threads decode ahead."""
        blocks = self.samples.blocks
        feed = Feed(
            blocks,
            self.plan,
            lanes=self.lanes,
            first_step=first,
            stop_step=self.steps,
            threads=self.threads,
            used=tuple(at == first % stride for at in range(stride)),
            open_block=partial(Opened, blocks),
        )
        with feed:
            for step in count(first) if self.steps is None else range(first, self.steps):
                pictures = feed.next_batch()
                if (step - first) % stride == 0:
                    yield Batch(feed.taken.copy(), step, pictures.copy())

    def _files(self, first: int, stride: int) -> Iterator[Batch]:
        """Of samples of any kind, whose bytes are handed on."""
        blocks = self.samples.blocks
        with closing(Fetch(blocks, requests=Data.requests, window_bytes=Data.prefetch_bytes)) as fetch:
            reads: Lanes[Opened] = Lanes(
                *(blocks, self.plan, self.lanes, fetch, partial(Opened, blocks)),
                first_step=first,
                stop_step=self.steps,
            )
            for step in count(first) if self.steps is None else range(first, self.steps):
                reads.deal(step)
                taken = [reads.take(row, 1)[0] for row in range(len(self.lanes))]
                if (step - first) % stride == 0:
                    yield Batch([(opened, at) for opened, (at,), _ in taken], step)

    def flat(self) -> "Flat":
        """The samples of this rank one by one, as dicts: the first stage of a webdataset pipeline."""
        return Flat(self)

    def in_order(self, epochs: int = 1) -> "InOrder":
        """The samples of all ranks by their place in the order, for readers that want random access."""
        return InOrder(self, epochs)


class Opened:
    """A block whose samples are there with all their files, and its pictures where they are of one size."""

    def __init__(self, blocks: Blocks, block: int, data: Buffer) -> None:
        self._blocks, self._block, self._data = blocks, block, data
        self._kept = blocks.kept(block).tolist()
        self._stand_ins: dict[int, int] = {}
        self._has_labels = bool(blocks.index.classes)
        if blocks.index.image_size:
            raw = blocks.index.record_bytes > 0  # whose files are not looked for to find their pixels
            pictures = blocks.pictures(block, data, None if raw else self._files)
            self.into, self._stand_ins = pictures.into, pictures.stand_ins

    @cached_property
    def _files(self) -> Files:
        return self._blocks.files(self._block, self._data)

    def _at(self, wanted: int) -> int:
        """The place in the block of the sample that is served: of which `into` gave the picture."""
        return int(self._kept[self._stand_ins.get(wanted, wanted)])

    def key(self, wanted: int) -> str:
        return self._files.keys[self._at(wanted)]

    def label(self, wanted: int) -> int:
        """-1 without one."""
        found = label_in(self._files.of(self._at(wanted))) if self._has_labels else None
        return -1 if found is None else found

    def sample(self, wanted: int) -> Sample:
        at = self._at(wanted)
        url = self._blocks.shard_url(self._blocks.place(self._block).shard)
        return sample_of(self._files.keys[at], self._files.of(at), url)


class Packed:
    """As Opened, of samples that were copied: what a worker process sends."""

    def __init__(self, samples: list[Sample]) -> None:
        self._samples = samples

    def key(self, row: int) -> str:
        return self._samples[row].key

    def label(self, row: int) -> int:
        found = self._samples[row].label
        return -1 if found is None else found

    def sample(self, row: int) -> Sample:
        return self._samples[row]


PICKLED = {"pkl", "pickle", "pyd", "pth", "pt"}


class Flat(IterableDataset[Sample]):
    """The samples of an order, one by one, without the files that webdataset's `decode` would unpickle.

    To unpickle a file runs the code in it; `ExactOrder` hands such files on as bytes.
    """

    def __init__(self, order: ExactOrder) -> None:
        self.order = order

    def __iter__(self) -> Iterator[Sample]:
        for batch in self.order:
            for sample in batch:
                yield Sample({name: data for name, data in sample.items() if not _is_pickled(name)})


def _is_pickled(name: str) -> bool:
    return name.removesuffix(".gz").rpartition(".")[2] in PICKLED


def exact_order(
    url: str, batch_images: int, seed: int, *, step: int = 0, steps: int | None = None, **ranks: int
) -> Flat:
    """The first stage of a webdataset pipeline, which goes on at `step`; other arguments as ExactOrder's.

        wds.DataPipeline(exact_order(url, 256, seed=0), wds.decode("torchrgb"), wds.to_tuple("jpg", "cls"))

    Each sample is a dict of bytes, as webdataset's own readers make it.
    """
    order = ExactOrder(url, batch_images, seed, steps=steps, **ranks)
    order.load_state_dict({"step": step})
    return order.flat()


class InOrder:
    """Random access to an order: number i is row i % B of the global batch of step i // B, in batches of B.

    This is what google's grain takes for a data source. `len` is that of so many epochs.
    """

    def __init__(self, order: ExactOrder, epochs: int) -> None:
        self.order, self.epochs = order, epochs
        self._epoch = lru_cache(maxsize=2)(order.plan.epoch)

    def __getstate__(self) -> tuple[ExactOrder, int]:
        return self.order, self.epochs

    def __setstate__(self, state: tuple[ExactOrder, int]) -> None:
        self.__init__(*state)  # type: ignore[misc]

    def __len__(self) -> int:
        return self.epochs * self.order.steps_per_epoch * self.order.plan.batch_images

    def __getitem__(self, number: int) -> Sample:
        if not 0 <= number < len(self):
            raise IndexError(f"{number} of {len(self)} samples")
        step, lane = divmod(int(number), self.order.plan.batch_images)
        epoch, step = divmod(step, self.order.steps_per_epoch)
        plan: EpochPlan = self._epoch(epoch)
        block, within = plan.at(lane, step)
        return self.order.samples.of_block(block)[within]
