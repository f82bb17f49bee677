"""What the scripts of this folder share: their options, the certificate, the loop of asyncio.

Each script is one server for the benchmark, started as
``python -m benchmark.peers.NAME PORT [--loop uvloop] [--deflate] [--tls PEM]``;
ours also takes ``[--busy-poll SECONDS]``.
It listens on 127.0.0.1, echoes each message on ``/`` with its own type, and sends what arrives on
``/publish`` to everybody else.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import ssl
from collections.abc import Coroutine
from typing import Any

HOST = "127.0.0.1"
# Of the larger messages; some libraries have smaller limits.
MAX_MESSAGE_SIZE = 16 * 1024 * 1024
# Connections come many at a time.
BACKLOG = 1024


def parse() -> argparse.Namespace:
    """Return the options of a script."""
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("--loop", choices=("asyncio", "uvloop"), default="asyncio")
    parser.add_argument("--deflate", action="store_true", help="agree to compression")
    parser.add_argument("--busy-poll", type=float, default=0.0, metavar="SECONDS")
    parser.add_argument("--tls", metavar="PEM", help="certificate and key, for TLS")
    return parser.parse_args()


def tls_context(options: argparse.Namespace) -> ssl.SSLContext | None:
    """Return what shows the certificate, None without TLS."""
    if options.tls is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(options.tls)
    return context


def run(options: argparse.Namespace, main: Coroutine[Any, Any, None]) -> None:
    """Run a server of asyncio on the loop that was asked for."""
    if options.loop == "uvloop":
        importlib.import_module("uvloop").run(main)
    else:
        asyncio.run(main)
