"""`python -m dcgan_dist.config FILE --SETTING VALUE`: a configuration checked and printed, without torch."""

import sys

from dcgan_dist.config.settings import main

if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
