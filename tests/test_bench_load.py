"""The conversation with the load generator, and the message that is compared by hand."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest
from benchmark.load import BEGIN, END, LoadFailed, LoadResult, loading, parse_line
from benchmark.scenarios import TEXT, deflate
from benchmark.verify import Reply, WrongEcho, compare, mask, read_frame

RESULT = (
    '{"operations": 20790, "seconds": 0.300000, "generator_cpu": 0.148980, "unclean": 1, '
    '"compressed": 7, "pings": 2, "p50_us": 1349.0, "p99_us": 2782.6, "longest_us": 4888.2, '
    '"error": ""}'
)
EXPECTED = LoadResult(20_790, 0.3, 0.14898, 1, 7, 2, 1349.0, 2782.6, 4888.2, "")


def talk(text: str, log: Path) -> LoadResult:
    """Hold the whole conversation with a program that stands in for the generator."""
    with loading([sys.executable, "-c", text], None, log, 5.0) as load:
        load.wait_for(BEGIN)
        load.go_on()
        load.wait_for(END)
        load.go_on()
        return load.result()


def say(*lines: str) -> str:
    """Return a program that says lines, and waits for an answer after each but the last."""
    steps = [f"print({line!r}, flush=True)" for line in lines]
    return "\ninput()\n".join(steps)


MARKS = ('{"mark": "begin"}', '{"mark": "end"}')


def test_marks_and_the_result_are_told_apart() -> None:
    assert parse_line('{"mark": "begin"}\n') == "begin"
    assert parse_line(RESULT) == EXPECTED


@pytest.mark.parametrize("line", ["", "Killed\n", "[]", "3", '{"operations": 3}', '{"speed": 3}'])
def test_anything_else_is_a_failure(line: str) -> None:
    with pytest.raises(LoadFailed, match="the generator said"):
        parse_line(line)


def test_the_generator_is_answered_at_each_mark(tmp_path: Path) -> None:
    assert talk(say(*MARKS, RESULT), tmp_path / "log") == EXPECTED


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        (say(MARKS[1]), "the generator is at end, not at begin"),
        (say(*MARKS, MARKS[1]), "the generator is at end, not at its end"),
        (say(MARKS[0], RESULT), "the generator ended early"),
        (say(RESULT.replace('""', '"a connection was lost"')), "a connection was lost"),
        (say(*MARKS, RESULT.replace('""', '"a reply is masked"')), "a reply is masked"),
        ("import sys; sys.exit('load: connect: refused')", "load: connect: refused"),
        ("", "the generator took too long, and was ended"),
    ],
)
def test_a_generator_that_fails_is_told_with_its_reason(
    program: str, reason: str, tmp_path: Path
) -> None:
    with pytest.raises(LoadFailed, match=reason):
        talk(program, tmp_path / "log")


# --- the message that is compared -----------------------------------------------------------------


def test_the_masked_frame_is_that_of_rfc_6455() -> None:
    assert mask(TEXT, b"Hello", False).hex() == "818537fa213d7f9f4d5158"


@pytest.mark.parametrize(("size", "head"), [(125, 2), (126, 4), (65_535, 4), (65_536, 10)])
def test_a_frame_of_any_size_is_masked_and_read(size: int, head: int) -> None:
    frame = mask(TEXT, bytes(size), True)
    assert frame[0] == 0xC1
    assert len(frame) == head + 4 + size
    unmasked = bytes([frame[0], frame[1] & 0x7F]) + frame[2:head] + bytes(size)
    assert read_frame(io.BytesIO(unmasked).read) == Reply(0xC1, bytes(size))


def test_a_stream_that_ends_within_a_frame_is_told() -> None:
    with pytest.raises(WrongEcho, match="closed instead"):
        read_frame(io.BytesIO(b"\x81\x05Hel").read)


def test_an_echo_is_compared_after_it_is_inflated() -> None:
    compare(Reply(0x81, b"Hello"), TEXT, b"Hello")
    compare(Reply(0xC1, deflate(b"Hello")), TEXT, b"Hello")


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (Reply(0x82, b"Hello"), "begins with 0x82"),
        (Reply(0x01, b"Hello"), "begins with 0x01"),
        (Reply(0x81, b"Hullo"), "differs"),
        (Reply(0xC1, deflate(b"Hullo")), "differs"),
    ],
)
def test_a_wrong_echo_is_told(reply: Reply, reason: str) -> None:
    with pytest.raises(WrongEcho, match=reason):
        compare(reply, TEXT, b"Hello")


def test_what_cannot_be_inflated_is_no_echo() -> None:
    with pytest.raises(WrongEcho, match="cannot be inflated"):
        compare(Reply(0xC1, b"\xff\xff\xff"), TEXT, b"Hello")
