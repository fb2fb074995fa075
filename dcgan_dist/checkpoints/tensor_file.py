"""The bytes of a safetensors file, told as pieces of the memory in which they lie.

The library's own `save` holds the interpreter's lock for about a millisecond per megabyte, in which no other
thread hands a GPU its work. The bytes are the library's ("Format" in its documentation): the header's length
in 8 of them, little-endian; the header as JSON, padded by spaces to a multiple of 8; then the tensors without
gaps, those of wide types first, then by name. Kept out: reading, which the library does, for it checks what
it reads.
"""

import json
import struct
from collections.abc import Mapping

import torch
from torch import Tensor

TYPES = {torch.float64: "F64", torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16"}
"""Names in the header, in the order of the file."""


def pieces_of(tensors: Mapping[str, Tensor]) -> list[memoryview]:
    """A file of contiguous `tensors` on the CPU of the types of `TYPES`. Raises ValueError for others."""
    for name, tensor in tensors.items():
        if tensor.dtype not in TYPES or tensor.device.type != "cpu" or not tensor.is_contiguous():
            raise ValueError(f"{name}: not a contiguous tensor of real numbers on the CPU")
    places = list(TYPES)
    names = sorted(tensors, key=lambda name: (places.index(tensors[name].dtype), name.encode()))
    pieces = [memoryview(_head({name: tensors[name] for name in names}))]
    for name in names:
        flat = tensors[name].detach().reshape(-1)
        pieces.append(memoryview(flat.view(torch.uint8).numpy()))  # type: ignore[arg-type]
    return pieces


def _head(tensors: Mapping[str, Tensor]) -> bytes:
    """All that comes before the numbers of `tensors`, which follow in their order."""
    told, start = {}, 0
    for name, tensor in tensors.items():
        stop = start + tensor.nbytes
        told[name] = {
            "dtype": TYPES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [start, stop],
        }
        start = stop
    text = json.dumps(told, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text
