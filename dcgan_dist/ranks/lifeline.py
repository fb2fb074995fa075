"""A connection between two ranks that carries words, and whose end tells that the other process is gone: the
kernel closes it, whatever the process was doing.

Each message is a JSON object in a line. Kept out: what the words mean.
"""

import json
import select
import socket
import time
from collections.abc import Iterable
from typing import Any

MESSAGE_BYTES = 2**20
SEND_SECONDS = 4.0
GREETING_SECONDS = 10.0
"""How long a name may fail to be resolved, as it does while a node comes up."""
# A node that loses its power closes nothing: it is asked after 10 s of silence, and gone 15 s later.
ALIVE = {"TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3}


class Lifeline:
    """One end; `fileno` lets select wait for words or the end."""

    def __init__(self, link: socket.socket) -> None:
        self._link, self._rest = link, b""
        link.settimeout(SEND_SECONDS)
        link.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in ALIVE.items():
            if hasattr(socket, name):
                link.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)

    def fileno(self) -> int:
        return self._link.fileno()

    def send(self, **words: Any) -> None:
        """Say something; nothing happens where nobody is there to hear it."""
        try:
            self._link.sendall(json.dumps(words).encode() + b"\n")
        except OSError:
            return

    def read(self) -> list[dict[str, Any]]:
        """The messages that have come; call it when there is something to read. Raises EOFError at the end,
        and where what comes is none of ours."""
        try:
            data = self._link.recv(2**16)
        except OSError:
            data = b""
        if not data:
            raise EOFError
        *whole, self._rest = (self._rest + data).split(b"\n")
        try:
            messages = [json.loads(line) for line in whole]
        except (ValueError, RecursionError):
            raise EOFError from None
        if len(self._rest) > MESSAGE_BYTES or not all(type(message) is dict for message in messages):
            raise EOFError
        return messages

    def close(self) -> None:
        self._link.close()


def listen(host: str, port: int, *, local: bool) -> socket.socket:
    """Listen at `host`'s own address, `port` 0 is any; raises OSError.

    At all addresses of this machine only where `host` is none of them, or where other machines (`local`
    false) know it by another than this one does.
    """
    family, address = resolve(host, port)
    foreign = not local and (address.startswith("127.") or address == "::1")
    try:
        return _listen(family, "" if foreign else address, port)
    except OSError:
        if foreign or not _is_foreign(family, address):
            raise
        return _listen(family, "", port)


def _listen(family: socket.AddressFamily, address: str, port: int) -> socket.socket:
    server = socket.socket(family)
    try:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind((address, port))
        server.listen(4096)
    except OSError:
        server.close()
        raise
    return server


def _is_foreign(family: socket.AddressFamily, address: str) -> bool:
    """Whether nobody could listen at this address here, at any port."""
    with socket.socket(family) as probe:
        try:
            probe.bind((address, 0))
        except OSError:
            return True
    return False


def resolve(host: str, port: int) -> tuple[socket.AddressFamily, str]:
    """The address of a name, IPv4 before IPv6. Raises socket.gaierror."""
    deadline = time.monotonic() + GREETING_SECONDS
    while True:
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except socket.gaierror as error:
            if error.errno != socket.EAI_AGAIN or time.monotonic() > deadline:
                raise
            time.sleep(0.5)
            continue
        family, _, _, _, address = min(found, key=lambda one: one[0] != socket.AF_INET)
        return family, str(address[0])


def reach(host: str, port: int, deadline: float) -> socket.socket:
    """A connection to whoever listens there by `deadline`. Raises OSError."""
    resolve(host, port)
    pause = 0.05
    while True:
        try:
            return socket.create_connection((host, port), timeout=max(deadline - time.monotonic(), 0.1))
        except socket.gaierror:
            raise
        except OSError:
            if time.monotonic() + pause > deadline:
                raise
        time.sleep(pause)
        pause = min(2 * pause, 1.0)


def readable(ends: Iterable[Any], seconds: float) -> list[Any]:
    """Those of `ends` that have something to say, or have ended, within `seconds`."""
    poll, by_number = select.poll(), {end.fileno(): end for end in ends}
    for number in by_number:
        poll.register(number, select.POLLIN)
    return [by_number[number] for number, _ in poll.poll(seconds * 1000)]
