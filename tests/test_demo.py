"""The demonstration program, run as a user runs it: a bare Python, nothing installed."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

DEMO = Path(__file__).resolve().parent.parent / "tools" / "demo.py"

FRAME = r"""WebSocket Server Demo
=====================

1\. Starting server on :0\.\.\.
   Server started successfully
(?:   .*\n)+
2\. Simulating client connections\.\.\.
   Client 1 connected: session-\S+
   Client 2 connected: session-\S+
   Pool size: 2 connections

3\. Sending messages\.\.\.
(?:   .*\n)+
4\. Testing disconnect\.\.\.
   Client 1 disconnected: .*
   Pool size: 1 connection
(?:   .*\n)+
5\. Session statistics\.\.\.
(?:   .*\n)*   Active sessions: 1
(?:   .*\n)*   Total connections: 3
   Failed handshakes: 1
(?:   .*\n)*
Demo completed successfully!
"""


def run_demo(port: int) -> subprocess.CompletedProcess[str]:
    # -I: neither the environment nor the current folder may help it to find the packages.
    command = [sys.executable, "-I", str(DEMO), "--port", str(port)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture(scope="module")
def done() -> subprocess.CompletedProcess[str]:
    return run_demo(0)


def test_the_demo_runs_to_its_end_and_prints_what_it_promises(
    done: subprocess.CompletedProcess[str],
) -> None:
    assert done.stderr == ""
    assert done.returncode == 0
    assert re.fullmatch(FRAME, done.stdout), done.stdout


def test_what_the_demo_prints_comes_from_the_running_system(
    done: subprocess.CompletedProcess[str],
) -> None:
    output = done.stdout
    ids = re.findall(r"Client [12] connected: (session-\S+)", output)
    assert len(set(ids)) == 2
    assert f"Client 1 came back to {ids[0]}, its data is {{'messages': 1}}" in output
    assert f"Session expired: {ids[1]}" in output


def test_a_taken_port_is_one_clear_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run_demo(port)
    assert done.returncode == 1
    assert done.stderr == (
        f"demo: cannot listen on port {port}: Address already in use; try --port 0\n"
    )


def test_a_port_out_of_range_is_a_usage_error() -> None:
    done = run_demo(70_000)
    assert done.returncode == 2
    assert "0 to 65535" in done.stderr
    assert "Traceback" not in done.stderr
