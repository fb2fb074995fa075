"""What the launcher tells in one line."""

from shards.errors import ToldError


class LaunchError(ToldError):
    """The job cannot be launched as asked; one line that says why, and the way out."""
