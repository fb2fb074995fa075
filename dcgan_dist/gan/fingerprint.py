"""The bits of a network as one number, so that ranks can compare theirs."""

import torch
from torch import Tensor, nn

PIECE = 2**22
"""Weights that are looked at together: each takes some words of 8 bytes meanwhile."""


def fingerprint(net: nn.Module) -> Tensor:
    """A number for the bits of all weights, () int64 on their device: a sum that wraps, so in any order."""
    total = torch.zeros((), dtype=torch.int64, device=next(net.parameters()).device)
    for number, weight in enumerate(net.state_dict().values(), start=1):
        words = weight.detach().contiguous().reshape(-1)
        words = words.view(torch.int64 if words.element_size() == 8 else torch.int32)
        for start in range(0, len(words), PIECE):
            bits = words[start : start + PIECE].to(torch.int64)
            places = torch.arange(start + 1, start + 1 + len(bits), device=bits.device, dtype=torch.int64)
            # Odd factors, so that no bit is lost; another one for each place of each tensor.
            total += (bits * (places * 0x9E3779B97F4A7C1 * number | 1)).sum()
    return total
