"""`python -m dcgan_dist.chaos CONFIG`: see `kill`."""

import sys

from dcgan_dist.chaos.kill import main

if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
