"""Configurations by name: `demo` is the `configs/demo.yaml` that came with this package.

In a checkout they lie in `configs/`, and an installed package has them under `share/`. Kept out: reading.
"""

import difflib
import sysconfig
from pathlib import Path

HERE = Path(__file__).resolve().parents[2] / "configs"
INSTALLED = "share/dcgan_dist/configs"
SUFFIXES = (".yaml", ".yml")


def folder() -> Path | None:
    """Where they lie; None where they did not come along."""
    schemes = dict.fromkeys([sysconfig.get_default_scheme(), sysconfig.get_preferred_scheme("user")])
    places = [HERE, *(Path(sysconfig.get_path("data", scheme)) / INSTALLED for scheme in schemes)]
    return next((place for place in places if (place / "demo.yaml").is_file()), None)


def names() -> list[str]:
    """All, such as `demo` and `ablations/recipe`."""
    place = folder()
    if place is None:
        return []
    return sorted(path.relative_to(place).with_suffix("").as_posix() for path in place.rglob("*.yaml"))


def find_config(path: str) -> Path:
    """The file at `path`, or the configuration of that name. Raises FileNotFoundError."""
    if path.endswith(SUFFIXES) or Path(path).exists():
        return Path(path)
    place, known = folder(), names()
    if place is not None and path in known:
        return place / f"{path}.yaml"
    near = difflib.get_close_matches(path, known, 1)
    hint = f"did you mean {near[0]}?" if near else f"by name there are {', '.join(known) or 'none'}"
    raise FileNotFoundError(f"no such file, and no configuration of that name; {hint}")
