"""Between tensors and pictures: (n, 3, S, S) in [-1, 1] and uint8 grids."""

import io
import math

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

LINE = 128  # grey between the pictures of a grid


def to_device(batch: NDArray[np.uint8], device: torch.device, dtype: torch.dtype) -> Tensor:
    """uint8 (n, S, S, 3) -> (n, 3, S, S) in [-1, 1] on the device, channels last in memory."""
    images = torch.from_numpy(batch)
    if device.type == "cuda":
        images = images.pin_memory().to(device, non_blocking=True)
    return spread(images, dtype)


def spread(images: Tensor, dtype: torch.dtype) -> Tensor:
    """uint8 (n, S, S, 3) -> (n, 3, S, S) in [-1, 1], channels last in memory."""
    return images.permute(0, 3, 1, 2).to(dtype).div_(127.5).sub_(1)


def to_uint8(images: Tensor) -> NDArray[np.uint8]:
    """(n, 3, S, S) in [-1, 1] -> uint8 (n, S, S, 3)."""
    scaled = ((images.detach().float() + 1) * 127.5).round().clamp(0, 255)
    return scaled.to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()


def grid(images: NDArray[np.uint8], columns: int | None = None) -> NDArray[np.uint8]:
    """uint8 (n, S, S, 3) -> one picture, row by row, a thin line between; near square by default."""
    columns = columns or math.ceil(math.sqrt(len(images)))
    rows = math.ceil(len(images) / columns)
    cell = images.shape[1] + 1
    sheet = np.full((rows * columns, cell, cell, 3), LINE, np.uint8)
    sheet[: len(images), :-1, :-1] = images
    laid = sheet.reshape(rows, columns, cell, cell, 3).transpose(0, 2, 1, 3, 4)
    return laid.reshape(rows * cell, columns * cell, 3)[:-1, :-1]


def grid_png(images: NDArray[np.uint8]) -> bytes:
    """uint8 (n, S, S, 3) -> a grid as PNG bytes, small pictures enlarged to be looked at."""
    return png(grid(images), scale=2 if images.shape[1] <= 32 else 1)


def png(picture: NDArray[np.uint8], *, scale: int = 1) -> bytes:
    """uint8 (h, w, 3) -> PNG bytes, each pixel `scale` times as wide and high."""
    image = Image.fromarray(picture)
    if scale > 1:
        image = image.resize((image.width * scale, image.height * scale), Image.Resampling.NEAREST)
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()
