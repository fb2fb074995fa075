"""The command line: build, index, verify, info, cat, cp, bench, dedup.

Wrong input is one line on stderr and exit status 2. Kept out: all work; each command calls one function of
the package.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from functools import partial
from typing import Any, NoReturn

from tqdm import tqdm

from shards.building.build import QUALITY, SHARD_IMAGES, build, find_built, plan_cut, take_built
from shards.building.cut import Cut
from shards.building.failures import FEW, MAX_BAD, bad_allowed
from shards.building.left_out import print_failures, print_passed
from shards.building.parts import build_part, merge
from shards.building.report import has_sheet, write_sheet
from shards.command import command as as_command
from shards.command import part
from shards.dataset import bench_report
from shards.dataset import index as indexes
from shards.dataset.adopt import reindex
from shards.dataset.bench import bench
from shards.dataset.copy import THREADS, copy
from shards.dataset.describe import describe, read_sample
from shards.dataset.overwrite import check_apart
from shards.dataset.passed_over import Passed
from shards.dataset.verify import verify
from shards.dedup.arguments import add_dedup
from shards.errors import ShardsError
from shards.pictures.codec import encode
from shards.pictures.cv2_resize import WAYS
from shards.printable import printable
from shards.redact import redact
from shards.sources.arguments import add_sources
from shards.sources.base import Source, passed_over
from shards.sources.shuffled import Shuffled
from shards.storage import store
from shards.storage.paths import add_place, argument
from shards.tars.records import ENCODINGS


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    return _run(sys.argv[1:] if arguments is None else arguments)


@partial(as_command, hide_output=False)  # of `cat`, whose JSON is data
def _run(arguments: Sequence[str]) -> int:
    options = _parser().parse_args(arguments)
    return int(options.command(options))


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="python -m shards", description="Image datasets as plain tar shards with an index.")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_build(commands.add_parser("build", help="make a dataset", description="Make a dataset."))
    for name, command, does in (
        ("index", _index, "write the index of tars that have none, by one pass over them"),
        ("verify", _verify, "read everything back and list what is damaged; exit status 1 if anything is"),
        ("info", _info, "tell what a dataset holds"),
        ("cat", _cat, "write one sample as PNG and print its JSON"),
    ):
        sub = commands.add_parser(name, help=does, description=f"{does[0].upper()}{does[1:]}.")
        add_place(sub, "url", "URL")
        sub.set_defaults(command=command)
        if name == "index":
            _whole(sub, "--block-images", "images per block", shown="as before, or 256 KiB of pixels")
            sub.add_argument(
                "--samples", action="store_true", help="of any files, for your own training loop"
            )
            sub.add_argument("--out", metavar="INDEX", type=argument, help="place for it (default: URL)")
            sub.add_argument("--dali", action="store_true", help="also write NVIDIA DALI's .idx of each tar")
            sub.add_argument("--overwrite", action="store_true", help="though a damaged one's marks are lost")
        elif name == "verify":
            sub.add_argument("--decode", action="store_true", help="decode every picture too")
        elif name == "cat":
            sub.add_argument("sample", metavar="N", type=int, help="its position in the dataset, from 0")
            sub.add_argument("--out", metavar="FILE", type=argument, help="or URL (default: sample-N.png)")
    _add_copy(commands)
    _add_bench(commands)
    add_dedup(commands)
    return parser


def _add_copy(commands: Any) -> None:
    does = "copy a dataset to another place, every byte checked; the same command again goes on"
    sub = commands.add_parser("cp", help=does, description=f"{does[0].upper()}{does[1:]}.")
    add_place(sub, "url", "SRC")
    add_place(sub, "out", "DST", "where to")
    sub.add_argument("--fast", action="store_true", help="trust what is there by its length, unread")
    sub.add_argument("--overwrite", action="store_true", help="replace the dataset that is there")
    _whole(sub, "--threads", "shards under way at once", default=THREADS)
    sub.set_defaults(command=_copy)


def _add_bench(commands: Any) -> None:
    does = "measure how many images a second this machine gets, and what limits it"
    sub = commands.add_parser("bench", help=does, description=f"{does[0].upper()}{does[1:]}.")
    add_place(sub, "url", "URL")
    sub.add_argument("--seconds", metavar="S", type=float, default=10.0, help="how long (default: 10)")
    _whole(sub, "--requests", "reads in flight, of remote storage", default=16)
    _whole(sub, "--threads", "decoding threads, which read local files too", default=2)
    sub.set_defaults(command=_bench)


def _add_build(parser: argparse.ArgumentParser) -> None:
    sources = parser.add_subparsers(title="sources", metavar="SOURCE", required=True)
    for source in add_sources(sources):
        add_place(source, "out", "OUT", "where to")
        source.set_defaults(command=_build)
        _add_cut(source)


def _add_cut(parser: argparse.ArgumentParser) -> None:
    _whole(parser, "--size", "side of the square pictures, in pixels, 4 to 1024", default=64)
    how = "how pictures are stored (default: npy, the fastest)"
    parser.add_argument("--encoding", choices=ENCODINGS, default="npy", help=how)
    parser.add_argument(
        "--resize",
        choices=WAYS,
        default=WAYS[0],
        help="how they shrink (default: area; the authors: cv2_linear)",
    )
    _whole(parser, "--shuffle", "shuffle all pictures by this seed", shown="in the source's order")
    _whole(parser, "--quality", "of jpg and webp, 1 to 100", default=QUALITY)
    _whole(parser, "--shard-images", "images per shard", shown=f"{SHARD_IMAGES}, or 512 MiB of pixels")
    _whole(parser, "--block-images", "images per block, the unit of reading", shown="256 KiB of pixels")
    _whole(parser, "--workers", "processes", shown="one per CPU")
    parser.add_argument("--overwrite", action="store_true", help="replace the dataset that is there")
    parser.add_argument(
        "--max-bad",
        metavar="SHARE",
        type=float,
        help=f"stop where more of the pictures cannot be used (default: {MAX_BAD}, or {FEW} of a small set)",
    )
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--part", metavar="I/N", type=part, help="build the I-th of N parts only, from 1")
    which.add_argument("--merge", metavar="N", type=int, help="make the dataset of N parts that are built")


def _whole(
    parser: argparse.ArgumentParser, flag: str, does: str, *, default: int | None = None, shown: str = ""
) -> None:
    """An option that is a whole number."""
    parser.add_argument(
        flag, metavar="N", type=int, default=default, help=f"{does} (default: {shown or default})"
    )


class _Parser(argparse.ArgumentParser):
    """Errors of argparse in the form of all others: one line, and where to read on."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message}; see {self.prog} --help\n")


def check_build(words: Sequence[str]) -> None:
    """Check what stands behind `python -m shards build` before a job does it. Raises ShardsError."""
    options = _parser().parse_args(["build", *words])
    if options.part or options.merge or options.overwrite:
        raise ShardsError(
            "--part and --merge are the launcher's, and --overwrite is not for parts; leave them out"
        )
    cut = plan_cut(**_cut_settings(options))
    bad_allowed(1, options.max_bad)
    find_built(_source(options), options.out, cut)


def _cut_settings(options: argparse.Namespace) -> dict[str, Any]:
    return {
        "size": options.size,
        "encoding": options.encoding,
        "quality": options.quality,
        "shard_images": options.shard_images,
        "block_samples": options.block_images,
        "resize": options.resize,
    }


def _build(options: argparse.Namespace) -> int:
    settings = _cut_settings(options)
    cut = plan_cut(**settings)
    bad_allowed(1, options.max_bad)
    source = _source(options)
    if options.part or options.merge is not None:
        return _build_parts(options, source, cut)
    if not options.overwrite and (found := take_built(source, options.out, cut)):
        if not has_sheet(options.out):  # of a build that was stopped between index and sheet
            write_sheet(options.out, found, missing=True, passed_over=passed_over(source).counts)
        print(f"already built: {found.samples} images in {_named(options.out)}")
        return 0
    index = build(
        source,
        options.out,
        **settings,
        workers=options.workers,
        overwrite=options.overwrite,
        progress=True,
        max_bad=options.max_bad,
        on_failures=print_failures,
    )
    _print_built(options, source, index)
    return 0


def _source(options: argparse.Namespace) -> Source:
    if "input" in options:
        check_apart(options.input, options.out)
    source: Source = options.source(options)
    return source if options.shuffle is None else Shuffled(source, options.shuffle)


def _build_parts(options: argparse.Namespace, source: Source, cut: Cut) -> int:
    if options.overwrite:
        raise ShardsError(
            "--overwrite is not for parts, which do not know of each other; remove the dataset first"
        )
    if options.merge is not None:
        index = merge(
            source,
            options.out,
            cut,
            parts=options.merge,
            max_bad=options.max_bad,
            on_failures=print_failures,
        )
        _print_built(options, source, index)
        return 0
    part, parts = options.part
    built = build_part(
        source,
        options.out,
        cut,
        part=part,
        parts=parts,
        workers=options.workers,
        progress=True,
        max_bad=options.max_bad,
    )
    print(f"built: part {part} of {parts}, {built} shards in {_named(options.out)}")
    return 0


def _print_built(options: argparse.Namespace, source: Source, index: indexes.Index) -> None:
    passed = passed_over(source)
    write_sheet(options.out, index, passed_over=passed.counts)
    print_passed(passed)
    print(
        f"built: {index.samples} images, {len(index.shards)} shards ({index.bytes:,} bytes) "
        f"in {_named(options.out)}"
    )


def _named(url: str) -> str:
    return printable(redact(url))


def _index(options: argparse.Namespace) -> int:
    passed = Passed()
    with tqdm(unit=" images", disable=not sys.stderr.isatty()) as bar:
        index = reindex(
            options.url,
            block_samples=options.block_images,
            dali=options.dali,
            overwrite=options.overwrite,
            samples=options.samples,
            out_url=options.out,
            on_shard=lambda shard: bar.update(shard.samples),
            on_passed_over=passed.join,
        )
    print_passed(passed)
    kind = "samples" if options.samples else "images"
    print(f"indexed: {index.samples} {kind} in {len(index.shards)} shards")
    return 0


def _verify(options: argparse.Namespace) -> int:
    index = indexes.load(options.url, pictures=False)
    problems = 0
    with tqdm(total=index.samples, unit=" images", disable=not sys.stderr.isatty()) as bar:
        for line in verify(
            options.url, decode=options.decode, on_shard=lambda shard: bar.update(shard.samples)
        ):
            problems += 1
            bar.write(printable(line))
    print(f"{'damaged' if problems else 'whole'}: {index.samples} images, {problems} problems")
    return 1 if problems else 0


def _copy(options: argparse.Namespace) -> int:
    hidden = not sys.stderr.isatty()
    with tqdm(unit="B", unit_scale=True, disable=hidden) as bar:
        copied = copy(
            options.url,
            options.out,
            threads=options.threads,
            fast=options.fast,
            overwrite=options.overwrite,
            on_shard=lambda shard: bar.update(shard.bytes),
        )
    print(f"copied: {copied.shards} shards ({copied.bytes:,} bytes), {copied.kept} already there")
    return 0


def _bench(options: argparse.Namespace) -> int:
    report = bench(options.url, seconds=options.seconds, requests=options.requests, threads=options.threads)
    print("\n".join(bench_report.lines(report)))
    return 0


def _info(options: argparse.Namespace) -> int:
    print(redact(describe(options.url, indexes.load(options.url, pictures=False))))
    return 0


def _cat(options: argparse.Namespace) -> int:
    pixels, meta = read_sample(options.url, indexes.load(options.url), position=options.sample)
    store.write_bytes(options.out or f"sample-{options.sample}.png", encode(pixels, "png"))
    print(_printable(meta))
    return 0


def _printable(meta: dict[str, Any]) -> str:
    try:
        text = json.dumps(meta, sort_keys=True, ensure_ascii=False)
    except RecursionError as error:
        raise ShardsError("the JSON of this sample is nested too deeply to be printed") from error
    # The escapes of JSON, so that it stays JSON.
    return "".join(sign if sign.isprintable() else json.dumps(sign)[1:-1] for sign in text)


def entry() -> NoReturn:
    """The console command `shards`."""
    raise SystemExit(main())


if __name__ == "__main__":
    entry()
