"""`python -m shards dedup`: its options, and what it prints.

Kept out: all work.
"""

import argparse
import sys
from typing import Any

from tqdm import tqdm

from shards.dataset import index as indexes
from shards.dedup.grouping import MAX_RADIUS
from shards.dedup.removed import FOLDER, undo
from shards.dedup.report import PAGE_NAME, judge
from shards.dedup.run import dedup
from shards.dedup.settings import HASHES, Settings
from shards.redact import redact
from shards.storage import store
from shards.storage.paths import add_place


def add_dedup(commands: Any) -> None:
    """The command `dedup`."""
    does = "mark duplicates in the index as removed, as the paper does; torchrun makes it parallel"
    parser = commands.add_parser("dedup", help=does, description=f"{does[0].upper()}{does[1:]}.")
    add_place(parser, "url", "URL")
    default = Settings()
    parser.add_argument("--hash", choices=HASHES, default=default.hash, help=f"(default: {default.hash})")
    for flag, value, what in (
        (
            "--radius",
            default.radius,
            f"bits that duplicates may differ in, up to {MAX_RADIUS}; the paper has 0",
        ),
        ("--epochs", default.epochs, "epochs of the autoencoder"),
        ("--train-images", default.train_images, "images it is trained on"),
    ):
        parser.add_argument(flag, metavar="N", type=int, default=value, help=f"{what} (default: {value})")
    parser.add_argument("--undo", action="store_true", help="take back all marks of this command")
    parser.add_argument(
        "--wrong", metavar="N", type=int, nargs="*", help="judge the page: the pairs that are no duplicates"
    )
    parser.set_defaults(command=_dedup)


def _dedup(options: argparse.Namespace) -> int:
    if options.undo:
        print(f"undone: {undo(options.url)} images are served again")
        return 0
    if options.wrong is not None:
        judged = judge(options.url, options.wrong)
        low, high = judged["interval"]
        print(f"precision {judged['precision']:.3f} (95 %: {low:.3f} to {high:.3f}), {judged['pairs']} pairs")
        return 0
    settings = Settings(options.hash, options.radius, options.epochs, options.train_images)
    with tqdm(
        total=indexes.load(options.url).samples, unit=" images", disable=not sys.stderr.isatty()
    ) as bar:
        done = dedup(options.url, settings, on_shard=bar.update)
    if done:
        print(f"removed: {done.removed} of {done.images} images, marked in the index; --undo takes it back")
        if done.removed:
            page = redact(store.join(options.url, FOLDER, PAGE_NAME))
            print(f"look at {page} and say which pairs are no duplicates: --wrong N N ...")
    return 0
