"""Any local tree of pictures, sorted by path; the first folder below the top is the class.

Kept out: decoding; a file that is no picture is found out and counted by the build.
"""

import hashlib
import os
from pathlib import Path
from typing import Any

from shards.errors import ImageError, ShardsError
from shards.format import compact_json, meta_json
from shards.place import holds_dataset
from shards.sources import Item

EXTENSIONS = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"}
MAX_FILE_BYTES = 2**28
"""A larger file is refused before it is read."""


class Folder:
    """The pictures below `path`; hidden files, links to folders and datasets of ours are passed by."""

    def __init__(self, path: str) -> None:
        self._top = Path(path)
        if not self._top.is_dir():
            raise ShardsError(f"{path} is not a folder; give the folder that holds the pictures")
        if holds_dataset(self._top):
            raise ShardsError(
                f"{path} is a dataset of ours; to cut it anew: python -m shards build webdataset {path} OUT"
            )
        found = sorted(_walk(self._top))
        if not found:
            known = " ".join(sorted(extension[1:] for extension in EXTENSIONS))
            raise ShardsError(f"{path} holds no pictures ({known}); give the folder that holds them")
        self._names = tuple(name for name, _ in found)
        self._listing = hashlib.sha256(compact_json(found)).hexdigest()
        self.classes = tuple(sorted({name.split("/")[0] for name in self._names if "/" in name}))
        self._labels = {name: label for label, name in enumerate(self.classes)}
        self.meta_bytes = max(
            len(meta_json({"label": len(self.classes), "name": name})) for name in self._names
        )

    @property
    def samples(self) -> int:
        """The number of files."""
        return len(self._names)

    def settings(self) -> dict[str, Any]:
        """The names and lengths of all files, as one checksum; not where the folder lies."""
        return {"source": "folder", "images": self.samples, "listing_sha256": self._listing}

    def item(self, position: int) -> Item:
        """The bytes of the file at `position`; no label where it lies at the top."""
        name = self._names[position]
        path = self._top / name
        if path.stat().st_size > MAX_FILE_BYTES:
            raise ImageError(f"the file has over {MAX_FILE_BYTES} bytes", "too large")
        return Item(name, path.read_bytes(), self._labels.get(name.split("/")[0]) if "/" in name else None)


def _walk(top: Path) -> list[tuple[str, int]]:
    """The path below `top`, with `/`, and the bytes of each picture file."""
    found = []
    for folder, folders, files in os.walk(top):
        folders[:] = [
            name for name in folders if not name.startswith(".") and not holds_dataset(Path(folder) / name)
        ]
        for name in files:
            path = Path(folder) / name
            if path.suffix.lower() in EXTENSIONS and not name.startswith(".") and path.is_file():
                found.append((path.relative_to(top).as_posix(), path.stat().st_size))
    return found
