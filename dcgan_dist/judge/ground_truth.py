"""What the json of pictures says, as numbers: attributes, and masks of where objects are.

`{"boxes": {"window": [l, t, r, b]}, "bright": true, "yaw": 12.5, "bed_side": "left"}` gives the attributes
`window`, `bright`, `yaw` and `bed_side=left`, and the object `window`. Labels of a sheet have the same form.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dcgan_dist.run_folder.finding import ExploreError
from shards.arrays import F32
from shards.storage import store

NOT_ATTRIBUTES = ("name", "label", "key", "boxes")
LARGEST = 1e30  # number in a json
MOST_VALUES = 8  # of a text that becomes attributes, one for each value


@dataclass(frozen=True)
class Attribute:
    """`binary` ones are 0 or 1; others any number, with their mean and standard deviation in the data."""

    name: str
    binary: bool
    mean: float = 0.0
    std: float = 1.0


@dataclass(frozen=True)
class Truth:
    """`values` (n, attributes), NaN where nothing is said."""

    attributes: tuple[Attribute, ...]
    values: F32
    objects: tuple[str, ...]
    boxes: list[dict[str, list[float]]]

    @property
    def names(self) -> list[str]:
        return [attribute.name for attribute in self.attributes]

    def column(self, name: str) -> F32:
        """All values of one attribute."""
        return self.values[:, self.names.index(name)]


def read(metas: Sequence[Mapping[str, Any]], *, where: str) -> Truth:
    """The truth of pictures with these jsons. Raises ExploreError where they say nothing, or no sense."""
    try:
        boxes = [boxes_of(meta) for meta in metas]
        objects = tuple(sorted({name for each in boxes for name in each}))
        texts = _texts(metas)
        rows = [_flatten(meta, objects, texts) for meta in metas]
    except ValueError as error:
        raise ExploreError(f"{where}: the json of a picture: {error}; give other --data") from None
    names = sorted({name for row in rows for name in row})
    if not names:
        raise ExploreError(
            f"{where}: the json of its pictures holds no attribute and no boxes; give a dataset that has "
            "them (rooms, faces, celeba) with --data, or pick by hand with --pick"
        )
    table = np.array([[row.get(name, np.nan) for name in names] for row in rows], np.float32)
    attributes = tuple(_attribute(name, table[:, i]) for i, name in enumerate(names))
    varied = [i for i, a in enumerate(attributes) if a.std > 0]
    return Truth(
        tuple(attributes[i] for i in varied),
        table[:, varied],
        objects,
        boxes,
    )


def boxes_of(meta: Mapping[str, Any]) -> dict[str, list[float]]:
    """The box of each object that `meta` names. Raises ValueError."""
    boxes = meta.get("boxes", {})
    if not isinstance(boxes, dict):
        raise ValueError(f'"boxes" is {_shown(boxes)}, not {{"name": [left, top, right, bottom], ...}}')
    found = {}
    for name, box in boxes.items():
        if not isinstance(box, list) or len(box) != 4:
            raise ValueError(f"box {name!r} is {_shown(box)}, not [left, top, right, bottom]")
        found[name] = [_number(edge, name) for edge in box]
        if not all(-1 <= edge <= 2 for edge in found[name]):
            raise ValueError(f"box {name!r} is {_shown(box)}, not in fractions of the side")
    return found


def _number(value: object, name: str) -> float:
    """Raises ValueError unless `value` is a number that can be reckoned with; NaN says nothing and may."""
    if not isinstance(value, bool | int | float) or abs(value) > LARGEST:
        raise ValueError(f"{name!r} has {_shown(value)}, not a number of at most {LARGEST:g}")
    return float(value)


def _shown(value: object) -> str:
    try:
        text = repr(value)
    except ValueError:  # Python writes no number of more than 4,300 digits
        text = "a number of thousands of digits"
    return text if len(text) <= 40 else f"{text[:40]}..."


def _attribute(name: str, column: F32) -> Attribute:
    known = column[~np.isnan(column)]
    binary = set(known.tolist()) <= {0.0, 1.0}
    mean, std = (float(of(known, dtype=np.float64)) for of in (np.mean, np.std))
    return Attribute(name, binary, mean, std)


def _texts(metas: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Texts with few values; one of two says all of the other."""
    values: dict[str, set[str]] = {}
    for meta in metas:
        for name, value in meta.items():
            if isinstance(value, str) and name not in NOT_ATTRIBUTES:
                values.setdefault(name, set()).add(value)
    few = {name: sorted(found) for name, found in values.items() if 1 < len(found) <= MOST_VALUES}
    return {name: found[:1] if len(found) == 2 else found for name, found in few.items()}


def _flatten(
    meta: Mapping[str, Any], objects: Sequence[str], texts: Mapping[str, Sequence[str]]
) -> dict[str, float]:
    row = {name: float(name in meta["boxes"]) for name in objects} if "boxes" in meta else {}
    for name, value in meta.items():
        if name in NOT_ATTRIBUTES:
            continue
        if isinstance(value, str):
            row |= {f"{name}={text}": float(value == text) for text in texts.get(name, ())}
        elif isinstance(value, bool | int | float):
            row[name] = _number(value, name)
    return row


def box_mask(boxes: Sequence[Sequence[float]], side: int) -> NDArray[np.bool_]:
    """(side, side): whether the centre of each cell lies in one of `boxes` (fractions of the side)."""
    centres = (np.arange(side) + 0.5) / side
    mask = np.zeros((side, side), np.bool_)
    for left, top, right, bottom in boxes:
        rows, columns = (centres >= top) & (centres < bottom), (centres >= left) & (centres < right)
        mask |= rows[:, None] & columns
    return mask


def read_labels(url: str) -> dict[int, dict[str, Any]]:
    """`{"17": {"glasses": 1, "boxes": {...}}, ...}`: what somebody says of pictures of a numbered sheet.

    Raises ExploreError or ShardsError.
    """
    try:
        found = json.loads(store.read_bytes(url))
        labels = {int(number): dict(meta) for number, meta in found.items()}
        for meta in labels.values():
            for box in boxes_of(meta).values():
                left, top, right, bottom = box
                if not 0 <= left < right <= 1 or not 0 <= top < bottom <= 1:
                    raise ValueError(f"box {box} is not [left, top, right, bottom] in fractions of the side")
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise ExploreError(
            f'{url} is not a file of labels ({error}); write {{"3": {{"glasses": 1}}, ...}}'
        ) from None
    return labels
