"""Answers of web servers, which may be anybody's: as they were sent, and no longer than what was asked for.

A body that is compressed is not unpacked, because a small one can become an enormous one. Kept out: requests.
"""

import re
from functools import cache
from typing import Any

from shards.storage.retries import HopelessError

WHOLE_BYTES = 2**28
"""The most of a file that is read where neither the question nor the server says how long it is."""

LISTING_BYTES = 2**24
"""The most of a folder's page, which is about 100,000 names."""


def settings(asked: dict[str, Any]) -> dict[str, Any]:
    """What the client is made with, `asked` for by the user's own configuration or not."""
    headers = dict(asked.get("headers") or {}) | {"Accept-Encoding": "identity"}
    return asked | {"response_class": _response(), "auto_decompress": False, "headers": headers}


def _asked_bytes(span: str) -> int:
    """How many bytes a request for a range is for; of one without, the most that are read."""
    match = re.fullmatch(r"bytes=(\d+)-(\d+)", span)
    return int(match[2]) + 1 - int(match[1]) if match else WHOLE_BYTES


async def _beginning(answer: Any, limit: int) -> bytes:
    parts, left = [], limit
    while left and (part := await answer.content.read(min(left, 2**20))):
        parts.append(part)
        left -= len(part)
    if not left:
        answer.close()  # there may be no end of it
    return b"".join(parts)


def _check_page(body: bytes) -> None:
    if len(body) > LISTING_BYTES:
        raise HopelessError(f"the page of this folder has over {LISTING_BYTES} bytes")


@cache
def _response() -> Any:
    import aiohttp  # here and not at the top, because it is an extra

    class Answer(aiohttp.ClientResponse):
        """An answer whose body is read as far as it was asked for, and one byte more, which gives it away."""

        async def read(self) -> bytes:
            """The body, or its beginning; nothing of a refusal's."""
            if self._body is None:
                limit = _asked_bytes(self.request_info.headers.get("Range", ""))
                self._body = await _beginning(self, limit + 1) if self.status < 400 else b""
                if len(self._body) > max(limit, WHOLE_BYTES):
                    raise HopelessError(f"the server sends over {limit} bytes and does not say how many")
            return self._body

        async def text(self, *args: Any, **options: Any) -> str:
            """The page of a folder."""
            if self._body is None:
                self._body = await _beginning(self, LISTING_BYTES + 1)
                _check_page(self._body)
            return await super().text(*args, **options)

    return Answer
