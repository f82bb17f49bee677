"""The README: every example runs as printed, and what it says of the defaults is true."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import Field, fields
from pathlib import Path

import pytest

from websocket import Limits

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
EXAMPLES = dict(re.findall(r"<!-- example: (\w+) -->\n```python\n(.*?)```", README, re.DOTALL))

OUTPUTS = {
    "sessions": "count: 1\ncount: 2\ncount: 3\n",
    "envelopes": "DISPLAY b'HELLO'\n",
    "asyncio": "a timer of the reactor\n",
    "dial": "HELLO\n",
    "testing": "passed\n",
}


def start(name: str, port: int = 0) -> subprocess.Popen[str]:
    """Start an example; the only change is the port, since 8080 may be taken."""
    code = EXAMPLES[name].replace("8080", str(port)) if port else EXAMPLES[name]
    command = [sys.executable, "-X", "dev", "-W", "error", "-c", code]
    return subprocess.Popen(
        command, cwd="/", stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@contextmanager
def ended(process: subprocess.Popen[str]) -> Iterator[subprocess.Popen[str]]:
    """Leave no process behind, whatever a test finds."""
    with process:
        try:
            yield process
        finally:
            process.kill()


def test_every_python_block_is_an_example_that_is_run() -> None:
    assert README.count("```python") == len(EXAMPLES)
    assert set(EXAMPLES) == {"server", "client", *OUTPUTS}


@pytest.mark.parametrize("name", OUTPUTS)
def test_an_example_prints_what_it_should(name: str) -> None:
    with ended(start(name)) as process:
        output, errors = process.communicate(timeout=60)
    assert errors == ""
    assert output == OUTPUTS[name]
    assert process.returncode == 0


def test_the_server_and_the_client_examples_talk_to_each_other() -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with ended(start("server", port)) as server:
        output = run_client_until_connected(port)
        server.send_signal(signal.SIGTERM)
        served, errors = server.communicate(timeout=60)
    assert output == "received: welcome, you are one of 1\nreceived: hello\n"
    assert served == "gone: closed_by_peer\n"
    assert errors == ""
    assert server.returncode == 0


def run_client_until_connected(port: int) -> str:
    """Run the client example; again, as long as the server is not there yet."""
    for _ in range(50):
        with ended(start("client", port)) as client:
            output, errors = client.communicate(timeout=60)
        assert errors == ""
        if not output.startswith("failed: cannot connect"):
            return output
    raise AssertionError("the server example did not come up")


def test_the_server_example_has_about_15_lines() -> None:
    assert len(EXAMPLES["server"].strip().splitlines()) <= 18


@pytest.mark.parametrize("limit", fields(Limits), ids=lambda limit: limit.name)
def test_the_table_of_limits_is_true(limit: Field[object]) -> None:
    match = re.search(rf"^\| `{limit.name}` \| (.*) \| (.*) \|$", README, re.MULTILINE)
    assert match is not None
    shown, meaning = match.groups()
    assert meaning == limit.metadata["help"]
    default = getattr(Limits(), limit.name)
    if limit.name == "max_connections":
        assert shown == "min(10,000, descriptors - 64)"
    elif limit.name == "max_buffered":
        assert shown == "a quarter of the memory"
    elif isinstance(default, str):
        assert shown == default
    elif default is None or isinstance(default, bool):
        assert shown == {None: "off", True: "yes", False: "no"}[default]
    else:
        assert float(shown.replace(",", "")) == default


def test_the_table_has_no_limit_that_does_not_exist() -> None:
    table = README.partition("<!-- limits -->")[2].partition("\n\n")[0]
    named = re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)
    assert named == [limit.name for limit in fields(Limits)]
