"""Samples that show a concept: picked by hand from a numbered sheet, by a file of labels, or by the judge."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from torch import Tensor

from dcgan_dist import pictures
from dcgan_dist.judge import ground_truth
from dcgan_dist.judge.concept import Concept, parse
from dcgan_dist.judge.judge import Judge, judge_of
from dcgan_dist.run_folder.finding import ExploreError
from dcgan_dist.run_folder.opened_run import Subject
from shards.arrays import U8

SHEET = 150
POOL = 4000
ENOUGH = 30


@dataclass(frozen=True)
class Exemplars:
    """z of the samples of each concept, (n, z_size); and, where concepts were given, the judge."""

    z: dict[str, Tensor]
    concepts: dict[str, Concept]
    judge: Judge | None


def sheet(subject: Subject) -> U8:
    """The numbered samples, uint8 (150, S, S, 3)."""
    return subject.draw(subject.noise(SHEET, "sheet"))


def numbered(images: U8, *, columns: int = 15, scale: int = 3) -> bytes:
    """A grid with each picture's number above it, as PNG."""
    side, line = images.shape[1] * scale, 12
    rows = -(-len(images) // columns)
    page = Image.new("RGB", (columns * (side + 2), rows * (side + line)), "white")
    ink = ImageDraw.Draw(page)
    for number, picture in enumerate(images):
        x, y = number % columns * (side + 2), number // columns * (side + line)
        ink.text((x, y), str(number), fill="black")
        large = Image.fromarray(picture).resize((side, side), Image.Resampling.NEAREST)
        page.paste(large, (x, y + line))
    return pictures.png(np.asarray(page))


def by_hand(subject: Subject, picks: Mapping[str, str]) -> Exemplars:
    """`{"a": "3,17,42"}`: numbers of the sheet. Raises ExploreError."""
    z = subject.noise(SHEET, "sheet")
    return Exemplars({name: z[_numbers(text)] for name, text in picks.items()}, {}, None)


def _numbers(text: str) -> list[int]:
    try:
        found = [int(word) for word in text.split(",")]
    except ValueError:
        raise ExploreError(f"{text!r} is not a list of numbers like 3,17,42") from None
    for number in found:
        if not 0 <= number < SHEET:
            raise ExploreError(f"number {number} is not on the sheet, which has 0 to {SHEET - 1}")
    return found


def by_labels(subject: Subject, labels: str, concepts: Mapping[str, str]) -> Exemplars:
    """Samples of the sheet that a file of labels says show each concept; at least one each."""
    said = {n: meta for n, meta in ground_truth.read_labels(labels).items() if 0 <= n < SHEET}
    told = ground_truth.read(list(said.values()), where=labels)
    kinds = {a.name: a.binary for a in told.attributes}
    read = {name: parse(text, kinds) for name, text in concepts.items()}
    z = subject.noise(SHEET, "sheet")[list(said)]
    values = {name: told.column(name) for name in told.names}
    return Exemplars(_select(z, values, read, least=1), read, None)


def by_judge(subject: Subject, concepts: Mapping[str, str]) -> Exemplars:
    """Of 4,000 samples those that the judge says show each concept; at least 30 each."""
    judge = judge_of(subject)
    read = {name: parse(text, judge.kinds) for name, text in concepts.items()}
    z = subject.noise(POOL, "pool")
    return Exemplars(_select(z, judge.values(subject.draw(z)), read, least=ENOUGH), read, judge)


def _select(
    z: Tensor, values: dict[str, NDArray[np.float32]], concepts: Mapping[str, Concept], *, least: int
) -> dict[str, Tensor]:
    found = {}
    for name, concept in concepts.items():
        rows = np.flatnonzero(concept.holds(values))
        if len(rows) < least:
            raise ExploreError(
                f"only {len(rows)} of {len(z)} samples show {concept}, {least} are needed; ask for something "
                "more common"
            )
        found[name] = z[rows]
    return found


def choose(
    subject: Subject, *, picks: Mapping[str, str], labels: str | None, concepts: Mapping[str, str]
) -> Exemplars:
    """By hand if anything is picked, by labels if there are any, else by the judge."""
    if picks:
        missing = [name for name in concepts if name not in picks]
        if missing or len(picks) > len(concepts):
            raise ExploreError(f"--pick wants {', '.join(f'{name}=3,17,42' for name in concepts)}")
        return by_hand(subject, picks)
    return by_labels(subject, labels, concepts) if labels else by_judge(subject, concepts)


def first_known(defaults: list[dict[str, str]], subject: Subject) -> dict[str, str]:
    """The first of `defaults` whose attributes all occur in the data. Raises ExploreError."""
    kinds = judge_of(subject).kinds
    for concepts in defaults:
        try:
            for text in concepts.values():
                parse(text, kinds)
        except ExploreError:
            continue
        return concepts
    names = ", ".join(f"--{name}" for name in defaults[0])
    raise ExploreError(f"say which concepts with {names}; attributes there are: {', '.join(sorted(kinds))}")


def metas_of(labels: str | None) -> dict[int, dict[str, Any]] | None:
    """A file of labels, if one was given."""
    return ground_truth.read_labels(labels) if labels else None
