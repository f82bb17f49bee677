"""The command line: ``serve`` and ``connect``, in this process and as real processes."""

from __future__ import annotations

import re
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest
from tls_peer import AUTHORITY, certificate

from websocket import Limits
from websocket.__main__ import main

APP = """
from websocket import Connection

class Upper(Connection):
    def on_message(self, message):
        self.send(message.upper())

class Unrelated:
    pass
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "app.py").write_text(APP)
    (tmp_path / "broken.py").write_text("import nothing_of_that_name\n")
    return tmp_path


def read_until(stream: IO[str], pattern: str, seconds: float = 30) -> re.Match[str]:
    """Read lines until one matches; fail when the process does not print it in time."""
    deadline = time.monotonic() + seconds
    with selectors.DefaultSelector() as selector:
        selector.register(stream, selectors.EVENT_READ)
        seen = []
        while time.monotonic() < deadline:
            if selector.select(0.5):
                line = stream.readline()
                seen.append(line)
                match = re.search(pattern, line)
                if match:
                    return match
                if not line:
                    break
    raise AssertionError(f"{pattern!r} did not come: {seen}")


class Served:
    """A server process and its port."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        command = [sys.executable, "-m", "websocket", "serve", *arguments, "--port", "0"]
        self.process = subprocess.Popen(
            command, cwd=folder, stderr=subprocess.PIPE, text=True, bufsize=1
        )
        assert self.process.stderr is not None
        self.errors = self.process.stderr
        self.port = int(read_until(self.errors, r"listening on .*, (\d+)\)").group(1))
        self.url = f"ws://127.0.0.1:{self.port}/"

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(30)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self.errors.close()


@pytest.fixture
def echo(folder: Path) -> Iterator[Served]:
    served = Served(folder, "echo")
    yield served
    served.close()


def talk(url: str, lines: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "websocket", "connect", url, *arguments]
    return subprocess.run(
        command, input=lines, capture_output=True, text=True, timeout=60, check=False
    )


# --- serve and connect together ---------------------------------------------------------------


def test_lines_go_out_as_text_and_what_arrives_is_printed(echo: Served) -> None:
    done = talk(echo.url, "hello\nwörld\n")
    assert done.stdout == "hello\nwörld\n"
    assert done.returncode == 0
    assert "closed: 1000" in done.stderr


@pytest.mark.parametrize("has_key_file", [False, True])
def test_with_a_certificate_it_speaks_tls(folder: Path, has_key_file: bool) -> None:
    arguments = ["--certificate", certificate("server")]
    if has_key_file:
        chain, mark, key = Path(certificate("server")).read_text().partition("-----BEGIN PRIVATE")
        (folder / "chain.pem").write_text(chain)
        (folder / "key.pem").write_text(mark + key)
        arguments = ["--certificate", "chain.pem", "--key", "key.pem"]
    served = Served(folder, "echo", *arguments)
    url = served.url.replace("ws:", "wss:")
    try:
        done = talk(url, "hello\n", "--authorities", AUTHORITY)
        assert (done.stdout, done.returncode) == ("hello\n", 0)
        # The authority of the tests is none of the system's.
        done = talk(url, "hello\n")
        assert (done.stdout, done.returncode) == ("", 1)
        assert "certificate verify failed" in done.stderr
    finally:
        served.close()


def test_compression_is_an_option_of_both_commands(folder: Path) -> None:
    served = Served(folder, "echo", "--compression", "--max-message-size", "100000")
    try:
        assert talk(served.url, "x" * 99_999 + "\n", "--compression").stdout == "x" * 99_999 + "\n"
    finally:
        served.close()


def test_what_would_move_the_cursor_is_escaped(echo: Served) -> None:
    assert talk(echo.url, "red\x1b[31m\x07\n").stdout == "red\\x1b[31m\\x07\n"


def test_an_application_is_named_by_module_and_class(folder: Path) -> None:
    served = Served(folder, "app:Upper")
    try:
        assert talk(served.url, "hello\n").stdout == "HELLO\n"
    finally:
        served.close()


def test_a_limit_given_as_an_option_is_kept(folder: Path) -> None:
    served = Served(folder, "echo", "--max-message-size", "5", "--ping-interval", "off")
    try:
        done = talk(served.url, "12345\n123456\n")
    finally:
        served.close()
    assert done.stdout == "12345\n"
    assert "closed: 1009 message is larger than 5 bytes" in done.stderr
    assert done.returncode == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_drains_the_server_and_ends_it_with_status_0(echo: Served, number: int) -> None:
    command = [sys.executable, "-m", "websocket", "connect", echo.url]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True, bufsize=1
    ) as client:
        assert client.stderr is not None
        read_until(client.stderr, "connected")
        assert echo.stop(number) == 0
        read_until(
            client.stderr, r"closed: 1001 the server is going away; retry after [0-5]\.\d\d s$"
        )


def test_a_second_signal_ends_the_server_at_once(echo: Served) -> None:
    command = [sys.executable, "-m", "websocket", "connect", echo.url]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True, bufsize=1
    ) as client:
        assert client.stderr is not None
        read_until(client.stderr, "connected")
        # A client that does not answer the close frame would be waited for.
        client.send_signal(signal.SIGSTOP)
        try:
            echo.process.send_signal(signal.SIGTERM)
            read_until(echo.errors, "shutting down")
            began = time.monotonic()
            assert echo.stop() == 0
            # Well below the 5 s that a close frame may stay unanswered.
            assert time.monotonic() - began < 4
        finally:
            client.send_signal(signal.SIGCONT)
            client.communicate(timeout=30)


@pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="the system has no SIGUSR1")
def test_a_drained_server_ends_when_the_last_client_has_left(echo: Served) -> None:
    command = [sys.executable, "-m", "websocket", "connect", echo.url]
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        bufsize=1,
    ) as client:
        assert client.stdin is not None
        assert client.stdout is not None
        assert client.stderr is not None
        read_until(client.stderr, "connected")
        echo.process.send_signal(signal.SIGUSR1)
        read_until(echo.errors, "draining: 1 open")
        assert main(["connect", echo.url]) == 1
        client.stdin.write("still here?\n")
        read_until(client.stdout, r"still here\?")
        assert echo.process.poll() is None
        client.communicate(timeout=30)
        assert echo.process.wait(30) == 0
        assert client.returncode == 0


def test_ctrl_c_closes_the_client_in_an_orderly_way(echo: Served) -> None:
    command = [sys.executable, "-m", "websocket", "connect", echo.url]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True, bufsize=1
    ) as client:
        assert client.stderr is not None
        read_until(client.stderr, "connected")
        client.send_signal(signal.SIGINT)
        read_until(client.stderr, "closed: 1000")
        client.communicate(timeout=30)
        assert client.returncode == 0


# --- in this process --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["serve", "nothing"], "APP is echo or module:ConnectionSubclass, not 'nothing'"),
        (["serve", "no_such_module:X"], "there is no module 'no_such_module' here"),
        (["serve", "app:Missing"], "the module 'app' has no 'Missing'"),
        (["serve", "app:Unrelated"], "app:Unrelated is no subclass of websocket.Connection"),
        (
            ["serve", "echo", "--max-fragments", "0"],
            "must be positive and finite, not 0",
        ),
        (["serve", "echo", "--origin", "x"], "--origin or --allowed-host is not of the form"),
        (["serve", "echo", "--key", "app.py"], "--key needs --certificate"),
        (["serve", "echo", "--certificate", "missing.pem"], "--certificate or --key: "),
        (["serve", "echo", "--certificate", "app.py"], "--certificate or --key: "),
        (["connect", "wss://127.0.0.1/", "--authorities", "missing.pem"], "--authorities: "),
        (["connect", "wss://127.0.0.1/", "--authorities", "app.py"], "--authorities: "),
        (["connect", "ws://127.0.0.1/", "--proxy", "socks5://x"], "a proxy reads http://"),
        (["connect", "http://127.0.0.1/"], "the scheme of a WebSocket URL is ws or wss, not http"),
    ],
)
def test_wrong_arguments_are_one_clear_line_and_status_2(
    arguments: list[str],
    message: str,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", sys.path[:])
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("websocket: ")
    assert message in error
    assert error.count("\n") == 1


def test_a_module_that_cannot_be_imported_shows_its_own_error(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", sys.path[:])
    with pytest.raises(ModuleNotFoundError, match="nothing_of_that_name"):
        main(["serve", "broken:App"])


def test_a_taken_port_is_one_clear_line_and_status_1(
    echo: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["serve", "echo", "--port", str(echo.port)]) == 1
    assert "websocket: Address already in use" in capsys.readouterr().err


def test_an_unreachable_server_is_one_clear_line_and_status_1(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["connect", "ws://127.0.0.1:1/"]) == 1
    assert (
        "error: cannot connect to 127.0.0.1 port 1: Connection refused" in capsys.readouterr().err
    )


def test_the_help_names_every_limit_with_its_default(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["serve", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    for name, value in vars(Limits()).items():
        shown = {None: "off", True: "yes", False: "no"}.get(value, value)
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            shown = value
        assert f"--{name.replace('_', '-')} N" in text
        assert f"({shown})" in text


@pytest.mark.parametrize("text", ["maybe", "1"])
def test_a_yes_or_no_takes_nothing_else(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["serve", "echo", "--loopback-is-exempt", text])
    assert "invalid yes or no value" in capsys.readouterr().err


def test_without_a_command_the_usage_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main([])
    assert "usage:" in capsys.readouterr().err
