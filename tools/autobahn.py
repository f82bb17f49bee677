"""Run the Autobahn test suite against this checkout: its fuzzer and our server, or our client.

    python3 tools/autobahn.py server client                   every case, in both roles
    python3 tools/autobahn.py client --exclude '12.*' '13.*'  all but compression, our client
    python3 tools/autobahn.py server --cases '6.4.*' 7.1.5    these

Our side (``autobahn_peer.py``) runs with the Python that runs this script and needs no
installation. The suite needs a Python 2.7, which is looked for on PATH and in pyenv's versions
(``AUTOBAHN_PYTHON`` names another one); it is installed into ``.tox/autobahn-suite/`` at the first
run. Everything stays on 127.0.0.1.

Printed are how often each verdict was given and every case that is not OK or INFORMATIONAL. The
same is in ``summary.json`` of the role's output folder, beside the suite's own report
(``index.html``) and the logs of both sides. The last line counts the cases of all roles in the way
of pytest, for ``check.py``.

The exit status is 0 when every case that was asked for ran and is good in both verdicts, 1 when
not, 2 when the suite cannot be run here.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from autobahn_report import (
    count,
    failure_lines,
    parse_outcomes,
    reason,
    select,
    table,
)
from autobahn_suite import WORK, CannotRun, Suite, prepare
from check import ROOT, read, variables

AGENT = "reactor-websocket"
HOST = "127.0.0.1"

# Seconds for a program to start listening, and to end once told to.
PATIENCE = 30.0


class RunFailed(Exception):
    """Report in one line why a run ended before its time."""


def main(arguments: Sequence[str]) -> int:
    """Run the cases and return the exit status."""
    options = parse_arguments(arguments)
    started = time.monotonic()
    try:
        installed = prepare()
        cases = select(installed.list_cases(), options.cases, options.exclude)
    except (CannotRun, ValueError) as error:
        print(f"autobahn: {error}", file=sys.stderr)
        return 2
    passed = failed = 0
    for role in options.roles:
        run = Run(role, installed, cases, options.compression, options.out / role, options.timeout)
        bad = run.report(run.run())
        passed += len(cases) - min(bad, len(cases))
        failed += bad
    print(f"{passed} passed, {failed} failed in {time.monotonic() - started:.1f}s")
    return 1 if failed else 0


def parse_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(description="Run the Autobahn test suite.")
    parser.add_argument("roles", nargs="+", choices=("server", "client"), help="our side")
    parser.add_argument(
        "--cases", nargs="+", default=[], metavar="PATTERN", help="run these: 7.1.5 or '6.4.*'"
    )
    parser.add_argument(
        "--exclude", nargs="+", default=[], metavar="PATTERN", help="leave these out"
    )
    parser.add_argument(
        "--compression",
        choices=("default", "widest"),
        default="widest",
        help="our policy: that of Deflate(), or one that agrees to all of it (%(default)s)",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=WORK / "reports",
        metavar="DIR",
        help="where reports go, in a folder for each role (.tox/autobahn-suite/reports)",
    )
    parser.add_argument(
        "--timeout",
        type=float,
        default=3600.0,
        metavar="SECONDS",
        help="for each role, without the installation (default: %(default)g)",
    )
    return parser.parse_args(arguments)


class Run:
    """One run of the suite.

    Args:
        role: our side, "server" or "client".
        installed: the suite.
        cases: what to run.
        compression: our policy, as ``autobahn_peer.py`` names it.
        out: the folder for reports and logs; an older report in it is removed.
        timeout: seconds for all of it.
    """

    def __init__(
        self,
        role: str,
        installed: Suite,
        cases: Sequence[str],
        compression: str,
        out: Path,
        timeout: float,
    ) -> None:
        self._role = role
        self._suite = installed
        self._cases = cases
        self._out = out.resolve()
        self._started = time.monotonic()
        self._deadline = self._started + timeout
        self._compression = compression
        self._out.mkdir(parents=True, exist_ok=True)
        for name in ("index.json", "summary.json"):
            self._out.joinpath(name).unlink(missing_ok=True)

    def run(self) -> str:
        """Run all cases; return in one line what was wrong with the run itself, if anything."""
        try:
            if self._role == "server":
                self._test_server()
            else:
                self._test_client()
        except RunFailed as error:
            return str(error)
        # Twisted ends with status 0 also when a signal has ended it.
        return "" if self._out.joinpath("index.json").exists() else "the suite wrote no report"

    def _test_server(self) -> None:
        port = find_free_port()
        with self._running("server", self._peer_command("--port", str(port))) as server:
            self._wait_until_listening("server", server, port)
            server_list = [{"agent": AGENT, "url": f"ws://{HOST}:{port}"}]
            fuzzer_command = self._suite_command("fuzzingclient", servers=server_list)
            with self._running("suite", fuzzer_command) as fuzzer:
                self._wait("suite", fuzzer)
        if server.returncode != 0:
            raise self._failure("server", f"ended with status {server.returncode}")

    def _test_client(self) -> None:
        port = find_free_port()
        url = f"ws://{HOST}:{port}"
        command = self._peer_command("--url", url, "--agent", AGENT)
        fuzzer_command = self._suite_command("fuzzingserver", url=url)
        with self._running("suite", fuzzer_command) as fuzzer:
            self._wait_until_listening("suite", fuzzer, port)
            with self._running("client", command) as client:
                self._wait("client", client)

    # --- programs ---------------------------------------------------------------------------------

    def _peer_command(self, *options: str) -> list[str]:
        """Return the command that starts our side."""
        script = str(ROOT / "tools" / "autobahn_peer.py")
        return [sys.executable, script, self._role, "--compression", self._compression, *options]

    def _suite_command(self, mode: str, **settings: Any) -> list[str]:
        """Write down what to run, and return the command that runs it."""
        specification = self._out / f"{mode}.json"
        settings.update(outdir=str(self._out), cases=list(self._cases))
        settings.update({"exclude-cases": [], "exclude-agent-cases": {}})
        specification.write_text(json.dumps(settings, indent=1), encoding="utf-8")
        return self._suite.command(mode, specification)

    @contextmanager
    def _running(self, name: str, command: Sequence[str]) -> Iterator[subprocess.Popen[bytes]]:
        """Run a program with its output in a log, for as long as the block takes."""
        with self._log_of(name).open("wb") as output:
            process = subprocess.Popen(
                command,
                cwd=ROOT,
                env=variables(os.environ),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
            try:
                yield process
            finally:
                end(process)

    def _log_of(self, name: str) -> Path:
        return self._out / f"{name}.log"

    def _wait(self, name: str, process: subprocess.Popen[bytes]) -> None:
        """Wait until a program has ended well.

        Raises:
            RunFailed: it has not, or there is no time left.
        """
        try:
            status = process.wait(max(0.0, self._deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            raise RunFailed(f"the {name} was still at work at the end of --timeout") from None
        if status != 0:
            raise self._failure(name, f"ended with status {status}")

    def _wait_until_listening(self, name: str, process: subprocess.Popen[bytes], port: int) -> None:
        """Wait until a program accepts connections.

        Raises:
            RunFailed: it ended instead, or takes too long.
        """
        deadline = min(self._deadline, time.monotonic() + PATIENCE)
        while time.monotonic() < deadline:
            if process.poll() is not None:
                raise self._failure(name, f"did not start: status {process.returncode}")
            try:
                socket.create_connection((HOST, port), timeout=1.0).close()
            except OSError:
                time.sleep(0.05)
            else:
                return
        raise self._failure(name, "does not listen")

    def _failure(self, name: str, what: str) -> RunFailed:
        """Return the error for a program that failed; the end of its log goes to the screen."""
        log = self._log_of(name)
        print("\n".join(read(log).splitlines()[-20:]))
        return RunFailed(f"the {name} {what}; see {log}")

    # --- the outcome ------------------------------------------------------------------------------

    def report(self, trouble: str) -> int:
        """Print and write down how the cases went; return how many failed, the run itself as one.

        Args:
            trouble: what was wrong with the run itself.
        """
        seconds = round(time.monotonic() - self._started, 1)
        outcomes = parse_outcomes(self._read("index.json"), AGENT, self._cases)
        bad = [outcome for outcome in outcomes if not outcome.is_good]
        reasons = {each.case: reason(each, self._read(each.report_file)) for each in bad}
        failed = max(len(bad), 1 if trouble else 0)
        summary = {
            "role": self._role,
            "compression": self._compression,
            "python": f"{platform.python_implementation()} {platform.python_version()}",
            "cases": len(outcomes),
            "seconds": seconds,
            "verdicts": count(outcomes),
            "failures": [{**each._asdict(), "reason": reasons[each.case]} for each in bad],
            "trouble": trouble,
            "is_good": not failed,
        }
        text = json.dumps(summary, indent=1) + "\n"
        self._out.joinpath("summary.json").write_text(text, encoding="utf-8")
        print(f"{self._role}: {len(outcomes)} cases in {seconds} s, reports in {self._out}\n")
        print(table(outcomes), *failure_lines(bad, reasons), sep="\n")
        if trouble:
            print(f"autobahn: {trouble}")
        print()
        return failed

    def _read(self, name: str) -> str:
        """Return what a file of the report holds, nothing when it is not there."""
        path = self._out / name
        return read(path) if name and path.exists() else ""


def find_free_port() -> int:
    """Return a port that nobody listens on at this moment."""
    with socket.socket() as sock:
        sock.bind((HOST, 0))
        port: int = sock.getsockname()[1]
        return port


def end(process: subprocess.Popen[bytes]) -> None:
    """End a program that may have ended already: politely, then for certain."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


if __name__ == "__main__":
    if sys.version_info < (3, 9):
        sys.exit("autobahn: run this with Python 3.9 or newer")
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit("autobahn: interrupted")
