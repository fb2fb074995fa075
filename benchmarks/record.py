"""One JSON line per measurement, with all that is needed to read it a year later."""

import contextlib
import json
import multiprocessing
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

HERE = Path(__file__).parent


def interleaved(
    contenders: Mapping[str, Callable[[], int]], *, repeats: int, warmups: int = 1
) -> dict[str, list[float]]:
    """Items per second of each contender, one turn each per round; a contender returns its items."""
    rates: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(warmups + repeats):
        for name, run in contenders.items():
            began = time.perf_counter()
            items = run()
            if turn >= warmups:
                rates[name].append(items / (time.perf_counter() - began))
    return rates


@contextmanager
def apart(make: Callable[..., Callable[[], int]], *args: Any) -> Iterator[Callable[[], int]]:
    """`make(*args)` in a process of its own, so that no contender's allocator or caches serve another."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    worker = context.Process(target=_serve, args=(there, make, args))  # no daemon: it may have workers
    worker.start()
    there.close()  # so that its end is seen here

    def run() -> int:
        here.send(True)
        items: int = here.recv()
        return items

    try:
        yield run
    finally:
        here.close()
        worker.join(timeout=10)
        worker.kill()


def _serve(pipe: Connection, make: Callable[..., Callable[[], int]], args: tuple[Any, ...]) -> None:
    multiprocessing.set_start_method("fork", force=True)  # for workers of its own, the default here
    run = make(*args)
    with contextlib.suppress(EOFError):
        while pipe.recv():
            pipe.send(run())


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    """Round by round, so that a drift of the machine's speed cancels."""
    return [a / b for a, b in zip(ours, theirs, strict=True)]


def record(file: str, what: str, values: Sequence[float], *, unit: str, config: Mapping[str, Any]) -> None:
    """Append the median and quartiles of `values` to benchmarks/FILE.jsonl and print them."""
    low, middle, high = statistics.quantiles(values, n=4) if len(values) > 1 else [values[0]] * 3
    line = {
        "what": what,
        "value": round(middle, 4),
        "unit": unit,
        "low": round(low, 4),
        "high": round(high, 4),
        "repeats": len(values),
        "command": " ".join(["python", "-m", *_module(), *sys.argv[1:]]),
        "config": dict(config),
        "commit": _git("rev-parse", "--short", "HEAD"),
        "dirty": bool(_git("status", "--porcelain", "--", ":!*.jsonl")),
        "date": datetime.now(UTC).date().isoformat(),
        "hardware": _hardware(),
        "capability": capability(),
        "threads": torch.get_num_threads(),
        "load": round(os.getloadavg()[0], 2),
        "versions": {name: version(name) for name in ("torch", "numpy")}
        | {"python": platform.python_version()},
    }
    with (HERE / f"{file}.jsonl").open("a", encoding="utf-8") as out:
        out.write(json.dumps(line) + "\n")
    print(f"{what:<44} {middle:12,.2f} {unit}  ({low:,.2f} to {high:,.2f}, {len(values)} rounds)", flush=True)


def _module() -> list[str]:
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    return [spec.name] if spec else sys.argv[:1]


def _git(*words: str) -> str:
    done = subprocess.run(["git", *words], cwd=HERE, capture_output=True, text=True, check=False)
    return done.stdout.strip()


def capability() -> str:
    """What torch may use of this CPU's instruction set: "AVX2", "AVX512", "AVX512 bf16" ..."""
    units = torch.cpu.get_capabilities()
    used = torch.backends.cpu.get_cpu_capability()
    bf16 = torch.ops.mkldnn._is_mkldnn_bf16_supported() and any(
        units.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16")
    )
    return used + " bf16" * bf16 + " amx" * (bf16 and bool(units.get("amx_bf16")))


def _hardware() -> str:
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    name = models[0] if models else platform.machine()
    return f"{name}, {len(models) or '?'} cores"
