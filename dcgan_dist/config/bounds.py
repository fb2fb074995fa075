"""How small and how large one setting may be, said beside its default.

Kept out: rules between settings; see `config.rules`.
"""

from dataclasses import dataclass, field, fields
from typing import Any, TypeVar

from dcgan_dist.config.reading import ConfigError

T = TypeVar("T")


@dataclass(frozen=True)
class Bound:
    """What a number must be; None is within all bounds."""

    least: float | None = None
    most: float | None = None
    more_than: float | None = None
    less_than: float | None = None

    def broken(self, value: float) -> str:
        """The rule that `value` breaks, in words; empty if none. NaN breaks those on how small it is."""
        if self.more_than is not None and not value > self.more_than:
            return f"more than {self.more_than}"
        if self.least is not None and self.less_than is not None and not self.least <= value < self.less_than:
            return f"at least {self.least} and less than {self.less_than}"
        if self.least is not None and not value >= self.least:
            return f"at least {self.least}"
        return f"at most {self.most}" if self.most is not None and value > self.most else ""


def bounded(
    default: T,
    *,
    least: float | None = None,
    most: float | None = None,
    more_than: float | None = None,
    less_than: float | None = None,
) -> T:
    """The field of a setting with its default and what it must be."""
    return field(default=default, metadata={"bound": Bound(least, most, more_than, less_than)})


def check_bounds(config: Any) -> None:
    """Every setting of a dataclass of dataclasses, in order of declaration. Raises ConfigError."""
    for group in fields(config):
        part = getattr(config, group.name)
        for item in fields(part):
            value, bound = getattr(part, item.name), item.metadata.get("bound")
            if value is not None and bound and (rule := bound.broken(value)):
                # "at least 0" says what to write instead; "more than 0" does not.
                default = str(item.default).replace("e-0", "e-")  # 1e-8, as people write it
                way_out = f"; the default is {default}" if rule.startswith("more than") else ""
                raise ConfigError(f"{group.name}.{item.name}={value} must be {rule}{way_out}")
