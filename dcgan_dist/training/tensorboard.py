"""What a run shows in TensorBoard: its curves, pictures and alarms.

Kept out: when they are drawn, and metrics.jsonl, which has all of it as numbers: `coordinator`'s.
"""

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch.utils.tensorboard import SummaryWriter

LAYOUT = {
    "training": {
        "losses": ["Multiline", ["loss/d", "loss/g"]],
        "D(x), D(G(z)) before and after D's update": [
            "Multiline",
            ["d/real", "d/fake_before", "d/fake_after"],
        ],
        "gradient norms": ["Multiline", ["gradient/d", "gradient/g"]],
        "images per second": ["Multiline", ["speed/images_per_second"]],
        "share of time waiting for data": ["Multiline", ["speed/data_wait_share"]],
    }
}


class Board:
    """The TensorBoard of the run whose growing files are in `folder`, gone on with from `first_step`."""

    def __init__(self, folder: Path, first_step: int) -> None:
        # What an earlier life wrote of the steps that come now is not shown beside them.
        purged = first_step + 1 if first_step else 0
        self._writer = SummaryWriter(str(folder / "tensorboard"), purge_step=purged)
        if not first_step:
            self._writer.add_custom_scalars(LAYOUT)

    def curves(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def curves_by_rank(self, step: int, by_rank: Mapping[str, Sequence[float]]) -> None:
        """Of each name, given with a value for each rank, the least and the most; metrics.jsonl has all.

        A curve costs rank 0 a tenth of a millisecond, so that it cannot have one for each.
        """
        for name, row in by_rank.items():
            for which, value in (("least", min(row)), ("most", max(row))) if len(row) > 1 else ():
                self._writer.add_scalar(f"ranks-{which}/{name.replace('/', '-')}", value, step)

    def alarm(self, step: int, text: str) -> None:
        self._writer.add_text("alarms", text, step)

    def picture(self, step: int, tag: str, picture: NDArray[np.uint8]) -> None:
        """uint8 (h, w, 3)."""
        self._writer.add_image(tag, picture, step, dataformats="HWC")

    def flush(self) -> None:
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


@contextmanager
def errors_told_once() -> Iterator[None]:
    """TensorBoard's thread hands an error of the system on to whoever writes next, and prints none itself."""
    before = threading.excepthook

    def hook(args: threading.ExceptHookArgs) -> None:
        if not (isinstance(args.exc_value, OSError) and type(args.thread).__name__ == "_AsyncWriterThread"):
            before(args)

    threading.excepthook = hook
    try:
        yield
    finally:
        threading.excepthook = before
