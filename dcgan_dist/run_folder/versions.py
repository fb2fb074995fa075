"""Which versions of this project and its libraries made what lies in a run folder."""

from importlib.metadata import version


def versions() -> dict[str, str]:
    """By package."""
    return {name: version(name) for name in ("dcgan_dist", "torch", "numpy")}
