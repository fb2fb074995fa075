"""A copy of a generator draws no weights of its own and is laid out as the one it copies."""

import pytest
import torch

from dcgan_dist.gan.description import parse_net
from dcgan_dist.gan.model import build


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_replica_draws_as_its_original_and_costs_no_drawing_of_weights(dtype: torch.dtype) -> None:
    g = build(parse_net("tiny16"), norm_eps=1e-8, seeds=(1, 2))[0].to(dtype)
    g.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    before = torch.get_rng_state()
    twin = g.replica()
    assert torch.equal(torch.get_rng_state(), before)
    for (name, weight), (other, copy) in zip(g.named_parameters(), twin.named_parameters(), strict=True):
        assert (name, weight.stride(), weight.dtype) == (other, copy.stride(), copy.dtype)
        assert torch.equal(weight, copy)
        assert copy.requires_grad
        assert copy.data_ptr() != weight.data_ptr()
    z = torch.rand(4, g.net.z_size, dtype=dtype)
    assert torch.equal(g(z), twin(z))
