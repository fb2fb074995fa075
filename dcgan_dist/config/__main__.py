"""`python -m dcgan_dist.config FILE --SETTING VALUE`: a configuration checked and printed, without torch."""

import argparse
import sys
from collections.abc import Sequence

from dcgan_dist.config.rules import check, check_data, total_steps
from dcgan_dist.config.settings import dump, read_config
from shards.command import command


@command
def main(argv: Sequence[str]) -> int:
    """`python -m dcgan_dist.config`: print the effective settings of a run, and whether they hold."""
    front = argparse.ArgumentParser("python -m dcgan_dist.config", add_help=False, allow_abbrev=False)
    front.add_argument("--ranks", type=int, default=1)
    front.add_argument("--skip-data", action="store_true")
    own, rest = front.parse_known_args(argv)
    if {"-h", "--help"} & set(argv):
        print("--ranks N: check for that many ranks; --skip-data: do not look at the dataset\n")
    config = read_config(rest, "python -m dcgan_dist.config")
    check(config, ranks=own.ranks)
    index = None if own.skip_data else check_data(config)
    steps = f", {total_steps(config, index):,} steps on {index.kept:,} pictures" if index else ""
    print(dump(config), end="")
    print(f"# valid for {own.ranks} ranks of {config.data.batch_images // own.ranks} images each{steps}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
