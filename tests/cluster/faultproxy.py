"""An HTTP/1.1 proxy that breaks what it is told to break, for tests; the standard library only, threads.

    with FaultProxy(store.endpoint) as proxy:
        proxy.rules(Rule("truncate", method="GET", path=r"\\.tar$", times=2))
        ...                                 # the client talks to proxy.endpoint
        assert [each.fault for each in proxy.log] == ["truncate", "truncate", None]

The Host header passes unchanged, so signatures made for the proxy's address hold behind it. Kept out: signed
headers, which it cannot change.
"""

import contextlib
import http.client
import os
import random
import re
import socket
import struct
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

PIECE_BYTES = 65536

BEFORE = {"refuse", "status", "stall_head", "drop_upload"}
"""Faults that strike before the request has reached the server behind."""
AFTER = {"lost_ack", "stall_reply"}
"""Faults that keep the server's answer from the client; what was asked for has happened."""
BODY = {"reset", "truncate", "short", "stall", "corrupt"}
"""Faults in the body of the answer."""
SLOW = {"latency", "rate"}
"""Slowness, which joins any other fault."""

ERROR = '<?xml version="1.0" encoding="UTF-8"?><Error><Code>{}</Code><Message>{}</Message></Error>'
CODES = {403: "RequestTimeTooSkewed", 429: "TooManyRequests", 500: "InternalError", 503: "SlowDown"}


@dataclass(frozen=True)
class Rule:
    """A fault and the requests that it strikes: of those that match, past the first `skip`, up to `times`.

    refuse       a TCP reset in answer to the request
    status       an answer of our own with `status` and, if given, `body`
    stall_head   no answer, not even 100 Continue, for `seconds`, then the end
    drop_upload  a reset half-way up; the server behind sees a broken upload
    lost_ack     the request is done, then a reset instead of the answer
    stall_reply  the request is done, then nothing for `seconds`, then the end
    reset, truncate, stall    at `at` of the answer's body: a reset, the end, `seconds` of nothing and the end
    short        the body ends at `at`, and the headers agree
    corrupt      one bit of the body is flipped, at `at`
    latency      `seconds` before the request goes on
    rate         the body comes at `bytes_per_second`
    """

    fault: str
    method: str | None = None
    path: str | None = None
    """A regular expression, searched in path and query."""
    ranged: bool | None = None
    """Whether the request asks for a range of bytes; None for both."""
    skip: int = 0
    times: int | None = None
    chance: float = 1.0
    at: float = 0.5
    """Where in the body, as a fraction of it."""
    seconds: float = 60.0
    status: int = 503
    body: str | None = None
    bytes_per_second: float = 1e6

    def __post_init__(self) -> None:
        assert self.fault in BEFORE | AFTER | BODY | SLOW, self.fault

    def matches(self, method: str, path: str, asked_range: str | None) -> bool:
        """Whether this request is one that the rule speaks of."""
        return (
            self.method in (None, method)
            and (self.path is None or re.search(self.path, path) is not None)
            and self.ranged in (None, asked_range is not None)
            and not (method == "HEAD" and self.fault in BODY)
        )


@dataclass
class Request:
    """One request as the proxy saw it; `bytes` are those of the answer's body that it let through."""

    method: str
    path: str
    range: str | None
    fault: str | None = None
    status: int | None = None
    bytes: int = 0


class FaultProxy:
    """A proxy in front of `endpoint`; `log` holds every request since the last `rules`."""

    def __init__(self, endpoint: str) -> None:
        self.upstream = urlsplit(endpoint).netloc
        self.stopping = threading.Event()
        self.log: list[Request] = []
        self._lock = threading.Lock()
        self._server = _Server(self)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self.endpoint = f"http://127.0.0.1:{self._server.server_address[1]}"
        self.rules()

    def __enter__(self) -> "FaultProxy":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopping.set()
        self._server.shutdown()
        self._server.end_connections()
        self._server.server_close()
        self._thread.join(5)

    def rules(self, *rules: Rule, seed: int = 0) -> None:
        """From now on these hold, and the log begins anew. The first rule that strikes wins."""
        with self._lock:
            self._rules: Sequence[Rule] = rules
            self._seen = [0] * len(rules)
            self._struck = [0] * len(rules)
            self._dice = random.Random(seed)
            self.log.clear()

    @property
    def faults(self) -> dict[str, int]:
        """How often each fault struck since the last `rules`."""
        with self._lock:
            names = [name for each in self.log if each.fault for name in each.fault.split("+")]
        return {name: names.count(name) for name in sorted(set(names))}

    def enter(self, method: str, path: str, asked_range: str | None) -> tuple[Request, list[Rule]]:
        """Log a request; what will befall it."""
        struck: list[Rule] = []
        with self._lock:
            for number, rule in enumerate(self._rules):
                taken = rule.fault not in SLOW and any(each.fault not in SLOW for each in struck)
                if not taken and rule.matches(method, path, asked_range) and self._strikes(number, rule):
                    struck.append(rule)
            request = Request(method, path, asked_range, "+".join(rule.fault for rule in struck) or None)
            self.log.append(request)
        return request, struck

    def _strikes(self, number: int, rule: Rule) -> bool:
        self._seen[number] += 1
        spent = rule.times is not None and self._struck[number] >= rule.times
        if self._seen[number] <= rule.skip or spent or self._dice.random() >= rule.chance:
            return False
        self._struck[number] += 1
        return True


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, proxy: FaultProxy) -> None:
        self.proxy = proxy
        self._open: set[socket.socket] = set()
        super().__init__(("127.0.0.1", 0), _Handler)

    def process_request(self, request, client_address):  # type: ignore[no-untyped-def]
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request):  # type: ignore[no-untyped-def]
        self._open.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request, client_address):  # type: ignore[no-untyped-def]
        """A client that has gone away, which in these tests is no news."""

    def end_connections(self) -> None:
        for connection in list(self._open):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


class _EndError(Exception):
    """This connection is over; with `reset`, the client is told so rudely."""

    def __init__(self, *, reset: bool) -> None:
        super().__init__()
        self.reset = reset


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, format: str, *args: object) -> None:
        """The proxy keeps its own log."""

    def handle_expect_100(self) -> bool:
        return True  # said by `_request_body`, once it is known that no fault forbids it

    def _handle(self) -> None:
        proxy = self.server.proxy
        request, rules = proxy.enter(self.command, self.path, self.headers["Range"])
        main = next((rule for rule in rules if rule.fault not in SLOW), None)
        slow = {rule.fault: rule for rule in rules if rule.fault in SLOW}
        try:
            if "latency" in slow:
                proxy.stopping.wait(slow["latency"].seconds)
            self._before(main, request)
            if main and main.fault == "status":
                return
            upstream = http.client.HTTPConnection(proxy.upstream, timeout=60)
            with contextlib.closing(upstream):
                self._forward(upstream, main)
                answer = upstream.getresponse()
                request.status = answer.status
                self._after(main, answer)
                self._answer(answer, main, slow.get("rate"), request)
        except _EndError as end:
            self._hang_up(reset=end.reset)
        except (OSError, http.client.HTTPException):
            self._hang_up(reset=True)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _handle  # noqa: N815

    def _before(self, rule: Rule | None, request: Request) -> None:
        """The faults that need no server behind."""
        if rule is None:
            return
        if rule.fault == "refuse":
            raise _EndError(reset=True)
        if rule.fault == "stall_head":
            self.server.proxy.stopping.wait(rule.seconds)
            raise _EndError(reset=False)
        if rule.fault == "status":
            for _ in self._request_body():
                pass
            code = CODES.get(rule.status, "InternalError")
            text = ERROR.format(code, "told to fail") if rule.body is None else rule.body
            body = b"" if self.command == "HEAD" else text.encode()
            request.status = rule.status
            self.send_response_only(rule.status)
            self.send_header("Content-Type", "application/xml")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    def _forward(self, upstream: http.client.HTTPConnection, rule: Rule | None) -> None:
        upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():
            if name.lower() not in ("connection", "expect"):
                upstream.putheader(name, value)
        upstream.putheader("Connection", "close")
        upstream.endheaders()
        half, sent = int(self.headers["Content-Length"] or 0) // 2, 0
        for piece in self._request_body():
            sent += len(piece)
            if rule and rule.fault == "drop_upload" and sent > half:
                raise _EndError(reset=True)
            upstream.send(piece)

    def _request_body(self) -> Iterator[bytes]:
        """The body as it comes, chunk marks and all."""
        if self.headers["Expect"]:
            self.send_response_only(100)
            self.end_headers()
        if (self.headers["Transfer-Encoding"] or "").lower() == "chunked":
            yield from self._chunks()
        left = int(self.headers["Content-Length"] or 0)
        while left:
            piece = self.rfile.read(min(left, PIECE_BYTES))
            if not piece:
                raise _EndError(reset=True)
            left -= len(piece)
            yield piece

    def _chunks(self) -> Iterator[bytes]:
        while True:
            mark = self.rfile.readline()
            size = int(mark.partition(b";")[0], 16)
            if size:
                yield mark + self.rfile.read(size + 2)
                continue
            yield mark
            while (line := self.rfile.readline()) not in (b"\r\n", b""):
                yield line
            yield b"\r\n"
            return

    def _after(self, rule: Rule | None, answer: http.client.HTTPResponse) -> None:
        """The faults that take the server's answer away."""
        if rule is None or rule.fault not in AFTER:
            return
        answer.read()
        if rule.fault == "stall_reply":
            self.server.proxy.stopping.wait(rule.seconds)
        raise _EndError(reset=rule.fault == "lost_ack")

    def _answer(
        self, answer: http.client.HTTPResponse, rule: Rule | None, rate: Rule | None, request: Request
    ) -> None:
        told = answer.headers["Content-Length"]
        length = int(told) if told is not None else None
        strikes = int((length or 0) * rule.at) if rule and rule.fault in BODY else None
        if rule and rule.fault == "short" and length is not None:
            length = strikes
        bodiless = self.command == "HEAD" or answer.status in (204, 304)
        self._answer_head(answer, length, chunked=length is None and not bodiless)
        if not bodiless:
            for piece in _paced(_damaged(answer, rule, strikes, self.server.proxy.stopping), rate):
                self._write(piece, chunked=length is None)
                request.bytes += len(piece)
            if length is None:
                self._write(b"", chunked=True)

    def _answer_head(self, answer: http.client.HTTPResponse, length: int | None, *, chunked: bool) -> None:
        self.send_response_only(answer.status, answer.reason)
        for name, value in answer.getheaders():
            low = name.lower()
            if low in ("connection", "transfer-encoding", "content-length"):
                continue
            if low == "content-range" and length:
                first, total = re.findall(r"bytes (\d+)-\d+/(.*)", value)[0]
                value = f"bytes {first}-{int(first) + length - 1}/{total}"
            self.send_header(name, value)
        if length is not None:
            self.send_header("Content-Length", str(length))
        elif chunked:
            self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

    def _write(self, piece: bytes, *, chunked: bool) -> None:
        self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)

    def _hang_up(self, *, reset: bool) -> None:
        self.close_connection = True
        if reset:
            with contextlib.suppress(OSError):
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                os.close(self.connection.detach())


def _damaged(
    answer: http.client.HTTPResponse, rule: Rule | None, strikes: int | None, stopping: threading.Event
) -> Iterator[bytes]:
    """The body of the answer, with the fault of `rule` at byte `strikes`."""
    at = 0
    while piece := answer.read(PIECE_BYTES):
        if rule is None or strikes is None or not at <= strikes < at + len(piece):
            at += len(piece)
            yield piece
            continue
        cut, at = strikes - at, at + len(piece)
        if rule.fault == "corrupt":
            yield piece[:cut] + bytes([piece[cut] ^ 4]) + piece[cut + 1 :]
            continue
        yield piece[:cut]
        if rule.fault == "short":
            return
        time.sleep(0.02)  # so that the client has read what came before
        if rule.fault == "stall":
            stopping.wait(rule.seconds)
        raise _EndError(reset=rule.fault == "reset")


def _paced(pieces: Iterator[bytes], rate: Rule | None) -> Iterator[bytes]:
    """`pieces`, no faster than `rate` allows."""
    started, done = time.monotonic(), 0
    for piece in pieces:
        yield piece
        done += len(piece)
        if rate:
            time.sleep(max(0.0, done / rate.bytes_per_second - (time.monotonic() - started)))
