"""Threads for work that blocks: look-ups, files, computing; the way back is a callback.

    reactor.run_in_executor(function, *args, on_done=callback)

Not for: what touches the reactor or its connections, which only its own thread may.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import TypeVar

from reactor.errors import ReactorClosed
from reactor.log import name_of

logger = logging.getLogger("reactor")

Result = TypeVar("Result")


class Workers:
    """Keep a pool of threads, made when the first work comes.

    Args:
        hand_over: calls back in the reactor's thread; raises ``ReactorClosed`` when it is gone.
    """

    __slots__ = ("_hand_over", "_pool")

    def __init__(self, hand_over: Callable[..., object]) -> None:
        self._hand_over = hand_over
        self._pool: ThreadPoolExecutor | None = None

    def run(
        self,
        function: Callable[..., Result],
        args: tuple[object, ...],
        on_done: Callable[[Future[Result]], object] | None,
    ) -> Future[Result]:
        """Run a function in another thread; see ``Reactor.run_in_executor``."""
        if self._pool is None:
            self._pool = ThreadPoolExecutor(thread_name_prefix="reactor")
        future = self._pool.submit(function, *args)
        if on_done is not None:
            future.add_done_callback(partial(self._bring_back, on_done))
        return future

    def close(self) -> None:
        """Wait for the work that is under way."""
        if self._pool is not None:
            self._pool.shutdown(wait=True)

    def _bring_back(
        self, on_done: Callable[[Future[Result]], object], future: Future[Result]
    ) -> None:
        try:
            self._hand_over(on_done, future)
        except ReactorClosed:
            logger.debug("result of %s came after the reactor was closed", name_of(on_done))
