"""Sums of rows by the cluster they belong to, which a GPU finds again to the bit."""

from torch import Tensor
from torch.nn.functional import one_hot


def add(rows: Tensor, cluster: Tensor, *, into: Tensor) -> None:
    """Add each of (n, d) `rows` to the row of `into`, (clusters, d), that `cluster`, (n,), says."""
    if rows.device.type == "cpu":
        into.index_add_(0, cluster, rows)
    else:  # there that adds in whatever order threads come by, and a product always in the same one
        into += by_product(rows, cluster, len(into))


def by_product(rows: Tensor, cluster: Tensor, clusters: int) -> Tensor:
    """The sums as a matrix product, (clusters, d)."""
    return one_hot(cluster, clusters).to(rows.dtype).T @ rows
