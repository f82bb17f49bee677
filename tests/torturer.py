"""Run a whole conversation in memory while one system call of it fails, and see who suffers.

    calls = Conversation(is_secure).run(FaultPlan())         what there is to fail
    for plan in every_fault(calls):
        Conversation(is_secure).run(plan)                    asserts what is owed to everyone

The conversation: a client of ours connects to a server of ours (with TLS or without), shakes hands,
gets an echo, sends a fragmented message, gets a large one and a broadcast, and closes. Both ends
run on one reactor, beside a healthy client whose calls do not fail. Afterwards:

- I1: the process lives, and no traceback is in the log.
- I2: the healthy client gets its pong in the same instant, throughout.
- I3: when the client is gone, descriptors, watched handlers, slots, handshakes and timers are as
  before.
- Who tries again succeeds: where the failure is of that kind, the conversation is as if nothing
  had happened. Otherwise what has arrived is the beginning of what was sent, no more.
- ``on_open`` and ``on_close`` balance, and every end has a cause.
"""

from __future__ import annotations

import errno
import logging
from functools import cache
from types import TracebackType
from typing import Any, ClassVar

from tls_peer import AUTHORITY, certificate

from reactor.faults import FaultPlan
from reactor.memory_tls import MemoryServerTLS, in_memory
from reactor.tls import client_context
from websocket import Frame, FrameWriter, Limits, Opcode, State, connect
from websocket.testing import Recorder, VirtualServer

LARGE = "large " * 20_000
SAID = ["hello", "in three parts", LARGE]
ANSWERED = ["HELLO", "IN THREE PARTS", LARGE.upper(), "to all"]

# Whoever tries again succeeds, but for a client whose listener has a full backlog.
_FINAL = ("connect_ex", errno.EAGAIN)


class Echo(Recorder):
    """Shout back, and be remembered."""

    __slots__ = ()

    born: ClassVar[list[Echo]]

    def on_open(self) -> None:
        super().on_open()
        self.born.append(self)

    def on_message(self, message: str | bytes) -> None:
        super().on_message(message)
        self.send(str(message).upper())


@cache
def server_tls() -> MemoryServerTLS:
    return MemoryServerTLS(certificate("server"))


@cache
def client_tls() -> Any:
    return in_memory(client_context(AUTHORITY))


class TracebackWatch(logging.Handler):
    """Keep what is logged with a traceback while the block lasts."""

    def __init__(self) -> None:
        super().__init__()
        self.tracebacks: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info:
            error = record.exc_info[1]
            self.tracebacks.append(f"{record.getMessage()}: {error!r}")

    def __enter__(self) -> TracebackWatch:
        for name in ("reactor", "websocket"):
            logging.getLogger(name).addHandler(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for name in ("reactor", "websocket"):
            logging.getLogger(name).removeHandler(self)


class Conversation:
    """Hold the stage of one run."""

    def __init__(self, is_secure: bool) -> None:
        self.is_secure = is_secure
        self.born: list[Echo] = []
        handler = type("Echo", (Echo,), {"__slots__": (), "born": self.born})
        # No session outlives its connection: that would be in the way of the baseline.
        self.limits = Limits(detached_lifetime=0.0)
        self.server = VirtualServer(
            handler, limits=self.limits, tls=server_tls() if is_secure else None
        )
        self.network, self.reactor = self.server.network, self.server.reactor
        self.healthy = self.server.connect(tls=client_tls() if is_secure else None)
        self.born.clear()
        self.baseline = self.measure()

    def run(self, plan: FaultPlan) -> list[str]:
        """Converse under a plan, check everything, and return the calls that were made."""
        with TracebackWatch() as log:
            try:
                self._play(plan)
                self._check(plan)
                assert not log.tracebacks, log.tracebacks
            finally:
                self.network.on_call = None
                self.server.close()
        return plan.calls

    # --- playing ----------------------------------------------------------------------------

    def _play(self, plan: FaultPlan) -> None:
        (listener,) = self.network.listeners.values()
        plan.exempt = {*self.network.sockets} - {listener.fileno()}
        self.network.on_call = plan
        self.client = connect(
            self.reactor,
            self.server.url(),
            Recorder,
            limits=self.limits,
            tls=client_tls() if self.is_secure else None,
        )
        # A listener that ran out of descriptors rests for a second.
        self._pass(2)
        self.client.send(SAID[0])
        self._pass(0)
        self._send_fragments(SAID[1])
        self._pass(0)
        self.client.send(SAID[2])
        self._pass(0)
        self.server.server.broadcast("to all")
        self._pass(0)
        self.client.close()
        self._pass(0)

    def _send_fragments(self, message: str) -> None:
        """Send a message in three frames, each of which arrives by itself."""
        transport = self.client.transport
        if not self.client.is_open or transport is None:
            return
        writer, words = FrameWriter(masks=True), message.split(" ")
        for number, word in enumerate(words):
            is_last = number == len(words) - 1
            opcode = Opcode.CONTINUATION if number else Opcode.TEXT
            text = word if is_last else word + " "
            transport.write(writer.encode_frame(Frame(opcode, text.encode(), fin=is_last)))
            self.reactor.run_once(0)

    def _pass(self, seconds: float) -> None:
        """Let everything happen; the healthy client is served meanwhile."""
        self.reactor.pass_time(seconds)
        now = self.network.clock.now
        self.healthy.ping(b"well?")
        self.reactor.settle()
        assert self.healthy.events[-1] == ("pong", b"well?"), "I2: the healthy client waits"
        assert self.network.clock.now == now

    # --- checking ---------------------------------------------------------------------------

    def measure(self) -> dict[str, object]:
        """Count what one client may not leave behind."""
        server = self.server.server
        return {
            "descriptors": sorted(self.network.sockets),
            "watched": len(self.reactor.selector.get_map()),
            "slots": server.manager.pool.admitted,
            "handshakes": len(server.handshakes),
            "open": server.statistics().active,
            "sessions": server.statistics().sessions.active,
            "timers": len(self.reactor._wheel),
        }

    def _check(self, plan: FaultPlan) -> None:
        # Longer than any deadline lasts that a stuck connection may have to wait for.
        for _ in range(5):
            self._pass(13)
        assert self.client.state is State.CLOSED, f"not over: {self.client.events}"
        assert self.client.cause is not None
        self._check_messages(plan)
        for connection in self.born:
            kinds = [event[0] for event in connection.events]
            assert (kinds.count("open"), kinds.count("close")) == (1, 1), kinds
            assert kinds[-1] == "close"
            assert connection.cause is not None
        assert self.measure() == self.baseline, "I3"

    def _check_messages(self, plan: FaultPlan) -> None:
        answered, said = self.client.messages, [each.messages for each in self.born]
        if plan.position is None or (
            plan.is_transient and (plan.calls[plan.position], plan.number) != _FINAL
        ):
            assert said == [SAID]
            assert answered == ANSWERED
            assert self.client.is_clean
        else:
            assert [each for each in ANSWERED if each in answered] == answered
            assert all(each == SAID[: len(each)] for each in said)
