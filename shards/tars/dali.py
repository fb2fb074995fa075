"""NVIDIA DALI's index of a webdataset tar: a text file beside it, as their wds2idx writes it (v1.2).

Kept out: reading one; verify makes it again and compares.
"""

from collections.abc import Iterable

from shards.errors import ShardsError
from shards.tars.headers import Member


def index_name(shard: str) -> str:
    """The name of the index of the tar `shard`."""
    return f"{shard.removesuffix('.tar')}.idx"


def is_index(data: bytes) -> bool:
    """Whether this is an index for DALI, of any version, or nothing."""
    return not data or data.startswith(b"v1.")


def sample_line(members: Iterable[Member], *, where: str, offset: int = 0) -> str:
    """The line of one sample, its members `offset` bytes further on in the tar.

    Raises ShardsError where a name has blanks, which end a name there.
    """
    parts = []
    for member in members:
        if len(member.name.split()) != 1:
            raise ShardsError(
                f"{where}: DALI's index cannot name {member.name!r}, which has blanks; "
                f"index it without --dali, or write the tar with other names"
            )
        extension = member.name[len(member.key) + 1 :]  # as it is written
        parts.append(f"{extension} {offset + member.body} {member.length} {member.name}")
    return " ".join(parts)


def pack(lines: list[str]) -> bytes:
    """The whole file, from the line of each sample."""
    return "".join(f"{line}\n" for line in [f"v1.2 {len(lines)}", *lines]).encode()
