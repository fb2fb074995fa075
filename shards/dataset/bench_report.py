"""What a measurement of `bench` says: a table, and one line that names what limits the images a second.

Kept out: measuring.
"""

from shards.dataset.bench import Rate, Report

GAIN = 1.2
"""So much more from twice the requests is no chance."""

BUSY = 0.8
"""So much of a CPU is all that one process gets through its storage client, which runs in one thread."""


def lines(report: Report) -> list[str]:
    """The rates, aligned, and the limit."""
    local = report.doubled is None
    rows = [("cold reads", report.cold), ("warm reads" if local else "reads", report.reading)]
    found = [f"{name:<11}{_reads(rate)}" for name, rate in rows if rate]
    if report.doubled:
        found.append(f"{'':<11}{_images(report.doubled)} with {2 * report.requests} requests")
    found.append(
        f"{'decoding':<11}{_images(report.decoding)} with {report.threads} threads, {report.encoding}"
    )
    found.append(f"{'together':<11}{_images(report.together)}")
    return [*found, f"{'limit':<11}{limit(report)}"]


def limit(report: Report) -> str:
    """What to change to get more, in one line."""
    if report.doubled:
        slower = report.reading.images_per_second < report.decoding.images_per_second
        return _storage_limit(report, report.doubled) if slower else _decoding_limit(report)
    slower = report.reading.images_per_second < report.decoding.images_per_second
    then = "reading, even from memory: try more --threads" if slower else _decoding_limit(report)
    if report.cold and report.cold.images_per_second < report.together.images_per_second:
        return f"the disk while the files are not in memory, and then {then}"
    return then


def _storage_limit(report: Report, doubled: Rate) -> str:
    gain, more = doubled.images_per_second / report.reading.images_per_second, 2 * report.requests
    if gain >= GAIN:
        return f"storage latency: twice the requests gave {gain:.1f} times as much; try --requests {more}"
    if report.reading.cpu_seconds / report.reading.seconds >= BUSY:
        return "the storage client, which fills a CPU of this process: try more ranks, or larger blocks"
    return f"storage bandwidth: twice the requests gave {gain:.1f} times as much"


def _decoding_limit(report: Report) -> str:
    if report.threads < report.cpus:
        more = f"try --threads {report.cpus}"
        return f"decoding: {more}" if report.encoding == "npy" else f"decoding: {more}, or npy"
    full = f"decoding: {report.threads} threads on {report.cpus} CPUs"
    return f"{full}, and npy is the fastest" if report.encoding == "npy" else f"{full}; try npy"


def _reads(rate: Rate) -> str:
    per_second, megabytes = rate.blocks / rate.seconds, rate.bytes / rate.seconds / 1e6
    p50, p95 = rate.latency(0.5) * 1e3, rate.latency(0.95) * 1e3
    busy = rate.cpu_seconds / rate.seconds
    return (
        f"{_images(rate)} {per_second:>9,.0f} blocks/s {megabytes:>8,.1f} MB/s   "
        f"p50 {p50:.2f} ms   p95 {p95:.2f} ms   {busy:.1f} CPUs busy"
    )


def _images(rate: Rate) -> str:
    return f"{rate.images_per_second:>11,.0f} images/s"
