"""Any local tree of pictures, sorted by path; the first folder below the top is the class.

Kept out: decoding; a file that is no picture is found out and counted by the build.
"""

import hashlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from stat import S_ISREG
from typing import Any, NoReturn

from shards.dataset.overwrite import holds_dataset
from shards.dataset.passed_over import Passed
from shards.errors import ImageError, ShardsError
from shards.pictures.formats import MARK_BYTES, format_of
from shards.printable import storable
from shards.sources.base import Item
from shards.tars.records import compact_json, meta_json

EXTENSIONS = {
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".mpo", ".png", ".apng", ".webp", ".bmp", ".dib", ".gif"),
    *(".tif", ".tiff"),
}
MAX_FILE_BYTES = 2**28
"""A larger file is refused before it is read."""


class Folder:
    """The pictures below `path`; all else, such as links to folders and datasets of ours, is counted by kind.

    Names that are not UTF-8 are kept with escapes.
    """

    def __init__(self, path: str) -> None:
        self._top = Path(path)
        if not self._top.is_dir():
            raise ShardsError(f"{path} is not a folder; give the folder that holds the pictures")
        if holds_dataset(self._top):
            raise ShardsError(
                f"{path} is a dataset of ours; to cut it anew: python -m shards build webdataset {path} OUT"
            )
        self.passed_over = Passed()
        found = sorted(_walk(self._top, self.passed_over))
        if not found:
            known = " ".join(sorted(extension[1:] for extension in EXTENSIONS))
            seen = f"passed over: {self.passed_over.told(examples=True)}; " if self.passed_over.counts else ""
            raise ShardsError(f"{path} holds no pictures ({known}); {seen}give the folder that holds them")
        self._paths = tuple(path for path, _ in found)
        listing = compact_json([(storable(path), size) for path, size in found])
        self._listing = hashlib.sha256(listing).hexdigest()
        folders = sorted({path.split("/")[0] for path in self._paths if "/" in path})
        self.classes = tuple(map(storable, folders))
        self._labels = {folder: label for label, folder in enumerate(folders)}
        self.meta_bytes = max(
            len(meta_json({"label": len(folders), "name": storable(path)})) for path in self._paths
        )

    @property
    def samples(self) -> int:
        """The number of files."""
        return len(self._paths)

    def settings(self) -> dict[str, Any]:
        """The names and lengths of all files, as one checksum; not where the folder lies."""
        return {"source": "folder", "images": self.samples, "listing_sha256": self._listing}

    def item(self, position: int) -> Item:
        """The bytes of the file at `position`; no label where it lies at the top."""
        below = self._paths[position]
        path = self._top / below
        if path.stat().st_size > MAX_FILE_BYTES:
            raise ImageError(f"the file has over {MAX_FILE_BYTES} bytes", "too large")
        label = self._labels[below.split("/")[0]] if "/" in below else None
        return Item(storable(below), path.read_bytes(), label)


def _walk(top: Path, passed: Passed) -> Iterator[tuple[str, int]]:
    """The path below `top`, with `/`, and the bytes of each picture file."""
    for folder, folders, files in os.walk(top, onerror=_stop):
        below = Path(folder).relative_to(top)
        kept = []
        for name in folders:
            if other := _other_folder(Path(folder) / name):
                passed.add(other, str(below / name))
            else:
                kept.append(name)
        folders[:] = kept
        for name in files:
            found = _look(Path(folder) / name)
            if isinstance(found, int):
                yield (below / name).as_posix(), found
            else:
                passed.add(found, str(below / name))


def _other_folder(path: Path) -> str | None:
    """What a folder is that is not entered."""
    if path.is_symlink():
        return "linked folder"
    if path.name.startswith("."):
        return "hidden folder"
    return "dataset of ours" if holds_dataset(path) else None


def _look(path: Path) -> int | str:
    """The bytes of a picture file, or what else it is. Only files without an extension are opened."""
    kind = path.suffix.lower()
    if path.name.startswith("."):
        return "hidden file"
    if kind and kind not in EXTENSIONS:
        return kind if re.fullmatch(r"\.[a-z0-9_+-]{1,10}", kind) else "file of another kind"
    try:
        found = path.stat()
        if not S_ISREG(found.st_mode):
            return "special file"
        if not kind:
            with path.open("rb") as file:
                return found.st_size if format_of(file.read(MARK_BYTES)) else "file without extension"
    except OSError as error:
        if path.is_symlink():
            return "broken link"
        _stop(error)
    return found.st_size


def _stop(error: OSError) -> NoReturn:
    raise ShardsError(f"{error.filename} cannot be read ({error.strerror}); mend that first") from error
