"""One-against-rest linear SVM with squared hinge loss, as scikit-learn's LinearSVC and liblinear define it:

    0.5 |w|^2 + C sum_i max(0, 1 - y_i f_i)^2,   f = w x + b, the bias penalised like any weight.

Newton steps from conjugate gradients, all classes at once, with an exact line search. The rows are only ever
multiplied, chunk by chunk, so they may lie on disk and be worked on by a GPU. It knows nothing of pictures.
"""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from shards.arrays import F32

NEWTON_STEPS = 60
CG_STEPS = 60
LINE_STEPS = 30
TOLERANCE = 1e-5
"""Of the gradient at w = 0: float32 gives no more."""
CG_SHARE = 0.03
CHUNK_BYTES = 2**28
GPU_SHARE = 0.7
"""Of a GPU's free memory, what the rows may take; beyond it they are sent chunk by chunk."""

CPU = torch.device("cpu")


class Rows:
    """Samples (n, d) float32, in memory or mapped from a file; a column of ones stands behind them."""

    def __init__(self, data: F32, device: torch.device = CPU) -> None:
        self.data, self.device = data, device
        self._resident: Tensor | None = None
        if device.type == "cuda" and data.nbytes < GPU_SHARE * torch.cuda.mem_get_info(device)[0]:
            self._resident = torch.from_numpy(np.ascontiguousarray(data)).to(device)

    def __len__(self) -> int:
        return len(self.data)

    @property
    def columns(self) -> int:
        """Length of a weight vector, the bias included."""
        return int(self.data.shape[1]) + 1

    def times(self, w: Tensor) -> Tensor:
        """(k, d + 1) -> (n, k)."""
        return torch.cat([part @ w[:, :-1].T + w[:, -1] for _, part in self._chunks()])

    def back(self, r: Tensor) -> Tensor:
        """(n, k) -> (k, d + 1): the transposed product."""
        total = r.new_zeros(r.shape[1], self.columns)
        for rows, part in self._chunks():
            total[:, :-1] += r[rows].T @ part
        total[:, -1] = r.sum(0)
        return total

    def _chunks(self) -> Iterator[tuple[slice, Tensor]]:
        if self._resident is not None:
            yield slice(None), self._resident
            return
        step = max(1, CHUNK_BYTES // (4 * self.columns))
        for start in range(0, len(self), step):
            part = slice(start, start + step)
            yield part, torch.from_numpy(np.ascontiguousarray(self.data[part])).to(self.device)


def fit(
    rows: Rows, labels: NDArray[np.int64], *, classes: int, c: float, start: Tensor | None = None
) -> Tensor:
    """Weights (classes, d + 1) with the bias last; `start` is a solution for another C, to begin from."""
    if len(rows) < rows.columns - 1 and start is None:
        return _fit_few(rows, labels, classes=classes, c=c)
    signs = _signs(labels, classes, rows.device)
    w = torch.zeros(classes, rows.columns, device=rows.device) if start is None else start.clone()
    scores = rows.times(w) if start is not None else torch.zeros_like(signs)
    small = TOLERANCE * 2 * c * rows.back(signs).norm(dim=1)
    for _ in range(NEWTON_STEPS):
        slack = (1 - signs * scores).clamp(min=0)
        gradient = w - 2 * c * rows.back(signs * slack)
        if bool((gradient.norm(dim=1) <= small).all()):
            break
        step = _newton_step(rows, (slack > 0).to(signs), gradient, c=c)
        along = rows.times(step)
        t = _line_search(w, step, scores, along, signs, c=c)
        w, scores = w + t[:, None] * step, scores + t * along
    return w


def _fit_few(rows: Rows, labels: NDArray[np.int64], *, classes: int, c: float) -> Tensor:
    """The same where samples are fewer than columns: w lies in their span, so turn it into n columns."""
    x = torch.from_numpy(np.ascontiguousarray(rows.data)).to(rows.device)
    q, r = torch.linalg.qr(x.T)  # (d, n), (n, n): x = r' q'
    turned = fit(Rows(np.ascontiguousarray(r.T.cpu().numpy()), rows.device), labels, classes=classes, c=c)
    return torch.cat([turned[:, :-1] @ q.T, turned[:, -1:]], dim=1)


def predict(rows: Rows, w: Tensor) -> NDArray[np.int64]:
    """The class of each row, (n,)."""
    found: NDArray[np.int64] = rows.times(w).argmax(1).cpu().numpy()
    return found


def _signs(labels: NDArray[np.int64], classes: int, device: torch.device) -> Tensor:
    """(n, classes): 1 where a row is of the class, else -1."""
    one_hot = torch.nn.functional.one_hot(torch.from_numpy(labels), classes)
    return (2 * one_hot - 1).to(device, torch.float32)


def _newton_step(rows: Rows, active: Tensor, gradient: Tensor, *, c: float) -> Tensor:
    """Solve H p = -gradient for each class; H = I + 2 C X' diag(active) X."""
    p, r = torch.zeros_like(gradient), -gradient
    v, rr = r, (r * r).sum(1)
    enough = CG_SHARE**2 * rr
    for _ in range(CG_STEPS):
        hv = v + 2 * c * rows.back(active * rows.times(v))
        going = rr > enough
        a = torch.where(going, rr / (v * hv).sum(1).clamp(min=1e-30), 0.0)[:, None]
        p, r = p + a * v, r - a * hv
        before, rr = rr, (r * r).sum(1)
        if not bool((rr > enough).any()):
            break
        v = r + (rr / before.clamp(min=1e-30))[:, None] * v
    return p


def _line_search(
    w: Tensor, step: Tensor, scores: Tensor, along: Tensor, signs: Tensor, *, c: float
) -> Tensor:
    """(classes,): the best multiple in [0, 2] of each class's step, by bisection of the derivative."""
    ww, ws = (w * step).sum(1), (step * step).sum(1)
    low, high = torch.zeros_like(ww), torch.full_like(ww, 2.0)
    for _ in range(LINE_STEPS):
        t = (low + high) / 2
        slack = (1 - signs * (scores + t * along)).clamp(min=0)
        slope = ww + t * ws - 2 * c * (slack * signs * along).sum(0)
        low, high = torch.where(slope < 0, t, low), torch.where(slope < 0, high, t)
    return (low + high) / 2
