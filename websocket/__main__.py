"""The command line.

    python -m websocket serve echo --port 8080
    python -m websocket serve package.module:MyConnection --max-message-size 65536
    python -m websocket connect ws://127.0.0.1:8080/

``serve`` logs to stderr; SIGINT and SIGTERM let it close its connections and exit with status
0, a second one at once. SIGUSR1 makes it accept nobody any more and exit with status 0 when the
last client has left: for a restart, when another process listens on the port (``--reuse-port``).

``connect`` sends each line of stdin as a text message and prints what arrives; at the end of
stdin it waits for the answers under way, then closes.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from reactor import Reactor, ReactorClosed
from reactor.signals import signals_handled
from websocket.client import connect
from websocket.connection import Connection
from websocket.handshake import SAME_ORIGIN, Upgrader
from websocket.limits import Limits
from websocket.opcodes import CloseCode
from websocket.policies import Excess, SlowConsumer
from websocket.server import Server

if TYPE_CHECKING:
    import ssl

    from reactor.tls import ServerTLS

_END_OF_INPUT = b"end of input"
_SHOWN = {"None": "off", "True": "yes", "False": "no"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return the exit status: 0, 1 for a failure, 2 for wrong arguments."""
    options = _parser().parse_args(arguments)
    try:
        status: int = options.command(options)
    except _UsageError as error:
        print(f"websocket: {error}", file=sys.stderr)
        return 2
    except (OSError, UnicodeError) as error:  # a host name may be no name at all
        print(f"websocket: {getattr(error, 'strerror', None) or error}", file=sys.stderr)
        return 1
    return status


class _UsageError(Exception):
    """Report in one line what is wrong with the arguments."""


# --- arguments --------------------------------------------------------------------------------


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m websocket", description="WebSocket tools.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_serve(commands.add_parser("serve", help="run a server"))
    _add_connect(commands.add_parser("connect", help="talk to a server"))
    return parser


def _add_serve(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(command=_serve)
    parser.add_argument("app", metavar="APP", help="echo, or module:ConnectionSubclass")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (%(default)s)")
    parser.add_argument("--port", type=_port, default=8080, help="0 for any free one (%(default)s)")
    parser.add_argument("--unix", metavar="PATH", help="listen on a Unix socket instead")
    parser.add_argument("--certificate", metavar="FILE", help="speak TLS with this PEM file")
    parser.add_argument("--key", metavar="FILE", help="the key, unless it is in the same file")
    parser.add_argument("--compression", action="store_true", help="accept permessage-deflate")
    parser.add_argument("--reuse-port", action="store_true", help="share the port")
    parser.add_argument(
        "--origin",
        action="append",
        metavar="ORIGIN",
        help="let pages of this origin connect, too; '*' for all; repeatable",
    )
    parser.add_argument(
        "--allowed-host", action="append", metavar="HOST", help="refuse other hosts; repeatable"
    )
    parser.add_argument("--verbose", action="store_true", help="log every connection")
    group = parser.add_argument_group("limits", "sizes in bytes, times in seconds")
    defaults = Limits()
    for limit in fields(Limits):
        default = getattr(defaults, limit.name)
        group.add_argument(
            "--" + limit.name.replace("_", "-"),
            type=_limit_type(str(limit.type)),
            default=default,
            metavar="N",
            help=f"{limit.metadata['help']} ({_SHOWN.get(str(default), default)})",
        )


def _add_connect(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(command=_connect)
    parser.add_argument("url", metavar="URL", help="ws://host[:port]/path")
    parser.add_argument(
        "--subprotocol", action="append", default=[], metavar="NAME", help="offer it; repeatable"
    )
    parser.add_argument("--origin", metavar="ORIGIN", help="the value of Origin")
    parser.add_argument("--authorities", metavar="FILE", help="PEM file of authorities to trust")
    parser.add_argument("--proxy", metavar="URL", help="http://[user:password@]host[:port]")
    parser.add_argument("--compression", action="store_true", help="offer permessage-deflate")


def _limit_type(annotation: str) -> Callable[[str], Any]:
    """Return what reads a limit from the command line."""
    name, _, optional = annotation.partition(" | ")
    convert = _CONVERTERS[name]

    def read(text: str) -> Any:
        return None if optional and text == "off" else convert(text)

    # argparse shows it: "invalid number or off value: 'x'".
    words = {"bool": "yes or no", "Excess": "policy", "SlowConsumer": "policy"}
    read.__name__ = "number or off" if optional else words.get(name, name)
    return read


def _port(text: str) -> int:
    port = int(text)
    if not 0 <= port <= 65_535:
        raise ValueError(text)
    return port


# argparse shows it: "invalid port value: '99999'".
_port.__name__ = "port"


def _yes_or_no(text: str) -> bool:
    if text not in ("yes", "no"):
        raise ValueError(text)
    return text == "yes"


_CONVERTERS: dict[str, Callable[[str], Any]] = {
    "int": int,
    "float": float,
    "bool": _yes_or_no,
    "Excess": Excess,
    "SlowConsumer": SlowConsumer,
}


# --- serve ------------------------------------------------------------------------------------


class Echo(Connection):
    """Send every message back."""

    __slots__ = ()

    def on_message(self, message: str | bytes) -> None:
        """Send it back."""
        self.send(message)


def _serve(options: argparse.Namespace) -> int:
    logging.basicConfig(
        stream=sys.stderr,
        level=logging.DEBUG if options.verbose else logging.INFO,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    server = Server(
        _load(options.app),
        options.host,
        options.port,
        unix_path=options.unix,
        reuse_port=options.reuse_port,
        tls=_tls(options),
        limits=_limits(options),
        compression=options.compression,
        upgrader=_upgrader(options),
    )
    handlers: dict[int, Callable[..., object]] = {}
    if hasattr(signal, "SIGUSR1"):
        handlers[signal.SIGUSR1] = server.drain
    with signals_handled(server.reactor, handlers):
        server.run()
    return 0


def _load(app: str) -> type[Connection]:
    """Return the connection class that ``module:name`` stands for."""
    if app == "echo":
        return Echo
    module_name, colon, name = app.partition(":")
    if not (module_name and colon and name) or module_name.startswith("."):
        raise _UsageError(f"APP is echo or module:ConnectionSubclass, not {app!r}")
    # As a script would find it: in the folder where the command was given.
    sys.path.insert(0, os.getcwd())
    try:
        found = getattr(importlib.import_module(module_name), name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise
        raise _UsageError(f"there is no module {module_name!r} here") from None
    except AttributeError:
        raise _UsageError(f"the module {module_name!r} has no {name!r}") from None
    if not (isinstance(found, type) and issubclass(found, Connection)):
        raise _UsageError(f"{app} is no subclass of websocket.Connection")
    return found


def _tls(options: argparse.Namespace) -> ServerTLS | None:
    if options.certificate is None:
        if options.key is not None:
            raise _UsageError("--key needs --certificate")
        return None
    # Imported here, so that a server without TLS does not load OpenSSL.
    from reactor.tls import ServerTLS

    try:
        return ServerTLS(options.certificate, options.key)
    except OSError as error:
        raise _UsageError(f"--certificate or --key: {error}") from None


def _limits(options: argparse.Namespace) -> Limits:
    try:
        return Limits(**{limit.name: getattr(options, limit.name) for limit in fields(Limits)})
    except ValueError as error:
        raise _UsageError(str(error)) from None


def _upgrader(options: argparse.Namespace) -> Upgrader:
    origins = options.origin or []
    try:
        return Upgrader(
            allowed_origins=None if "*" in origins else [SAME_ORIGIN, *origins],
            allowed_hosts=options.allowed_host,
        )
    except ValueError as error:
        raise _UsageError(f"--origin or --allowed-host is {error}") from None


# --- connect ----------------------------------------------------------------------------------


class _Terminal(Connection):
    """Print what arrives."""

    __slots__ = ("_room",)

    def on_open(self) -> None:
        self._room = threading.Event()
        print("connected; end of input (Ctrl-D) closes", file=sys.stderr, flush=True)
        threading.Thread(target=self._send_lines, daemon=True).start()

    def on_message(self, message: str | bytes) -> None:
        if isinstance(message, bytes):
            message = f"({len(message)} bytes) {message.hex(' ')}"
        print(_printable(message), flush=True)

    def on_pong(self, payload: bytes) -> None:
        # Answers to what was sent before the ping have arrived before its pong.
        if payload == _END_OF_INPUT:
            self.close()

    def on_close(self, code: int, reason: str) -> None:
        self._room.set()
        print(_printable(f"closed: {code} {reason}".rstrip()), file=sys.stderr, flush=True)
        self.reactor.stop()

    def on_error(self, error: Exception) -> None:
        print(_printable(f"error: {error}"), file=sys.stderr, flush=True)
        self.reactor.stop()

    def on_writable(self) -> None:
        self._room.set()

    def _send_lines(self) -> None:
        """Send stdin line by line, as fast as the server reads; runs in a thread of its own."""
        try:
            for line in sys.stdin:
                self._room.clear()
                self.send(line.rstrip("\r\n"))
                self.reactor.call_soon_threadsafe(self._look_for_room)
                self._room.wait()
        except ReactorClosed:
            return
        finally:
            self.ping(_END_OF_INPUT)

    def _look_for_room(self) -> None:
        if not self.is_congested:
            self._room.set()


def _connect(options: argparse.Namespace) -> int:
    if isinstance(sys.stdin, io.TextIOWrapper):
        # What is no text in the terminal's encoding is no reason to stop.
        sys.stdin.reconfigure(errors="replace")
    with Reactor() as reactor:
        try:
            connection = connect(
                reactor,
                options.url,
                _Terminal,
                subprotocols=options.subprotocol,
                origin=options.origin,
                compression=options.compression,
                tls=_client_context(options.authorities),
                proxy=options.proxy,
            )
        except ValueError as error:
            raise _UsageError(str(error)) from None
        with contextlib.suppress(KeyboardInterrupt):
            reactor.run()
        if connection.is_open:
            connection.close()
            with contextlib.suppress(KeyboardInterrupt):
                reactor.run()
    end = connection.closed
    is_regular = end is not None and end.code in (CloseCode.NORMAL, CloseCode.GOING_AWAY)
    return 0 if connection.is_clean and is_regular else 1


def _client_context(authorities: str | None) -> ssl.SSLContext | None:
    if authorities is None:
        return None
    from reactor.tls import client_context

    try:
        return client_context(authorities)
    except OSError as error:
        raise _UsageError(f"--authorities: {error}") from None


def _printable(text: str) -> str:
    """Escape what would move the cursor or change the terminal's state."""
    return "".join(
        character if character.isprintable() or character in "\t\n" else f"\\x{ord(character):02x}"
        for character in text
    )


if __name__ == "__main__":
    sys.exit(main())
