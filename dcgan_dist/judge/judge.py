"""Who says what a picture shows: a small network taught on the dataset's own labels.

It is kept as `RUN/explore/judge-net.safetensors` with what it got right on held-out real pictures, and is
judged on generated ones by people: `explore judge --labels`. What fools it fools every number.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load as parse_tensors
from safetensors.torch import save as pack_tensors
from torch import Tensor
from torch.nn import functional

from dcgan_dist.judge import ground_truth
from dcgan_dist.judge.ground_truth import Attribute, Truth, box_mask
from dcgan_dist.judge.network import JudgeNet, disturb
from dcgan_dist.run_folder import untrusted
from dcgan_dist.run_folder.finding import ExploreError, Finding, Measure, share
from dcgan_dist.run_folder.opened_run import Subject, to_tensor
from dcgan_dist.run_folder.untrusted import WRONG, finite, typed
from dcgan_dist.seeds import seed_for
from shards import ShardsError
from shards.arrays import U8
from shards.redact import redact
from shards.storage import store

MOST_IMAGES = 8000
HELD_OUT = 6  # one picture in so many
EPOCHS = 4
BATCH = 64
RATE = 3e-3


@dataclass(frozen=True)
class Judge:
    """Says of each picture its attributes, and where objects are."""

    net: JudgeNet
    attributes: tuple[Attribute, ...]
    objects: tuple[str, ...]
    held_out: dict[str, tuple[float, int]]
    """By attribute: of how many held-out real pictures it is right, or the mean absolute error."""

    @property
    def kinds(self) -> dict[str, bool]:
        """Whether each attribute is binary."""
        return {attribute.name: attribute.binary for attribute in self.attributes}

    @torch.no_grad()
    def values(self, images: U8) -> dict[str, NDArray[np.float32]]:
        """By attribute: probabilities of binary ones, the others in the data's own unit."""
        parts = [self.net(part)[0] for part in torch.split(to_tensor(images), 256)]
        return _values(torch.cat(parts), self.attributes)

    @torch.no_grad()
    def boxes(self, images: U8, name: str) -> list[list[float] | None]:
        """Where the object is in each picture that has it, in fractions of the side."""
        if name not in self.objects:
            known = ", ".join(self.objects) or "none"
            raise ExploreError(f"no object {name!r} in the boxes of the data; there are: {known}")
        number = self.objects.index(name)
        found: list[list[float] | None] = []
        for part in torch.split(to_tensor(images), 256):
            table, masks = self.net(part)
            there = _values(table, self.attributes)[name] > 0.5
            inside = (masks[:, number] > 0).numpy()
            found += [box_of(mask) if t else None for mask, t in zip(inside, there, strict=True)]
        return found


def box_of(mask: NDArray[np.bool_]) -> list[float] | None:
    """The box around all cells of a square mask, in fractions of its side; None without any."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return None
    edges = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
    return [float(edge) / len(mask) for edge in edges]


def _values(table: Tensor, attributes: Sequence[Attribute]) -> dict[str, NDArray[np.float32]]:
    columns = {}
    for i, a in enumerate(attributes):
        column = table[:, i].sigmoid() if a.binary else table[:, i] * a.std + a.mean
        columns[a.name] = column.numpy()
    return columns


def teach(images: U8, told: Truth, *, seed: int = 0, epochs: int = EPOCHS) -> Judge:
    """A judge from pictures and their truth; every sixth picture is held out to judge the judge."""
    held = np.arange(len(images)) % HELD_OUT == 0
    torch.manual_seed(seed_for(seed, "judge"))
    net = JudgeNet(len(told.attributes), len(told.objects))
    wanted, masks = _targets(told, images.shape[1] // 2)
    _fit(net, images[~held], wanted[~held], masks[~held], told, seed=seed, epochs=epochs)
    net.eval().requires_grad_(False)
    judge = Judge(net, told.attributes, told.objects, {})
    judge.held_out.update(accuracy(judge, images[held], told, np.flatnonzero(held)))
    return judge


def _targets(told: Truth, side: int) -> tuple[Tensor, Tensor]:
    """Attributes (n, a), numbers standardised, and masks (n, objects, side, side) as bytes."""
    mean = np.array([0.0 if a.binary else a.mean for a in told.attributes], np.float32)
    std = np.array([1.0 if a.binary else a.std for a in told.attributes], np.float32)
    masks = np.zeros((len(told.boxes), max(1, len(told.objects)), side, side), np.uint8)
    for row, boxes in zip(masks, told.boxes, strict=True):
        for i, name in enumerate(told.objects):
            row[i] = box_mask([boxes[name]] if name in boxes else [], side)
    return torch.from_numpy((told.values - mean) / std), torch.from_numpy(masks)


def _fit(
    net: JudgeNet, images: U8, wanted: Tensor, masks: Tensor, told: Truth, *, seed: int, epochs: int
) -> None:
    draw = torch.Generator().manual_seed(seed_for(seed, "judge/order"))
    steps = epochs * max(1, len(images) // BATCH)
    optim = torch.optim.AdamW(net.parameters(), lr=RATE, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optim, RATE, total_steps=steps)
    binary = torch.tensor([a.binary for a in told.attributes])
    net.train()
    for step in range(steps):
        if step % max(1, steps // epochs) == 0:
            order = torch.randperm(len(images), generator=draw)
        start = step % max(1, steps // epochs) * BATCH
        rows = order[start : start + BATCH]
        table, drawn = net(disturb(to_tensor(images[rows.numpy()]), draw))
        loss = _attribute_loss(table, wanted[rows], binary)
        if told.objects:
            loss = loss + functional.binary_cross_entropy_with_logits(drawn, masks[rows].float())
        optim.zero_grad()
        torch.autograd.backward(loss)
        optim.step()
        schedule.step()


def _attribute_loss(table: Tensor, wanted: Tensor, binary: Tensor) -> Tensor:
    """Cross-entropy of binary attributes and squared error of numbers, over what is known."""
    known = ~wanted.isnan()
    target = wanted.nan_to_num()
    errors = torch.where(
        binary,
        functional.binary_cross_entropy_with_logits(table, target.clamp(0, 1), reduction="none"),
        (table - target) ** 2,
    )
    return (errors * known).sum() / known.sum().clamp(min=1) * table.shape[1]


def accuracy(judge: Judge, images: U8, told: Truth, rows: NDArray[np.int64]) -> dict[str, tuple[float, int]]:
    """By attribute of `told`: the share judged right, or the mean absolute error; and of how many."""
    values, found = judge.values(images), {}
    for name, binary in judge.kinds.items():
        if name not in told.names:
            continue
        wanted = told.column(name)[rows]
        known = ~np.isnan(wanted)
        if binary:
            right = (values[name] > 0.5) == (wanted > 0.5)
            found[name] = float(right[known].mean()), int(known.sum())
        else:
            found[name] = float(np.abs(values[name] - wanted)[known].mean()), int(known.sum())
    return found


def judge_of(subject: Subject) -> Judge:
    """The run's judge, taught now if it has none for these data."""
    url = store.join(untrusted.folder(subject.run, "explore"), "judge-net")
    about = {
        "data": redact(subject.data),
        "source": subject.index.source,
        "images": subject.index.kept,
        "taught_on": "a fair sample",
    }
    if store.exists(f"{url}.json") and (found := _load(subject.run, about)) is not None:
        return found
    images, metas = subject.truth(MOST_IMAGES)
    judge = teach(images, ground_truth.read(metas, where=subject.data), seed=subject.seed)
    store.make_folder(store.join(subject.run, "explore"))
    store.write_bytes(f"{url}.safetensors", pack_tensors(dict(judge.net.state_dict())))
    facts = {
        "about": about,
        "attributes": [asdict(a) for a in judge.attributes],
        "objects": judge.objects,
        "held_out": judge.held_out,
    }
    store.write_bytes(f"{url}.json", json.dumps(facts, indent=1).encode())
    return judge


def _load(run: str, about: dict[str, Any]) -> Judge | None:
    """The kept judge; None when it was taught on other data. Raises ExploreError when it is damaged."""
    url = store.join(run, "explore", "judge-net")
    try:
        facts = json.loads(untrusted.read(run, "explore", "judge-net.json"))
        if facts["about"] != about:
            return None
        attributes = tuple(_attribute(a) for a in facts["attributes"])
        net = JudgeNet(len(attributes), len(facts["objects"]))
        net.load_state_dict(parse_tensors(untrusted.read(run, "explore", "judge-net.safetensors")))
        held_out = {name: (float(value), int(count)) for name, (value, count) in facts["held_out"].items()}
        return Judge(net.eval().requires_grad_(False), attributes, tuple(facts["objects"]), held_out)
    except ShardsError:
        raise
    except (*WRONG, RuntimeError, SafetensorError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ExploreError(
            f"{url}.json is damaged ({reason}); delete it, and the judge is taught anew"
        ) from None


def _attribute(told: dict[str, Any]) -> Attribute:
    mean, std = (finite(told[key]) or 0.0 for key in ("mean", "std"))
    return Attribute(typed(told["name"], str), typed(told["binary"], bool), mean, std)


def explore(subject: Subject, *, labels: str | None = None, sheet: U8) -> Finding:
    """What the judge gets right on held-out real pictures and, with `labels`, on the generated `sheet`."""
    judge = judge_of(subject)
    measures = _measures("held-out real", judge, judge.held_out)
    notes = [f"Taught on {min(MOST_IMAGES, subject.index.kept)} pictures of {subject.data}."]
    if labels is None:
        notes.append("Not yet judged on generated pictures: label some of the sheet and give --labels.")
    else:
        said = ground_truth.read_labels(labels)
        rows = [number for number in said if 0 <= number < len(sheet)]
        told = ground_truth.read([said[number] for number in rows], where=labels)
        found = accuracy(judge, sheet[rows], told, np.arange(len(rows)))
        measures += _measures("generated, labelled by hand", judge, found)
    return Finding("judge", "The judge", "none: the paper judges by eye", measures, notes)


def _measures(where: str, judge: Judge, found: dict[str, tuple[float, int]]) -> list[Measure]:
    measures = []
    for name, (value, count) in found.items():
        if judge.kinds[name]:
            measures.append(share(f"{name}, right, {where} ({count})", round(value * count), count))
        else:
            measures.append(Measure(f"{name}, mean error, {where} ({count})", value))
    return measures
