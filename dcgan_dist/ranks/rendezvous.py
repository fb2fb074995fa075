"""How the ranks of one attempt find each other, and no others: at a store that may be older than they are.

torchrun keeps one store over all its restarts, and neither its count of them nor anything else in the
environment is the same on all nodes. So each rank says hello there with a word of its own; rank 0 answers
under that word with a nonce and the place of a store of its own, and every rank connects to it for life. What
earlier attempts left is under words that nobody asks for. Kept out: the environment, process groups.
"""

import contextlib
import json
import re
import secrets
import socket
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import torch.distributed as dist
from torch.distributed import PrefixStore, Store, TCPStore  # type: ignore[attr-defined]

from dcgan_dist.config.reading import ConfigError
from dcgan_dist.ranks.lifeline import Lifeline, listen, reach, readable
from dcgan_dist.ranks.lost import LostRanksError, first_line
from dcgan_dist.ranks.machines import Seat
from shards.printable import printable

GLANCE_SECONDS = 0.05
AGENT_SECONDS = 20.0
NAMED = 3
"""How many differences are told with their values."""
Facts = Mapping[str, str]
NOWHERE: Seat = {"host": "", "device": "", "gpu": ""}


@dataclass(frozen=True)
class Place:
    """Where the ranks meet. `local`: all are on this machine; `agent`: torchrun keeps a store there."""

    rank: int
    ranks: int
    host: str
    port: int
    local: bool
    agent: bool

    def __str__(self) -> str:
        return f"{printable(self.host)}:{self.port}"


@dataclass
class Met:
    """The ranks of this attempt: a store for nobody else, a line to each (rank 0), or to rank 0, and where
    each computes, by rank."""

    store: Store
    lines: dict[int, Lifeline] = field(default_factory=dict)
    seats: list[Seat] = field(default_factory=list)


class NotMetError(LostRanksError):
    """The ranks did not come together; `str` says who is missing, or what is in the way."""

    def __str__(self) -> str:
        return RuntimeError.__str__(self)


def meet(place: Place, facts: Facts, *, seconds: float, seat: Seat = NOWHERE) -> Met:
    """All ranks of this attempt, each started with the same `facts`, and this one at `seat`.

    Raises NotMetError, and ConfigError, on all ranks, where the facts of one are not those of rank 0.
    """
    deadline = time.monotonic() + seconds
    try:
        return (_host if place.rank == 0 else _join)(place, facts, seat, seconds, deadline)
    except socket.gaierror as error:
        told = f"MASTER_ADDR={printable(place.host)} cannot be resolved"
        raise NotMetError(f"{told} ({error.strerror}); give rank 0's address") from error
    except (OSError, dist.DistError) as error:
        who = "torchrun" if place.agent else "rank 0"
        told = f"{who} cannot be reached at {place}: {first_line(error)}"
        raise NotMetError(f"{told}; does it run, and is that port open?") from error


def _host(place: Place, facts: Facts, seat: Seat, seconds: float, deadline: float) -> Met:
    """Rank 0's part."""
    common, own, where = _stores(place, seconds, deadline)
    nonce = secrets.token_hex(16)
    with listen(place.host, 0, local=place.local) as server, contextlib.ExitStack() as broken:
        line_at = [where[0], server.getsockname()[1]]
        answer = json.dumps({"nonce": nonce, "store": where, "line": line_at})
        guests = _Guests(nonce, place.ranks)
        broken.callback(guests.hang_up)
        with _answering(common, answer, place.ranks) as answer_new:
            while guests.missing:
                if time.monotonic() > deadline:
                    told = f"{_ranks(guests.missing)} did not come to {place} within {seconds:.0f} s"
                    guests.tell(lost=told)
                    raise NotMetError(f"{told} (train.timeout_seconds)")
                answer_new(guests.missing)
                guests.take(server)
        told = differences(facts, guests.facts)
        if told:
            guests.tell(refused=told)
            raise ConfigError(told)
        seats = [dict(seat), *(guests.seats[rank] for rank in range(1, place.ranks))]
        guests.tell(go=seats)
        broken.pop_all()
        guests.dismiss_strangers()
    return Met(PrefixStore(nonce, own), guests.lines, [*seats])


def _stores(place: Place, seconds: float, deadline: float) -> tuple[Store, Store, list[Any]]:
    """Where to be found, a store that nobody used before, and where that one is."""
    if place.agent:
        common = _common(place, seconds, deadline)
        server = listen(place.host, 0, local=place.local)
    else:
        try:
            server = listen(place.host, place.port, local=place.local)
        except socket.gaierror:
            raise
        except OSError as error:
            raise NotMetError(
                f"rank 0 cannot listen at {place} ({error.strerror}): another run may be there, or what is "
                "left of one; choose another MASTER_PORT"
            ) from None
    address, port = server.getsockname()[:2]
    shown = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address, address)  # noqa: S104
    own = TCPStore(
        shown,
        port,
        is_master=True,
        wait_for_workers=False,
        timeout=timedelta(seconds=seconds),
        master_listen_fd=server.detach(),
    )
    return common if place.agent else own, own, [shown if place.local else place.host, port]


class _Guests:
    """Those who connect to rank 0; `lines` and `facts` of the ranks that have come."""

    def __init__(self, nonce: str, ranks: int) -> None:
        self._nonce = nonce
        self.missing = set(range(1, ranks))
        self.lines: dict[int, Lifeline] = {}
        self.facts: dict[int, dict[str, Any]] = {}
        self.seats: dict[int, dict[str, str]] = {}
        self._strangers: list[Lifeline] = []

    def take(self, server: socket.socket) -> None:
        """Whoever comes, or goes again, in a moment."""
        for end in readable([server, *self.lines.values(), *self._strangers], GLANCE_SECONDS):
            if end is server:
                self._strangers.append(Lifeline(server.accept()[0]))
            elif end in self._strangers:
                self._greet(end)
            else:  # a rank says nothing before it is told to go on: it is gone
                (rank,) = (rank for rank, line in self.lines.items() if line is end)
                self.lines.pop(rank).close()
                self.missing.add(rank)

    def _greet(self, line: Lifeline) -> None:
        try:
            messages = line.read()
            if not messages:
                return
            said = messages[0]
            known = type(said.get("rank")) is int and type(said.get("facts")) is dict
            known = known and type(said.get("seat")) is dict
            if not known or said.get("nonce") != self._nonce or said["rank"] not in self.missing:
                raise EOFError
        except EOFError:
            line.close()
        else:
            self.lines[said["rank"]], self.facts[said["rank"]] = line, said["facts"]
            self.seats[said["rank"]] = {name: str(said["seat"].get(name, "")) for name in NOWHERE}
            self.missing.remove(said["rank"])
        self._strangers.remove(line)

    def hang_up(self) -> None:
        self.dismiss_strangers()
        for line in self.lines.values():
            line.close()

    def dismiss_strangers(self) -> None:
        while self._strangers:
            self._strangers.pop().close()

    def tell(self, **words: Any) -> None:
        for line in self.lines.values():
            line.send(**words)


@contextlib.contextmanager
def _answering(store: Store, answer: str, ranks: int) -> Iterator[Any]:
    """Answers whoever says hello; what was said is taken away at the end."""
    answered: set[str] = set()

    def answer_new(missing: set[int]) -> None:
        for rank in missing:
            if not store.check([_hello(rank)]):
                continue
            word = store.get(_hello(rank)).decode(errors="replace")
            if word not in answered and re.fullmatch("[0-9a-f]{32}", word):
                store.set(_answer(word), answer)
                answered.add(word)

    try:
        yield answer_new
    finally:
        with contextlib.suppress(dist.DistError):
            for key in [*map(_answer, answered), *map(_hello, range(1, ranks))]:
                store.delete_key(key)


def _join(place: Place, facts: Facts, seat: Seat, seconds: float, deadline: float) -> Met:
    """Every other rank's part."""
    common = _common(place, seconds, deadline)
    word = secrets.token_hex(16)
    common.set(_hello(place.rank), word)
    while not common.check([_answer(word)]):
        if time.monotonic() > deadline:
            raise NotMetError(
                f"rank 0 did not come to {place} within {seconds:.0f} s (train.timeout_seconds)"
            )
        time.sleep(GLANCE_SECONDS)
    nonce, store_at, line_at = _parse(common.get(_answer(word)))
    line = Lifeline(reach(*line_at, deadline))
    with contextlib.ExitStack() as broken:
        broken.callback(line.close)
        line.send(nonce=nonce, rank=place.rank, facts=dict(facts), seat=dict(seat))
        seats = _wait_to_go(line, deadline)
        there = store_at == (place.host, place.port)
        store = common if there else _client(*store_at, seconds, deadline)
        broken.pop_all()
    return Met(PrefixStore(nonce, store), {0: line}, seats)


def _parse(answer: bytes) -> tuple[str, tuple[str, int], tuple[str, int]]:
    """Nonce, the store's place, the lifeline's."""
    found = json.loads(answer)
    (store, store_port), (line, line_port) = found["store"], found["line"]
    return str(found["nonce"]), (str(store), int(store_port)), (str(line), int(line_port))


def _wait_to_go(line: Lifeline, deadline: float) -> list[Seat]:
    """Where all ranks compute, once all have come."""
    while True:
        try:
            ready = readable([line], max(deadline + 1 - time.monotonic(), 0))
            messages = line.read() if ready else [{"lost": "rank 0 does not answer"}]
        except EOFError:
            messages = [{"lost": "rank 0 left before all ranks had met"}]
        for said in messages:
            if isinstance(said.get("go"), list):
                return list(said["go"])
            if "refused" in said:
                raise ConfigError(printable(str(said["refused"])))
            raise NotMetError(printable(str(said.get("lost"))))


def _common(place: Place, seconds: float, deadline: float) -> Store:
    """The store that rank 0 is found at; torchrun's is there before its ranks are, or torchrun is gone."""
    patience = time.monotonic() + AGENT_SECONDS if place.agent else deadline
    return _client(place.host, place.port, seconds, min(patience, deadline))


def _client(host: str, port: int, seconds: float, deadline: float) -> Store:
    reach(host, port, deadline).close()  # asked in vain, the store prints its own stack
    return TCPStore(host, port, is_master=False, wait_for_workers=False, timeout=timedelta(seconds=seconds))


def _hello(rank: int) -> str:
    return f"dcgan_dist/hello/{rank}"


def _answer(word: str) -> str:
    return f"dcgan_dist/answer/{word}"


def differences(own: Facts, others: Mapping[int, Mapping[str, Any]]) -> str:
    """One line that names the ranks whose facts are not rank 0's own, and what differs; empty if none is."""
    odd: dict[tuple[str, ...], list[int]] = {}
    for rank, facts in sorted(others.items()):
        names = tuple(name for name in sorted({*own, *facts}) if facts.get(name) != own.get(name))
        if names:
            odd.setdefault(names, []).append(rank)
    told = []
    for names, ranks in odd.items():
        theirs = others[ranks[0]]
        values = [f"{name} ({theirs.get(name)}, not {own.get(name)})" for name in names[:NAMED]]
        more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
        told.append(f"{_ranks(set(ranks))} and rank 0 were given another {', '.join(values)}{more}")
    return printable("; ".join(told) + "; give all ranks the same" if told else "")


def _ranks(ranks: set[int]) -> str:
    return f"rank{'s' * (len(ranks) > 1)} {', '.join(map(str, sorted(ranks)))}"
