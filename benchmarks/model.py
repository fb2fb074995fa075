"""docs/scaling.md: the time of a step on 1 to 512 GPUs, from counted work and stated figures of a machine.

Counted: multiplications of the networks, weights, collectives of a step (`benchmarks.scaling` counts the same
on real ranks). Stated, not measured here: the figures of `Machine`. Change them to those of your cluster.
"""

from dataclasses import dataclass
from itertools import pairwise
from math import ceil, log2
from pathlib import Path
from string import Template

from benchmarks.scaling import least
from dcgan_dist.gan.description import Layer, Net, parse_net

PAGE = Path(__file__).parent.parent / "docs" / "scaling.md"
HEAD = """# How it scales

Written by `python -m benchmarks.model`. **Nothing on this page is measured**: it is computed from what is counted and
from stated figures of a cluster, to see what limits at which size before holding a GPU. Put your cluster's figures
into `Machine` in `benchmarks/model.py`.

Counted, for the paper's network (`$NET`), one update of each network on a minibatch of its own:

- $WORK GFLOP an image, $WEIGHTS million weights;
- $COLLECTIVES collectives: batch norm's sums, there and back, wherever a layer runs, and one of gradients for each network.
  A layer's statistics are needed before the next begins: they are latency, not bandwidth, and cannot hide behind
  work. `python -m benchmarks.scaling` counts them on real ranks;
- $ALONE operations handed to a single GPU, and $TOGETHER to each of several: `tests/training/test_launches.py` counts them.

Stated: $PEAK TFLOP/s a GPU in bf16, $SHARE of it reached with many images and half of that with $HALF; the host takes $LAUNCH us
to hand an operation over, beside the GPU's work, and the longer of the two counts; a small collective takes $NEAR_US us in a
node of 8 and $FAR_US us more for each doubling of nodes; a large one moves $NEAR_GB GB/s for each GPU in a node and $FAR_GB GB/s
across nodes where each GPU has a card of 400 Gb/s of its own (some 40 where a node has one). Collectives are not taken to
overlap, though gradients do in part."""  # noqa: E501

FOOT = """## What to choose

- **The paper's batch of 128**: one GPU, or up to four. Launches and the latency of batch norm's sums do not shrink with
  the images. More GPUs are for more runs: seeds, ablations.
- **Batch 1,024**: one node, or two.
- **Batch 8,192**: up to eight nodes. It is another optimisation problem than the paper's; say so beside the results.
- What would move the limits: CUDA graphs for the launches, gradients in bf16 and overlapped."""  # noqa: E501

OPERATIONS = {"alone": (149, 194), "together": (240, 260)}
"""Of a step of the paper's G and of one of its D, as `tests/training/test_launches.py` counts them."""

GPUS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
BATCHES = (128, 1024, 8192)


@dataclass(frozen=True)
class Machine:
    """What a cluster of 8-GPU nodes can do; as published or as usually seen, none of it measured here."""

    peak_flops: float = 989e12  # one GPU, bf16, dense
    share: float = 0.35  # of the peak, at 64 images a GPU and more
    half_images: float = 16.0  # images a GPU at which half of that share is reached
    launch_seconds: float = 5e-6  # of the host, for each operation that it hands over
    near_seconds: float = 15e-6  # a small collective within a node
    far_seconds: float = 12e-6  # more of it for each doubling of nodes
    near_bytes_per_second: float = 300e9  # of a large all-reduce within a node, each GPU
    far_bytes_per_second: float = 200e9  # across nodes, each GPU with a card of 400 Gb/s of its own


def multiplications(net: Net) -> float:
    """Floating-point operations for one image, one update of each network."""
    g = _through([Layer(net.z_size, 1), *net.g], net.kernel)
    image = Layer(net.image_channels, net.image_size)
    d = _through([image, *net.d], net.kernel)
    # D's update: D on real and on fake, there and back (6 d), and G there. G's: both there, back through D to
    # its input (2 d) and through G (3 g).
    return 2.0 * (6 * d + g + 2 * d + 3 * g)


def _through(layers: list[Layer], kernel: int) -> float:
    total = 0.0
    for before, after in pairwise(layers):
        side = min(before.side, after.side)
        taps = max(before.side, after.side) ** 2 if side == 1 else kernel**2 * side**2
        total += before.channels * after.channels * taps
    return total


def weights(net: Net) -> float:
    """Weights of both networks' convolutions."""
    layers = [Layer(net.z_size, 1), *net.g]
    image = [Layer(net.image_channels, net.image_size), *net.d]
    total = 0.0
    for row in (layers, image):
        for before, after in pairwise(row):
            taps = after.side**2 if before.side == 1 else net.kernel**2
            total += before.channels * after.channels * taps
    return total


def step_seconds(net: str, *, batch: int, gpus: int, machine: Machine) -> dict[str, float]:
    """The parts of one update of both networks, in seconds."""
    described = parse_net(net)
    images = batch / gpus
    share = machine.share * images / (images + machine.half_images)
    work = images * multiplications(described) / (machine.peak_flops * share)
    nodes = ceil(gpus / 8)
    one = machine.near_seconds + machine.far_seconds * log2(nodes) if gpus > 1 else 0.0
    sent = 4 * weights(described) * 2 * (gpus - 1) / gpus
    launches = machine.launch_seconds * sum(OPERATIONS["together" if gpus > 1 else "alone"])
    return {
        "work": work,
        "launches": launches,
        "statistics": one * least(net, "alternate"),
        "gradients": sent / (machine.near_bytes_per_second if nodes == 1 else machine.far_bytes_per_second),
    }


def total(parts: dict[str, float]) -> float:
    """Seconds of a step: the host hands over beside the work, and the longer of the two counts."""
    return sum(parts.values()) - min(parts["work"], parts["launches"])


def table(net: str, batch: int, machine: Machine) -> list[str]:
    """One batch over all numbers of GPUs, as Markdown."""
    rows = [
        "| GPUs | images/s | efficiency | work | launches | statistics | gradients | limit |",
        "|---:|---:|---:|---:|---:|---:|---:|---|",
    ]
    alone = batch / total(step_seconds(net, batch=batch, gpus=1, machine=machine))
    for gpus in GPUS:
        if batch % gpus:
            continue
        parts = step_seconds(net, batch=batch, gpus=gpus, machine=machine)
        rate = batch / total(parts)
        shown = " | ".join(f"{1e3 * seconds:.2f} ms" for seconds in parts.values())
        limit = max(parts, key=lambda name: parts[name])
        rows.append(f"| {gpus} | {rate:,.0f} | {rate / alone / gpus:.0%} | {shown} | {limit} |")
    return rows


def page() -> str:
    """The whole page."""
    net, machine = "dcgan64", Machine()
    described = parse_net(net)
    counted = {
        "WORK": f"{multiplications(described) / 1e9:.1f}",
        "WEIGHTS": f"{weights(described) / 1e6:.1f}",
        "COLLECTIVES": str(least(net, "alternate")),
        "NET": net,
        "PEAK": f"{machine.peak_flops / 1e12:.0f}",
        "SHARE": f"{machine.share:.0%}",
        "HALF": f"{machine.half_images:.0f}",
        "LAUNCH": f"{1e6 * machine.launch_seconds:.0f}",
        "ALONE": str(sum(OPERATIONS["alone"])),
        "TOGETHER": str(sum(OPERATIONS["together"])),
        "NEAR_US": f"{1e6 * machine.near_seconds:.0f}",
        "FAR_US": f"{1e6 * machine.far_seconds:.0f}",
        "NEAR_GB": f"{machine.near_bytes_per_second / 1e9:.0f}",
        "FAR_GB": f"{machine.far_bytes_per_second / 1e9:.0f}",
    }
    parts = [Template(HEAD).substitute(counted)]
    for batch in BATCHES:
        parts += ["", f"## Global batch {batch:,}", "", *table(net, batch, machine)]
    parts += ["", FOOT]
    return "\n".join(parts) + "\n"


def main() -> None:
    PAGE.write_text(page(), encoding="utf-8")
    print(f"wrote {PAGE}")


if __name__ == "__main__":
    main()
