r"""A server under attack, in virtual time, and what it owes to everyone whatever is sent.

    arena = hostile(limits=..., ...)          a server, and a healthy client on it
    offender = arena.offender()               one more client, whose handshake was good
    offender.send([b"\x82", b"\x05"])           each piece is a read of its own
    arena.expect_fail(offender, 1002, ...)    one close frame, an orderly end, nothing left

Each ``expect`` checks the invariants of the catalogue: the healthy client gets its pong in the
same instant (I2); when the offender is gone, descriptors, slots, sessions and timers are as
before (I3); there is one line in the log at the most (I4); ``on_open`` and ``on_close`` balance,
with the right cause (I5); and nothing is busy (I7: ``Stage.settle`` comes to an end). That no
exception is logged (I1) is the policy of all tests, see ``conftest.py``; memory (I6) is asserted
where a row is about it, see ``memory.py``.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Any, ClassVar, NamedTuple

from reactions import our_socket
from splits import every_split
from support import (
    Answer,
    MemorySocket,
    Peer,
    Recorder,
    Stage,
    as_socket,
    close_events,
    read_answer,
    upgrade_request,
)

from websocket import Cause, Limits, Opcode, Server, Upgrader

OFFENDER = "203.0.113.7"
HEALTHY = "192.0.2.1"

Frames = Sequence[tuple[int, Any]]


def splits_of(wire: bytes, random_splits: int = 4) -> Iterator[list[bytes]]:
    """Yield the ways to cut what is sent: every cut in two up to 64 bytes, and random ones."""
    cuts = range(1, len(wire)) if len(wire) <= 64 else ()
    seen = set()
    for split in chain(every_split(wire, random_splits), ([wire[:at], wire[at:]] for at in cuts)):
        pieces = [piece for piece in split if piece]
        sizes = tuple(map(len, pieces))
        if sizes not in seen:
            seen.add(sizes)
            yield pieces


class Witness(Recorder):
    """Tell the arena of every connection that was opened."""

    __slots__ = ()

    opened: ClassVar[list[Recorder]]

    def on_open(self) -> None:
        super().on_open()
        self.opened.append(self)


class Offender(NamedTuple):
    """Hold the end of a stream from which nothing good is to be expected, and our end."""

    stage: Stage
    peer: Peer
    connection: Recorder

    def send(self, pieces: Iterable[bytes]) -> None:
        """Send pieces, each of which arrives by itself; they are handled in no time."""
        deliver(self.stage, self.peer, pieces)

    def leave(self) -> None:
        """End the stream from the offender's end."""
        self.peer.sock.end()
        self.stage.settle()

    @property
    def messages(self) -> list[str | bytes]:
        return self.connection.messages


class Arena:
    """Lead offenders against a server, and check what it owes to everyone.

    Args:
        stage: gives network, clock and reactor.
        handler: what serves the connections; by default a recorder that says it was opened.
        limits: of the server, but for two: a session that outlives its connection would stand
            between a row and the baseline, and
        handshakes_per_minute: most rows are more handshakes of one address than are allowed.
        upgrader: the policy of the opening handshake, from after the healthy client's on.
        options: of the server.
    """

    def __init__(
        self,
        stage: Stage,
        handler: Any = None,
        limits: Limits | None = None,
        handshakes_per_minute: float | None = None,
        upgrader: Upgrader | None = None,
        **options: Any,
    ) -> None:
        self.stage = stage
        self.opened: list[Recorder] = []
        self.log = _Log()
        self.witness = type("Witness", (Witness,), {"__slots__": (), "opened": self.opened})
        self.limits = (limits or Limits()).replace(
            detached_lifetime=0.0, handshakes_per_minute=handshakes_per_minute
        )
        self.server: Server = stage.server(handler or self.witness, limits=self.limits, **options)
        if "sockets" in options:
            self.server.start()
        self.healthy = stage.open_client(self.server, HEALTHY)
        if upgrader is not None:
            self.server.upgrader = upgrader
        self.log.lines.clear()
        self.baseline = self.measure()

    def close(self) -> None:
        """Check for the last time, and end it all."""
        self.check()
        self.server.close()
        self.log.close()

    # --- offenders --------------------------------------------------------------------------

    def stranger(self, host: str = OFFENDER) -> Peer:
        """Return a peer whose stream was accepted, and who has not said anything."""
        return self.stage.client(self.server, b"", host)

    def request(self, pieces: Iterable[bytes], host: str = OFFENDER) -> Peer:
        """Return a peer that has sent something instead of, or as, an opening handshake."""
        peer = self.stranger(host)
        deliver(self.stage, peer, pieces)
        return peer

    def offender(self, **fields: str) -> Offender:
        """Return a client whose opening handshake was good; more header fields as keywords."""
        return self.last(self.stage.open_client(self.server, OFFENDER, **fields))

    def last(self, peer: Peer) -> Offender:
        """Return a peer with the connection that was opened last, which must be its own."""
        return Offender(self.stage, peer, self.opened[-1])

    def offending_server(self, limits: Limits | None = None) -> Offender:
        """Return a server to which a client of ours is connected, on the same reactor."""
        connection, peer = self.stage.connection(is_client=True, limits=limits or self.limits)
        return Offender(self.stage, peer, connection)

    # --- what must come of it ---------------------------------------------------------------

    def expect_fail(
        self,
        offender: Offender,
        code: int,
        cause: Cause,
        *,
        messages: Sequence[str | bytes] = (),
        answers: Frames = (),
        stays: bool = False,
    ) -> None:
        """Check that the connection was failed: "fail N" of the catalogue, section 0.

        Args:
            offender: what has just offended.
            code: of the one close frame.
            cause: what the connection says.
            messages: what was delivered before.
            answers: the frames that were sent before the close frame.
            stays: the offender does not end its stream: then we do, after the linger.
        """
        peer, connection = offender.peer, offender.connection
        closed = peer.received_close()
        assert closed is not None, "no close frame"
        assert closed[0] == code
        assert closed[1].isascii()
        assert 0 < len(closed[1]) <= 60
        assert peer.frames[:-1] == list(answers)
        assert peer.sees_end
        assert connection.messages == list(messages)
        peer.send("late")
        peer.send_frame(Opcode.PING, b"late")
        peer.close()
        self.stage.settle()
        assert peer.receive() == []
        assert peer.sees_end
        assert connection.messages == list(messages)
        if stays:
            self.pass_time(self.limits.linger_timeout)
        else:
            offender.leave()
        self.expect_over(offender, cause, code)

    def expect_over(self, offender: Offender, cause: Cause, code: int) -> None:
        """Check that a connection is over, has said so once, and has left nothing."""
        connection = offender.connection
        found, (_, found_code, _) = close_events(connection)
        assert (found, found_code) == (cause, code)
        assert connection.events[0] == ("open",)
        assert connection.events.count(("open",)) == 1
        assert our_socket(offender.peer).is_closed
        self.check()

    def expect_open(self, offender: Offender, messages: Sequence[str | bytes]) -> None:
        """Check that nothing bad has come of it; close the connection in an orderly way."""
        assert offender.messages == list(messages)
        assert offender.connection.is_open
        offender.peer.close()
        self.stage.settle()
        assert offender.peer.received_close() == (1000, "")
        assert offender.peer.sees_end
        offender.leave()
        self.expect_over(offender, Cause.CLOSED_BY_PEER, 1000)

    def expect_refusal(self, peer: Peer, status: int, *, stays: bool = False) -> Answer:
        """Check that a request was refused: "refuse S" of the catalogue, section 0."""
        opened = len(self.opened)
        answer = read_answer(peer)
        assert answer.status == status
        assert answer.body.isascii()
        peer.send_bytes(upgrade_request() + b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        self.stage.settle()
        assert peer.sock.take() == b""
        assert peer.sees_end
        if stays:
            self.pass_time(self.limits.linger_timeout)
        else:
            peer.sock.end()
            self.stage.settle()
        assert our_socket(peer).is_closed
        assert len(self.opened) == opened
        self.check()
        return answer

    def expect_dropped(self, peer: Peer, status: str) -> None:
        """Check that a stream was closed without an answer, and counted under a word."""
        assert peer.sock.take() == b""
        assert our_socket(peer).is_closed
        assert self.server.statistics().failed_by_reason.get(status, 0) > 0
        self.check()

    # --- the invariants ---------------------------------------------------------------------

    def check(self) -> None:
        """Check all invariants; the offenders are gone."""
        self.check_healthy()
        assert self.measure() == self.baseline
        assert len(self.log.lines) <= 1, self.log.lines
        self.log.lines.clear()
        statistics = self.server.statistics()
        assert statistics.accepted == (
            statistics.opened + statistics.failed + statistics.http + statistics.handshaking
        )

    def check_healthy(self) -> None:
        """I2: the healthy client gets its pong, in the same instant."""
        # It does not mean to ping more often than anyone may.
        self.stage.clock.now += 0.1
        now = self.stage.clock.now
        self.healthy.send_frame(Opcode.PING, b"well?")
        self.stage.settle()
        assert self.healthy.receive()[-1:] == [(Opcode.PONG, b"well?")]
        assert self.stage.clock.now == now

    def pass_time(self, seconds: float) -> None:
        """Let time go by for all but the healthy client, who stays alive throughout."""
        end = self.stage.clock.now + seconds
        while self.stage.clock.now < end:
            self.stage.pass_time(min(5.0, end - self.stage.clock.now))
            if self.stage.clock.now + 0.1 < end:
                self.check_healthy()

    def measure(self) -> dict[str, object]:
        """I3: count everything that an offender could leave behind."""
        pool, statistics = self.server.manager.pool, self.server.statistics()
        return {
            "descriptors": len(self.stage.reactor._handlers),
            "timers": len(self.stage.reactor._wheel),
            "slots": pool.admitted,
            "addresses": dict(pool._admitted_by_address),
            "handshakes": len(self.server.handshakes),
            "handshaking": statistics.handshaking,
            "open": statistics.active,
            "sessions": statistics.sessions.active,
        }


def deliver(stage: Stage, peer: Peer, pieces: Iterable[bytes]) -> None:
    """Let a peer send pieces, each of which arrives by itself."""
    for piece in pieces:
        peer.send_bytes(piece)
        stage.reactor.run_once(0)
    stage.settle()


class _Log(logging.Handler):
    """I4: keep the lines from INFO on; DEBUG is for those who look for something."""

    _LOGGERS = (logging.getLogger("websocket"), logging.getLogger("reactor"))

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.lines: list[str] = []
        for logger in self._LOGGERS:
            logger.addHandler(self)
            logger.setLevel(logging.INFO)

    def emit(self, record: logging.LogRecord) -> None:
        line = record.getMessage()
        # H36: whatever a peer has sent, one line stays one line, and a short one.
        assert line.isprintable(), line
        assert len(line) <= 400
        self.lines.append(line)

    def close(self) -> None:
        for logger in self._LOGGERS:
            logger.removeHandler(self)
            logger.setLevel(logging.NOTSET)
        super().close()


class MemoryListener(MemorySocket):
    """A listening socket in memory, for ``Server(sockets=[...])``.

    Attributes:
        backlog: our ends of the streams that wait to be accepted.
    """

    def __init__(self, stage: Stage) -> None:
        super().__init__(999_999, None, 0)
        self.backlog: list[MemorySocket] = []
        self._stage = stage
        stage.network.sockets[999_999] = self

    def connect(self, host: str = OFFENDER) -> Peer:
        """Return a peer whose stream waits to be accepted; it has sent its request."""
        ours, theirs = self._stage.network.pair((host, 50_000))
        theirs.feed(upgrade_request())
        self.backlog.append(ours)
        return Peer(theirs, is_client=True)

    def accept(self) -> tuple[Any, Any]:
        self._enter("accept")
        if not self.backlog:
            raise BlockingIOError
        sock = self.backlog.pop(0)
        return as_socket(sock), sock.getpeername()

    @property
    def is_readable(self) -> bool:
        return bool(self.backlog)
