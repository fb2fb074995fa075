"""Who started this process, noted before torch takes its time to be imported; see `ranks.world`."""

import os

BORN = os.getpid(), os.getppid()
"""This process and its parent."""
