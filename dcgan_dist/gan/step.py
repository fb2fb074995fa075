"""One update of the networks: Goodfellow et al. (2014), algorithm 1 with k = 1, and the non-saturating
generator loss of its section 3. It knows neither ranks nor files; data parallelism, if any, is already
inside the networks.

Losses are written on logits: -log sigmoid(x) = softplus(-x). D's two means are summed, not halved (authors'
code).
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

Metrics = dict[str, Tensor]
"""Losses, and D's logits (n,) under the names of their mean probabilities: see `means`."""


Network_co = TypeVar("Network_co", bound=nn.Module, covariant=True)


@dataclass(frozen=True)
class Player(Generic[Network_co]):
    """One network as its own update sees it.

    `bare` is the network; `parallel` the same network inside its gradient all-reduce (or `bare` again), for
    its own update; `helping` is `bare`, or that compiled, for the other network's update. `exchange`
    is called where gradients are there and not yet learned from.
    """

    bare: Network_co
    parallel: Callable[..., Any]
    helping: Callable[..., Any]
    optim: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    exchange: Callable[[], None] = lambda: None


Cast = Callable[[], AbstractContextManager[None]]


def update_d(g: Player[nn.Module], d: Player[nn.Module], *, real: Tensor, z: Tensor, cast: Cast) -> Metrics:
    """Teach D to tell `real` (n, 3, S, S) from G(z)."""
    with torch.no_grad(), cast():
        fake = g.helping(z)
    return _learn_d(d, real, fake, cast=cast)


def update_g(g: Player[nn.Module], d: Player[nn.Module], *, z: Tensor, cast: Cast) -> Metrics:
    """Teach G to be taken for real."""
    with cast():
        fake = g.parallel(z)  # (n, 3, S, S) in (-1, 1)
    return _learn_g(g, d, fake, cast=cast)


def update_both(
    g: Player[nn.Module], d: Player[nn.Module], *, real: Tensor, z: Tensor, cast: Cast
) -> Metrics:
    """D, then G against the updated D, on the same noise: G(z) is computed once."""
    with cast():
        fake = g.parallel(z)
    return _learn_d(d, real, fake.detach(), cast=cast) | _learn_g(g, d, fake, cast=cast)


def _learn_d(d: Player[nn.Module], real: Tensor, fake: Tensor, *, cast: Cast) -> Metrics:
    # Two batches, not one of both: batch norm sees one kind at a time.
    with cast():
        on_real, on_fake = d.parallel(real, fake)
    loss = softplus(_wide(torch.stack((-on_real, on_fake)))).mean(1).sum()
    _descend(d, loss)
    return {
        "loss/d": loss.detach(),
        "d/real": on_real.detach(),
        "d/fake_before": on_fake.detach(),
    }


def _learn_g(g: Player[nn.Module], d: Player[nn.Module], fake: Tensor, *, cast: Cast) -> Metrics:
    # The frozen D, alone: no gradient of its weights is computed, and none is sent to other ranks.
    with frozen(d.bare), cast():
        on_fake = d.helping(fake)
    loss = softplus(_wide(-on_fake)).mean()
    _descend(g, loss)
    return {"loss/g": loss.detach(), "d/fake_after": on_fake.detach()}


def means(metrics: Metrics) -> Metrics:
    """Every one as a number of this rank: what most steps are spared."""
    return {
        name: value if name.startswith("loss/") else _wide(value).sigmoid().mean()
        for name, value in metrics.items()
    }


def _wide(logits: Tensor) -> Tensor:
    return logits if logits.dtype == torch.float64 else logits.float()


def _descend(player: Player[nn.Module], loss: Tensor) -> None:
    for weight in player.bare.parameters():
        weight.grad = None
    torch.autograd.backward(player.scaler.scale(loss))
    player.exchange()
    player.scaler.unscale_(player.optim)  # so that gradient norms can be read after the step
    player.scaler.step(player.optim)
    player.scaler.update()


@contextmanager
def frozen(net: nn.Module) -> Iterator[None]:
    """No gradients for the weights of `net` inside the block."""
    net.requires_grad_(False)
    try:
        yield
    finally:
        net.requires_grad_(True)


def gradient_norm(net: nn.Module) -> Tensor:
    """L2 norm of the gradients left by the last update; 0 before the first."""
    grads = [p.grad for p in net.parameters() if p.grad is not None]
    return torch.nn.utils.get_total_norm(grads) if grads else torch.zeros(())
