"""Work done by threads, a bounded number of pieces under way, the results in order.

Kept out: what the work is.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")

THREADS = 8
"""As many reads hide the time that storage takes to answer."""


def in_order(
    work: Callable[[T], R], items: Iterable[T], *, threads: int = THREADS
) -> Generator[R, None, None]:
    """`work` done for each item; at most `threads` results are under way or wait. Close it when it is left.

    The error of an item is raised in its turn, and what was not begun is left.
    """
    pool = ThreadPoolExecutor(threads)
    under_way: deque[Future[R]] = deque()
    try:
        for item in items:
            under_way.append(pool.submit(work, item))
            if len(under_way) == threads:
                yield under_way.popleft().result()
        while under_way:
            yield under_way.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
