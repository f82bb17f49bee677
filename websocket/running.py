"""``Server.run``: serve until the end, which a signal or an exception asks for.

    SIGINT, SIGTERM     shut down; the second one: at once
    SIGHUP              read the certificate again
    KeyboardInterrupt, SystemExit of a callback
                        shut down, then raise it again; the second one: at once

Signals are handled in the main thread only; elsewhere they are left to whoever runs there.

Not for: how a server comes to its end, see ``shutdown.py``.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import TYPE_CHECKING

from reactor.signals import signals_handled
from websocket.events import complain, note

if TYPE_CHECKING:
    from websocket.server import Server
    from websocket.shutdown import Shutdown


def run(server: Server, shutdown: Shutdown, has_certificate: bool) -> None:
    """See ``Server.run``."""
    # Before it listens: who sees that it does may send a signal.
    with signals_handled(server.reactor, _handlers(server, shutdown, has_certificate)):
        if not server.addresses and not server.is_draining:
            server.start()
        try:
            server.reactor.run()
        except (KeyboardInterrupt, SystemExit):
            server.shutdown()
            server.reactor.run()
            raise


def _handlers(
    server: Server, shutdown: Shutdown, has_certificate: bool
) -> dict[int, Callable[[], object]]:
    def stop() -> None:
        if server.is_shutting_down:
            note("shutdown_forced", "second signal: closing at once")
            shutdown.abort()
        else:
            server.shutdown()

    def reload() -> None:
        try:
            server.reload_certificates()
        except OSError as error:
            text = "the new certificate is refused, the old one stays: %s"
            complain("certificate_refused", text, error, error=str(error))
        else:
            note("certificate_reloaded", "certificate reloaded")

    handlers: dict[int, Callable[[], object]] = {signal.SIGINT: stop, signal.SIGTERM: stop}
    if has_certificate and hasattr(signal, "SIGHUP"):
        handlers[signal.SIGHUP] = reload
    return handlers
