"""Every limit and deadline of an endpoint, its default and the reason for it.

One ``Limits`` object is shared by all connections of a server. Sizes are bytes, times are
seconds, rates are per second unless the name says otherwise; ``None`` switches a limit off
where its type allows it.

    Limits()            the defaults: strict about the protocol, no rate on messages
    Limits.public()     for the open internet: messages are rated too
    Limits(...)         anything else, field by field
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from math import inf
from typing import Any

from websocket.policies import Excess, SlowConsumer
from websocket.process_memory import usable_memory

KIB = 1024
MIB = 1024 * KIB


def _default_max_connections() -> int:
    """Return at most 10,000, leaving 64 descriptors for files and the application."""
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return 10_000
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if soft == resource.RLIM_INFINITY:
        return 10_000
    return max(1, min(10_000, soft - 64))


def _default_max_buffered() -> int:
    """Return a quarter of the memory: the rest is for the objects, the application, the system."""
    return usable_memory() // 4


def _limit(default: Any, help: str) -> Any:
    """Declare a field with its one-line help, which the command line shows."""
    return field(default=default, metadata={"help": help})


@dataclass(frozen=True)
class Limits:
    """Hold all limits of an endpoint; immutable, shared, safe to read from any thread.

    Raises:
        ValueError: a number is negative, or zero where that would switch everything off; or a
            limit is None that cannot be switched off; or there is no such policy.
    """

    # --- opening handshake ------------------------------------------------------------------
    # Absolute, from accept to 101: a byte a second must not keep a half-open client alive.
    handshake_timeout: float = _limit(10.0, "seconds from accept to the end of the handshake")
    # 8 KiB a line is what the common servers take; beyond it lies abuse, not cookies.
    max_request_line: int = _limit(8 * KIB, "bytes in the request line")
    max_header_line: int = _limit(8 * KIB, "bytes in one header line")
    max_header_count: int = _limit(100, "header lines in a request")
    max_head_size: int = _limit(16 * KIB, "bytes in the whole head of a request")

    # --- messages ---------------------------------------------------------------------------
    max_message_size: int = _limit(1 * MIB, "bytes in a message, over all its fragments")
    # 1 MiB in the 256-byte fragments of a small device; more pieces are an attack on memory.
    max_fragments: int = _limit(4_096, "fragments in a message")
    message_timeout: float | None = _limit(60.0, "seconds from first to last fragment")

    # --- liveness ---------------------------------------------------------------------------
    # Below the 30 to 60 s after which common proxies and NATs forget an idle connection.
    ping_interval: float | None = _limit(20.0, "seconds of silence before a ping")
    ping_timeout: float | None = _limit(20.0, "seconds for any byte to arrive after a ping")
    idle_timeout: float | None = _limit(None, "seconds without a message before closing")
    close_timeout: float = _limit(5.0, "seconds for the closing handshake")
    # After a failure the peer's unread bytes are discarded for a while: closing at once would
    # send a reset, and the reset would eat the close frame that says what was wrong.
    linger_timeout: float = _limit(1.0, "seconds to discard input after a failure")
    linger_size: int = _limit(256 * KIB, "bytes to discard after a failure")

    # --- slow consumers ---------------------------------------------------------------------
    write_soft_mark: int = _limit(64 * KIB, "unsent bytes at which a connection is congested")
    write_hard_mark: int = _limit(1 * MIB, "unsent bytes at which a send closes the connection")
    write_stall_timeout: float | None = _limit(30.0, "seconds above the soft mark")
    # The only one that loses nothing without saying so; a class or a broadcast may have another.
    slow_consumer: SlowConsumer = field(
        default=SlowConsumer.CLOSE, metadata={"help": "what a send does above the soft mark"}
    )

    # --- rates ------------------------------------------------------------------------------
    control_rate: float | None = _limit(20.0, "control frames a second from one peer")
    control_burst: int = _limit(50, "control frames at once from one peer")
    message_rate: float | None = _limit(None, "messages a second from one peer")
    message_burst: int = _limit(100, "messages at once from one peer")
    message_excess: Excess = field(
        default=Excess.CLOSE, metadata={"help": "what becomes of messages above their rate"}
    )
    # One greedy peer must not keep the others waiting: after this many frames it queues again.
    turn_frames: int = _limit(64, "frames handled for one connection before others run")

    # --- numbers of things ------------------------------------------------------------------
    max_connections: int = field(
        default_factory=_default_max_connections,
        metadata={"help": "open connections, handshakes included"},
    )
    max_connections_per_ip: int | None = _limit(128, "open connections of one address")
    handshakes_per_minute: float | None = _limit(64.0, "handshakes a minute of one address")
    # Everything behind a reverse proxy or a test shares the loopback address.
    loopback_is_exempt: bool = _limit(True, "loopback is free of the limits per address")

    # --- memory -----------------------------------------------------------------------------
    # At four fifths of it debtors are not read from any more, see ``ledger.py``.
    max_buffered: int | None = field(
        default_factory=_default_max_buffered,
        metadata={"help": "bytes kept for all peers; beyond it the largest debtor is closed"},
    )
    # Off, since a connection that keeps all other limits owes a few times its largest message.
    max_buffered_per_connection: int | None = _limit(None, "bytes kept for one connection")
    max_buffered_per_ip: int | None = _limit(None, "bytes kept for the connections of one address")

    # --- sessions ---------------------------------------------------------------------------
    max_sessions: int = _limit(100_000, "sessions alive, attached or not")
    # As many as an address can make in two minutes by its handshakes and connections.
    max_sessions_per_ip: int | None = _limit(256, "sessions alive of one address")
    session_lifetime: float = _limit(86_400.0, "seconds a session lives at the most")
    session_idle_timeout: float | None = _limit(None, "seconds without a message in a session")
    detached_lifetime: float = _limit(120.0, "seconds a session waits for its client")
    replay_messages: int = _limit(128, "messages kept for a client that is away")
    replay_size: int = _limit(256 * KIB, "bytes kept for a client that is away")
    # One for all, since 100,000 times the limit of one would be 24 GiB.
    replay_total_size: int = _limit(64 * MIB, "bytes kept for all clients that are away")

    # --- shutdown ---------------------------------------------------------------------------
    shutdown_grace: float = _limit(30.0, "seconds for all connections to close at shutdown")

    def __post_init__(self) -> None:
        for limit in fields(self):
            value = getattr(self, limit.name)
            policy = _POLICIES.get(str(limit.type))
            if policy is not None:
                object.__setattr__(self, limit.name, policy(value))
                continue
            if isinstance(value, bool):
                continue
            if value is None:
                if not str(limit.type).endswith("None"):
                    raise ValueError(f"{limit.name} cannot be switched off: give a large number")
            # In these words not-a-number fails, too.
            elif not (0 < value < inf or (value == 0 and limit.name in _MAY_BE_ZERO)):
                raise ValueError(f"{limit.name} must be positive and finite, not {value!r}")

    @classmethod
    def public(cls, **changes: Any) -> Limits:
        """Return limits for the open internet: 50 messages a second, 100 at once.

        Args:
            changes: any field of this class, to differ from those.
        """
        return cls(**{"message_rate": 50.0, **changes})

    def replace(self, **changes: Any) -> Limits:
        """Return a copy with some fields changed."""
        return replace(self, **changes)


_POLICIES: dict[str, type[Excess] | type[SlowConsumer]] = {
    "Excess": Excess,
    "SlowConsumer": SlowConsumer,
}
_MAY_BE_ZERO = frozenset(
    {"linger_timeout", "linger_size", "shutdown_grace", "detached_lifetime", "replay_messages"}
)
