"""The nearest neighbour by Euclidean distance, over any number of known rows that come in chunks."""

from collections.abc import Iterator

import torch
from torch import Tensor

from shards.arrays import F32, I64

QUERY_ROWS = 2048
KNOWN_ROWS = 8192


class Nearest:
    """For each query (n, d), the least squared distance so far and the label that came with it."""

    def __init__(self, queries: Tensor) -> None:
        self.queries = queries
        self.distances = torch.full((len(queries),), torch.inf, device=queries.device)
        self.labels = torch.full((len(queries),), -1, dtype=torch.int64, device=queries.device)

    def see(self, known: Tensor, labels: Tensor) -> None:
        """More known rows (m, d) with labels (m,); on a tie the earlier row stays."""
        squares = known.square().sum(1)
        for start in range(0, len(self.queries), QUERY_ROWS):
            part = slice(start, start + QUERY_ROWS)
            queries = self.queries[part]
            # |q - k|^2; q's own square is added below, so that no n x m x d array is needed
            least, at = (squares - 2 * queries @ known.T).min(1)
            least += queries.square().sum(1)
            closer = least < self.distances[part]
            self.distances[part] = torch.where(closer, least, self.distances[part])
            self.labels[part] = torch.where(closer, labels[at], self.labels[part])


def chunks_of(rows: F32, labels: I64, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
    """Rows in memory, some at a time."""
    for start in range(0, len(rows), KNOWN_ROWS):
        part = slice(start, start + KNOWN_ROWS)
        yield torch.from_numpy(rows[part]).to(device), torch.from_numpy(labels[part]).to(device)


def nearest_labels(queries: F32, known: F32, labels: I64, *, device: torch.device) -> I64:
    """The label of each query's nearest known row."""
    nearest = Nearest(torch.from_numpy(queries).to(device))
    for chunk in chunks_of(known, labels, device):
        nearest.see(*chunk)
    found: I64 = nearest.labels.cpu().numpy()
    return found
