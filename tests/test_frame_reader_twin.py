"""The frame reader against its dumb twin, with what chance makes of valid streams."""

from __future__ import annotations

import random
from itertools import product

from frame_table import BINARY, KEY, TEXT, encode_by_hand, octets
from frame_twin import is_text, may_become_text, read_by_hand
from offence_table import NOT_UTF8, verdict_on
from reading import DEFAULTS, both_roles, feed_all, feed_in_turns, reader_of
from splits import every_split
from sweeps import rounds

from websocket.limits import Limits

SIZES = [0, 0, 1, 2, 3, 5, 8, 20, 60, 124, 125, 126, 127, 130, 200]


def random_stream(source: random.Random, is_masked: bool) -> bytes:
    """Return frames in a valid order: messages in fragments, control frames anywhere."""
    wire = b""

    def add(head: int, payload: bytes) -> None:
        nonlocal wire
        key = bytes(source.choices(range(256), k=4)) if is_masked else None
        wire += encode_by_hand(head, payload, key)

    for _ in range(source.randint(1, 6)):
        opcode = source.choice([TEXT, BINARY])
        size = source.choice(SIZES)
        payload = bytes(source.choices(range(256), k=size))
        if opcode == TEXT:
            alphabet = "az\x00\x7f\u0080\u07ff\u0800\ud7ff\uffff\U00010000\U0010ffff"
            payload = "".join(source.choices(alphabet, k=size)).encode()
        cuts = sorted(source.choices(range(len(payload) + 1), k=source.choice([0, 0, 1, 2, 5])))
        for start, end in zip([0, *cuts], cuts):
            add(opcode, payload[start:end])
            opcode = 0
            while source.random() < 0.3:
                add(source.choice([0x89, 0x8A]), octets(source.choice([0, 1, 7, 125])))
        add(0x80 | opcode, payload[cuts[-1] if cuts else 0 :])
    if source.random() < 0.3:
        add(0x88, source.choice([b"", b"\x03\xe8", b"\x03\xe8bye"]))
    return wire


def mutated(source: random.Random, wire: bytes) -> bytes:
    """Return the stream with a few octets changed, lost or added."""
    data = bytearray(wire)
    for _ in range(source.randint(1, 3)):
        at, lost, added = (source.choice(numbers) for numbers in (range(len(data)), [0, 1], [0, 1]))
        data[at : at + lost] = bytes(source.choices(range(256), k=added))
    return bytes(data)


def assert_agrees(wire: bytes, is_masked: bool, limits: Limits) -> str:
    """Compare the reader, at every split, with the twin; return what the twin found wrong."""
    items, message = read_by_hand(wire, is_masked, limits)
    for pieces in every_split(wire, random_splits=5):
        reader = reader_of(is_masked, limits)
        assert feed_all(reader, pieces) == items
        assert str(reader.error or "") == message
        max_items = 1 + len(pieces) % 3
        reader = reader_of(is_masked, limits, max_items)
        assert feed_in_turns(reader, pieces, max_items) == items
        assert str(reader.error or "") == message
    return message


@both_roles
def test_valid_streams_are_read_as_a_dumb_twin_reads_them(is_masked: bool) -> None:
    source = random.Random(6455)
    for _ in range(rounds(60, 600)):
        assert assert_agrees(random_stream(source, is_masked), is_masked, DEFAULTS) == ""


@both_roles
def test_mutated_streams_are_judged_as_a_dumb_twin_judges_them(is_masked: bool) -> None:
    """Whatever is fed, nothing raises."""
    source = random.Random(5546)
    limits = Limits(max_message_size=300, max_fragments=4)
    seen = set()
    for _ in range(rounds(150, 1500)):
        wire = mutated(source, random_stream(source, is_masked))
        seen.add(assert_agrees(wire, is_masked, limits))
    assert len(seen) > 10


@both_roles
def test_noise_is_judged_as_a_dumb_twin_judges_it(is_masked: bool) -> None:
    source = random.Random(4655)
    for _ in range(rounds(400, 1500)):
        wire = bytes(source.choices(range(256), k=source.randint(0, 60)))
        assert_agrees(wire, is_masked, DEFAULTS)


# Both sides of every border in the grammar of UTF-8.
EDGES = bytes.fromhex("00 7f 80 8f 90 9f a0 bf c0 c1 c2 df e0 e1 ec ed ee ef f0 f1 f3 f4 f5 ff")
INNER_EDGES = bytes.fromhex("7f 80 8f 90 9f a0 bf c0")


def edge_cases() -> list[bytes]:
    cases = [bytes(case) for size in (1, 2, 3) for case in product(EDGES, repeat=size)]
    return cases + [bytes(case) for case in product(EDGES[-7:], *[INNER_EDGES] * 3)]


def test_text_in_one_frame_is_judged_by_the_grammar_of_utf8() -> None:
    """H63."""
    for case in edge_cases():
        reader = reader_of(True)
        items = reader.feed(encode_by_hand(0x81, case, KEY))
        if is_text(case):
            [(opcode, text)] = items
            assert opcode == TEXT
            assert isinstance(text, str)
            assert text.encode() == case
        else:
            assert items == []
            assert reader.error is not None
            assert verdict_on(reader.error) == NOT_UTF8


def test_text_in_pieces_fails_at_the_first_octet_that_cannot_be_right() -> None:
    """H63."""
    for case in edge_cases():
        if not may_become_text(case[:-2]):
            continue  # a shorter case has failed already
        reader = reader_of(False)
        reader.feed(encode_by_hand(0x01, b"", None) + bytes([0x00, len(case) + 1]))
        for size in range(1, len(case) + 1):
            reader.feed(case[size - 1 : size])
            assert (reader.error is None) is may_become_text(case[:size]), case[:size]
