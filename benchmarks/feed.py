"""Images per second from storage to decoded uint8 batches: ours beside the readers one would use instead.

Drawn rooms of 64x64, warm page cache, batches of 128, no training; every reader in a process of its own, one
after another in each round, on data that its own writer wrote. webdataset is measured as installed: tars by
its writer, decoded by its Pillow decoder; and once more on our tars; ours also reads its tars as they are. On
two ranks, each is two processes that share the data out, as in training.
The others get our JPEG decoder. "decoder_alone" decodes the same bytes out of memory, in storage order, in a
process on each core, and does nothing else: no reader with this decoder can be faster. litdata and
mosaicml-streaming are measured where they can be imported: see benchmarks/README.md.
"""

import argparse
import importlib.util
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg
import torch
import webdataset
from torch.utils.data import DataLoader, Dataset

from benchmarks.ranks import together
from benchmarks.record import apart, interleaved, ratios, record
from dcgan_dist.ranks.world import World
from dcgan_dist.stream.feed import Feed
from dcgan_dist.stream.plan import Plan, lanes
from shards.building.build import build
from shards.dataset.adopt import reindex
from shards.dataset.index import load
from shards.dataset.reader import Blocks
from shards.sources.drawn.rooms import Rooms
from shards.tars.records import parse_records

BATCH = 128
Run = Callable[[], int]
Contender = AbstractContextManager[Run]


def ours(here: World, url: str, threads: int, epochs: int) -> Run:
    blocks = Blocks(url, load(url))
    plan = Plan(blocks.kept_counts, batch_images=BATCH * here.ranks, seed=0)
    rows, steps = lanes(here.rank, here.ranks, BATCH * here.ranks), epochs * plan.steps_per_epoch

    def run() -> int:
        with Feed(blocks, plan, lanes=rows, threads=threads, stop_step=steps) as feed:
            for _ in range(steps):
                feed.next_batch()
        return steps * BATCH * here.ranks

    return run


def from_webdataset_on_ranks(here: World, folder: str, extension: str) -> Run:
    """The pictures of all ranks, whose shares need not be equal."""
    own, total = from_webdataset(folder, extension, 0), load(folder).samples
    return lambda: own() and total


def from_webdataset(folder: str, extension: str, workers: int) -> Run:
    torch.set_num_threads(1)
    shards = sorted(str(path) for path in Path(folder).glob("*.tar"))
    stream = webdataset.WebDataset(
        shards, shardshuffle=len(shards), seed=0, nodesplitter=webdataset.split_by_node
    ).shuffle(1000)
    pictures = (stream.decode("rgb8") if extension == "jpg" else stream.decode()).to_tuple(extension)
    batches = pictures.map(itemgetter(0)).batched(BATCH, collation_fn=np.stack)
    loader = webdataset.WebLoader(batches, batch_size=None, num_workers=workers)
    return lambda: sum(len(batch) for batch in loader)


def from_litdata(folder: str, workers: int) -> Run:
    torch.set_num_threads(1)
    from litdata import StreamingDataLoader, StreamingDataset

    class Pictures(StreamingDataset):
        def __getitem__(self, index: Any) -> np.ndarray:
            return simplejpeg.decode_jpeg(super().__getitem__(index))

    pictures = Pictures(input_dir=folder, shuffle=True, drop_last=False)
    loader = StreamingDataLoader(pictures, batch_size=BATCH, num_workers=workers)
    return lambda: sum(len(batch) for batch in loader)


def from_streaming(folder: str, workers: int) -> Run:
    torch.set_num_threads(1)
    from streaming import StreamingDataset
    from streaming.base.util import clean_stale_shared_memory

    clean_stale_shared_memory()

    class Pictures(StreamingDataset):
        def __getitem__(self, index: Any) -> np.ndarray:
            return simplejpeg.decode_jpeg(super().__getitem__(index)["jpg"])

    pictures = Pictures(local=folder, shuffle=True, batch_size=BATCH, num_canonical_nodes=1)
    loader = DataLoader(pictures, batch_size=BATCH, num_workers=workers)
    return lambda: sum(len(batch) for batch in loader)


def from_files(folder: str, workers: int) -> Run:
    torch.set_num_threads(1)

    class Pictures(Dataset[np.ndarray]):
        paths = sorted(Path(folder).iterdir())

        def __len__(self) -> int:
            return len(self.paths)

        def __getitem__(self, index: int) -> np.ndarray:
            return simplejpeg.decode_jpeg(self.paths[index].read_bytes())

    loader = DataLoader(Pictures(), batch_size=BATCH, shuffle=True, num_workers=workers)
    return lambda: sum(len(batch) for batch in loader)


def decoder_alone(here: World, url: str) -> Run:
    """The pictures of all ranks; each decodes its share."""
    pictures = list(pictures_of(url))
    size = load(url).image_size
    rows = list(np.empty((BATCH, size, size, 3), np.uint8))

    def run() -> int:
        for number, data in enumerate(pictures[here.rank :: here.ranks]):
            simplejpeg.decode_jpeg(data, "RGB", buffer=rows[number % BATCH])
        return len(pictures)

    return run


def pictures_of(url: str) -> Iterator[bytes]:
    """The encoded pictures of a dataset, in storage order."""
    for path in sorted(Path(url).glob("*.tar")):
        for found in parse_records(path.read_bytes()):
            image = found.image()
            assert image is not None
            yield bytes(image[1])


def _itself(item: bytes) -> bytes:
    return item


def write_for_webdataset(url: str, encoding: str, folder: str) -> str:
    """The same pictures in tars of webdataset's own writer, as many to a tar, adopted; the folder."""
    Path(folder).mkdir()
    per_shard = load(url).shards[0].samples
    with webdataset.ShardWriter(f"{folder}/%06d.tar", maxcount=per_shard, maxsize=1e12, verbose=0) as out:
        for number, data in enumerate(pictures_of(url)):
            out.write({"__key__": f"{number:09d}", encoding: data})
    reindex(folder)
    return folder


def write_for_peers(url: str, folder: str) -> dict[str, str]:
    """The same JPEG bytes in each peer's own format; the folder of each that can be imported."""
    made = {"files": f"{folder}/files"}
    Path(made["files"]).mkdir()
    for number, data in enumerate(pictures_of(url)):
        Path(f"{made['files']}/{number:06d}.jpg").write_bytes(data)
    if importlib.util.find_spec("litdata"):
        from litdata import optimize

        made["litdata"] = f"{folder}/litdata"
        optimize(
            _itself, list(pictures_of(url)), output_dir=made["litdata"], chunk_bytes="64MB", num_workers=1
        )
    if importlib.util.find_spec("streaming"):
        from streaming import MDSWriter

        made["mosaicml_streaming"] = f"{folder}/streaming"
        with MDSWriter(out=made["mosaicml_streaming"], columns={"jpg": "bytes"}) as out:
            for data in pictures_of(url):
                out.write({"jpg": data})
    return made


PEERS = {"litdata": from_litdata, "mosaicml_streaming": from_streaming, "files": from_files}


def compare(url: str, encoding: str, contenders: dict[str, Contender], *, repeats: int) -> None:
    """Measure all and write a line for each, and the ratios to the best of each peer."""
    with ExitStack() as stack:
        runs = {name: stack.enter_context(contender) for name, contender in contenders.items()}
        rates = interleaved(runs, repeats=repeats)
    config = {"images": load(url).samples, "size": load(url).image_size, "batch_images": BATCH}
    for name, values in rates.items():
        record("feed", f"feed/{encoding}/{name}", values, unit="images/s", config=config)
    mine = best([rates["ours_1_thread"], rates["ours_2_threads"]])  # as each peer chooses its workers
    against = {
        "webdataset": ("webdataset_0", "webdataset_2"),
        "webdataset_on_our_tars": ("webdataset_on_our_tars",),
        "best_peer": ("litdata", "mosaicml"),
        "decoder_alone": ("decoder_alone_2",),
    }
    for name, starts in against.items():
        theirs = [values for who, values in rates.items() if who.startswith(starts)]
        if theirs:
            gain = ratios(mine, best(theirs))
            record("feed", f"feed/{encoding}/ratio_to_{name}", gain, unit="ratio", config=config)
    gain = ratios(rates["ours_on_2_ranks"], rates["webdataset_on_2_ranks"])
    record("feed", f"feed/{encoding}/ratio_to_webdataset_on_2_ranks", gain, unit="ratio", config=config)
    if encoding == "jpg":
        bound = ratios(
            rates["decoder_alone_2_cores"], best([rates[f"webdataset_{n}_workers"] for n in (0, 2)])
        )
        record("feed", "feed/jpg/decoder_alone_to_webdataset", bound, unit="ratio", config=config)
    if encoding == "npy":
        one = rates["ours_1_thread"]
        record("feed", "feed/npy/images_per_second_one_core", one, unit="images/s", config=config)


def best(rows: list[list[float]]) -> list[float]:
    """The fastest of several in each round."""
    return [max(column) for column in zip(*rows, strict=True)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=20000)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for encoding in ("npy", "jpg"):
            url = f"{folder}/{encoding}"
            build(Rooms(args.images, size=args.size), url, size=args.size, encoding=encoding)
            epochs = 5 if encoding == "npy" else 1  # so that a round takes long enough to be measured
            contenders: dict[str, Contender] = {
                f"ours_{n}_thread{'s' * (n > 1)}": together(1, ours, url, n, epochs) for n in (1, 2)
            }
            own = write_for_webdataset(url, encoding, f"{folder}/webdataset_{encoding}")
            for name, where in {"webdataset": own, "webdataset_on_our_tars": url}.items():
                contenders |= {
                    f"{name}_{n}_workers": apart(from_webdataset, where, encoding, n) for n in (0, 2)
                }
            contenders["ours_2_threads_on_webdataset_tars"] = together(1, ours, own, 2, epochs)
            contenders["ours_on_2_ranks"] = together(2, ours, url, 1, epochs)
            contenders["webdataset_on_2_ranks"] = together(2, from_webdataset_on_ranks, own, encoding)
            if encoding == "jpg":
                contenders |= {f"decoder_alone_{n}_cores": together(n, decoder_alone, url) for n in (1, 2)}
                made = write_for_peers(url, folder)
                contenders |= {
                    f"{name}_{n}_workers": apart(PEERS[name], where, n)
                    for name, where in made.items()
                    for n in (0, 2)
                }
            compare(url, encoding, contenders, repeats=args.repeats)


if __name__ == "__main__":
    main()
