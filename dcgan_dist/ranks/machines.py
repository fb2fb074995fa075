"""What a run runs on, in one line at its start and in every manifest: devices, nodes, backend, versions.

Bits differ between machines, and months later nobody remembers which one it was.
"""

import os
import socket
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import torch

from shards.machine import usable_cores
from shards.printable import printable

FEW_CORES = 4
"""A rank of a GPU launches, decodes, reads ahead and writes: with fewer it waits for itself."""
Seat = Mapping[str, str]
"""Where one rank computes: `host`, `device` (its name) and `gpu` (its uuid, or nothing)."""


def seat(device: torch.device) -> dict[str, str]:
    """This rank's."""
    name, gpu = "CPU" if device.type == "cpu" else device.type, ""
    if device.type == "cuda":
        found = torch.cuda.get_device_properties(device)
        name, gpu = found.name, str(getattr(found, "uuid", ""))
    return {"host": socket.gethostname(), "device": name, "gpu": gpu}


def crowded(seats: Sequence[Seat]) -> bool:
    """Whether two ranks compute on one GPU, which NCCL refuses: told by its uuid, for a count of visible
    GPUs says nothing where each task sees only its own."""
    gpus = [(place["host"], place["gpu"]) for place in seats if place["gpu"]]
    return len(set(gpus)) < len(gpus)


@dataclass(frozen=True)
class RunsOn:
    """All ranks' devices, and what computes on them."""

    ranks: int
    nodes: int
    devices: dict[str, int]
    backend: str
    torch: str
    cuda: str
    cudnn: str
    nccl: str
    tf32: bool
    deterministic: bool

    def facts(self) -> dict[str, object]:
        """For a manifest."""
        return asdict(self)

    def __str__(self) -> str:
        devices = ", ".join(
            f"{count} x {printable(name)}" if count > 1 or name != "CPU" else name
            for name, count in self.devices.items()
        )
        ranks = f"{self.ranks} rank{'s' * (self.ranks > 1)} on {self.nodes} node{'s' * (self.nodes > 1)}"
        parts = [f"{ranks}: {devices}", self.backend, f"torch {self.torch}"]
        if self.cuda:
            parts += [f"CUDA {self.cuda}", f"cuDNN {self.cudnn}"]
            parts += [f"NCCL {self.nccl}"] * (self.backend == "nccl")
            parts += [f"TF32 {'on' if self.tf32 else 'off'}"]
            parts += ["deterministic" if self.deterministic else "not deterministic"]
        return ", ".join(part for part in parts if part)


def runs_on(seats: Sequence[Seat], backend: str) -> RunsOn:
    """Of all `seats`; what this process computes with stands for all, whose versions are the same."""
    cuda = any(place["gpu"] for place in seats)
    nccl: tuple[int, ...] = torch.cuda.nccl.version() if cuda and backend == "nccl" else ()  # type: ignore[no-untyped-call]
    devices = Counter({place["device"]: 0 for place in seats})
    for name in {(place["host"], place["gpu"], place["device"]) for place in seats}:
        devices[name[2]] += 1
    return RunsOn(
        ranks=len(seats),
        nodes=len({place["host"] for place in seats}),
        devices=dict(devices),
        backend=backend,
        torch=torch.__version__,
        cuda=str(torch.version.cuda or torch.version.hip or "") if cuda else "",
        cudnn=str(torch.backends.cudnn.version() or "") if cuda else "",  # type: ignore[no-untyped-call]
        nccl=".".join(map(str, nccl)),
        tf32=cuda and torch.backends.cudnn.allow_tf32,
        deterministic=torch.are_deterministic_algorithms_enabled(),
    )


def shared_gpus(about: RunsOn) -> str | None:
    """What to say where ranks share GPUs; NCCL refuses that, and gloo takes the way through the host."""
    gpus = sum(about.devices.values())
    if not about.cuda or about.ranks <= gpus:
        return None
    return (
        f"{about.ranks} ranks share {gpus} GPU{'s' * (gpus > 1)}, so that gloo carries their sums through "
        "the host, slowly; start one rank for each GPU, and let each see all GPUs of its node or only its "
        "own (on Slurm --gpu-bind=none or single:1)"
    )


def share_cores(ranks_here: int) -> None:
    """Take a part of this machine's cores for this rank's own threads, where nobody said how many it has:
    no variable, and no binding to some of them."""
    told = any(name in os.environ for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"))
    cores = usable_cores()
    if told or cores < (os.cpu_count() or 1):
        return
    part = max(1, cores // ranks_here)
    if part < torch.get_num_threads():
        torch.set_num_threads(part)


def few_cores(device: torch.device, *, sharing: int = 1) -> str | None:
    """What to say where this rank of a GPU has few cores to itself, `sharing` ranks having the same ones."""
    cores = usable_cores() // sharing
    if device.type != "cuda" or cores >= FEW_CORES:
        return None
    return (
        f"a rank has {cores} CPU cores, and its GPU waits for them; give it {2 * FEW_CORES} (--cpus-per-task)"
    )
