from __future__ import annotations

import json
import platform
import random
import threading
import zlib
from collections.abc import Iterable, Iterator
from itertools import product
from typing import Any

import pytest
from splits import every_split

from websocket.deflate import Agreement, Deflate
from websocket.deflate_codec import Compressor, Inflater
from websocket.errors import (
    FrameTooLarge,
    HandshakeError,
    InvalidPayload,
    PolicyViolation,
    ProtocolError,
)
from websocket.headers import Extension, parse_extensions
from websocket.limits import MIB
from websocket.opcodes import CloseCode

TAIL = b"\x00\x00\xff\xff"
FINAL_BLOCK = b"\x01\x00\x00\xff\xff"
# RFC 7692, 7.2.3.4: "Hello" in a final block, without the octet behind it.
FINAL_HELLO = bytes.fromhex("f348cdc9c90700")

NO_TAKEOVER = Agreement(12, 12, compress_takeover=False, inflate_takeover=False)
TAKEOVER = Agreement(12, 12, compress_takeover=True, inflate_takeover=True)
UNLIMITED = Deflate(
    compress_bits=15, inflate_bits=15, compress_takeover=True, inflate_takeover=True
)
LIMIT = 1 * MIB

CHROME = "permessage-deflate; client_max_window_bits"
FIREFOX = "permessage-deflate"
NO_CONTEXT = "permessage-deflate; server_no_context_takeover; client_no_context_takeover"


def extensions(*values: str) -> list[Extension]:
    """Return what the header parser makes of a field."""
    return parse_extensions(values)


def new_inflater(
    agreement: Agreement = NO_TAKEOVER, policy: Deflate | None = None, limit: int = LIMIT
) -> Inflater:
    return (policy or Deflate()).inflater(agreement, limit, 0.0)


def receive(inflater: Inflater, pieces: Iterable[bytes], limit: int = LIMIT) -> bytes:
    """Inflate one message as a connection does: the room shrinks by what came out."""
    parts: list[bytes] = []
    for piece in pieces:
        parts.append(inflater.feed(piece, limit))
        limit -= len(parts[-1])
    parts.append(inflater.end(limit))
    return b"".join(parts)


def deflate(payload: bytes, bits: int = 12, level: int = 6) -> bytes:
    """Compress by a stream of our own, as a peer might."""
    stream = zlib.compressobj(level, zlib.DEFLATED, -bits)
    return (stream.compress(payload) + stream.flush(zlib.Z_SYNC_FLUSH))[:-4]


def inflate_whole(message: bytes) -> bytes | None:
    """Do at once, and with all memory it takes, what the inflater does; None for an error."""
    rest, output = message + TAIL, b""
    # What is lenient: a message of nothing, and one that ends with its final block.
    while rest and rest != TAIL:
        stream = zlib.decompressobj(wbits=-15)
        try:
            output += stream.decompress(rest)
        except zlib.error:
            return None
        if not stream.eof:
            return output if is_complete(stream) else None
        rest = stream.unused_data
    return output


def is_complete(stream: Any) -> bool:
    """Tell whether a stream can take another block, by giving it one."""
    try:
        return bool(stream.decompress(FINAL_HELLO) == b"Hello" and stream.eof)
    except zlib.error:
        return False


def words(seed: int, size: int) -> bytes:
    """Return text that compresses well, but not to nothing."""
    source = random.Random(seed)
    vocabulary = ["".join(source.choices("abcdefgh", k=source.randint(2, 9))) for _ in range(99)]
    return " ".join(source.choices(vocabulary, k=size // 2 + 1)).encode()[:size]


def noise(seed: int, size: int) -> bytes:
    return random.Random(seed).getrandbits(8 * size + 1).to_bytes(size + 1, "big")[1:]


# --- the policy -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings",
    [
        {"compress_bits": 8},
        {"compress_bits": 16},
        {"inflate_bits": 8},
        {"inflate_bits": 16},
        {"inflate_bits": 12.5},
        {"level": 0},
        {"level": 10},
        {"memory_level": 0},
        {"memory_level": 10},
        {"threshold": -1},
        {"inflate_rate": 0},
        {"inflate_rate": -1.0},
        {"inflate_rate": float("nan")},
        {"inflate_rate": float("inf")},
    ],
    ids=str,
)
def test_nonsense_settings_are_refused_by_name(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))):
        Deflate(**settings)


def test_a_policy_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        Deflate().level = 9  # type: ignore[misc]  # that is the point


def test_yes_stands_for_the_default_policy_and_no_for_none() -> None:
    assert Deflate.of(True) == Deflate()
    assert Deflate.of(False) is None
    assert Deflate.of(UNLIMITED) is UNLIMITED


# --- negotiation, the server's half ---------------------------------------------------------


@pytest.mark.parametrize(
    ("offer", "answer"),
    [
        # RFC 7692, 7.1.3.
        ("permessage-deflate", "permessage-deflate"),
        (
            "permessage-deflate; client_max_window_bits; server_max_window_bits=10",
            "permessage-deflate; server_max_window_bits=10",
        ),
        (
            f"permessage-deflate; server_max_window_bits=10, {CHROME}",
            "permessage-deflate; server_max_window_bits=10",
        ),
        # 7.1.1: the flags are accepted by saying them again.
        (
            "permessage-deflate; server_no_context_takeover",
            "permessage-deflate; server_no_context_takeover",
        ),
        (
            "permessage-deflate; client_no_context_takeover",
            "permessage-deflate; client_no_context_takeover",
        ),
        # 7.1.2: said again even where it limits nothing.
        (
            "permessage-deflate; server_max_window_bits=15",
            "permessage-deflate; server_max_window_bits=15",
        ),
        (
            'permessage-deflate; client_max_window_bits="9"',
            "permessage-deflate; client_max_window_bits=9",
        ),
        # The client may limit itself to what only zlib's deflate cannot do.
        (
            "permessage-deflate; client_max_window_bits=8",
            "permessage-deflate; client_max_window_bits=8",
        ),
    ],
)
def test_a_server_without_wishes_answers_what_is_asked(offer: str, answer: str) -> None:
    accepted = UNLIMITED.accept(extensions(offer))
    assert accepted is not None
    assert accepted[1] == answer


@pytest.mark.parametrize(
    ("offer", "agreement", "answer"),
    [
        (
            CHROME,
            Agreement(12, 12, False, False),
            NO_CONTEXT + "; server_max_window_bits=12; client_max_window_bits=12",
        ),
        (  # Nobody can limit such a client's window.
            FIREFOX,
            Agreement(12, 15, False, False),
            NO_CONTEXT + "; server_max_window_bits=12",
        ),
        (
            NO_CONTEXT + "; client_max_window_bits=10; server_max_window_bits=9",
            Agreement(9, 10, False, False),
            NO_CONTEXT + "; server_max_window_bits=9; client_max_window_bits=10",
        ),
        (
            "permessage-deflate; client_max_window_bits=15; server_max_window_bits=15",
            Agreement(12, 12, False, False),
            NO_CONTEXT + "; server_max_window_bits=12; client_max_window_bits=12",
        ),
    ],
)
def test_a_server_asks_for_little_memory(offer: str, agreement: Agreement, answer: str) -> None:
    assert Deflate().accept(extensions(offer)) == (agreement, answer)


def test_takeover_needs_both_sides() -> None:
    for ours, theirs in product([False, True], repeat=2):
        flag = "" if theirs else "; server_no_context_takeover; client_no_context_takeover"
        policy = Deflate(compress_takeover=ours, inflate_takeover=ours)
        accepted = policy.accept(extensions("permessage-deflate" + flag))
        assert accepted is not None
        assert accepted[0].compress_takeover is (ours and theirs)
        assert accepted[0].inflate_takeover is (ours and theirs)


MALFORMED = [
    "client_max_window_bits=7",
    "client_max_window_bits=16",
    "client_max_window_bits=08",
    "client_max_window_bits=+9",
    "client_max_window_bits=1_0",
    "server_max_window_bits",
    "server_max_window_bits=7",
    "server_max_window_bits=16",
    "server_max_window_bits=010",
    "server_max_window_bits=12; server_max_window_bits=12",
    "client_max_window_bits; client_max_window_bits=10",
    "server_no_context_takeover; server_no_context_takeover",
    "server_no_context_takeover=1",
    "client_no_context_takeover=true",
    "unknown",
    "unknown=10",
    "Server_Max_Window_Bits=10",
]
UNMET = ["server_max_window_bits=8", "server_max_window_bits=8; client_max_window_bits"]


@pytest.mark.parametrize("parameters", MALFORMED + UNMET)
def test_h26_h27_a_wrong_offer_is_declined_and_the_next_one_tried(parameters: str) -> None:
    wrong = f"permessage-deflate; {parameters}"
    right = "permessage-deflate; server_max_window_bits=11"
    for policy in (Deflate(), UNLIMITED):
        assert policy.accept(extensions(wrong)) is None
        assert policy.accept(extensions(f"{wrong}, {wrong}")) is None
        accepted = policy.accept(extensions(f"{wrong}, {right}", "permessage-deflate"))
        assert accepted is not None
        assert accepted[0].compress_bits == 11


@pytest.mark.parametrize("value", ["", "\u0661\u0662", " 12"])
def test_h26_a_value_that_no_parser_lets_pass_is_declined_too(value: str) -> None:
    offer = Extension("permessage-deflate", (("server_max_window_bits", value),))
    assert Deflate().accept([offer]) is None


def test_other_extensions_are_ignored() -> None:
    others = "x-webkit-deflate-frame, permessage-bzip2; server_max_window_bits=10"
    assert Deflate().accept([]) is None
    assert Deflate().accept(extensions(others)) is None
    assert Deflate().accept(extensions(others, "permessage-deflate")) is not None


# --- negotiation, the client's half ---------------------------------------------------------


def test_a_client_offers_its_policy() -> None:
    assert UNLIMITED.offer() == "permessage-deflate; client_max_window_bits=15"
    assert Deflate(compress_bits=11, inflate_bits=10).offer() == (
        NO_CONTEXT + "; server_max_window_bits=10; client_max_window_bits=11"
    )


def test_a_server_may_decline() -> None:
    assert Deflate().agree([]) is None


@pytest.mark.parametrize(
    ("policy", "answer", "agreement"),
    [
        (UNLIMITED, "", Agreement(15, 15, True, True)),
        # 7.1.1: a server may forbid takeover to either side without being asked.
        (UNLIMITED, "; server_no_context_takeover", Agreement(15, 15, True, False)),
        (UNLIMITED, "; client_no_context_takeover", Agreement(15, 15, False, True)),
        (UNLIMITED, "; server_max_window_bits=8", Agreement(15, 8, True, True)),
        (UNLIMITED, "; client_max_window_bits=9", Agreement(9, 15, True, True)),
        (
            Deflate(),
            "; server_no_context_takeover; server_max_window_bits=12",
            Agreement(12, 12, False, False),
        ),
        (
            Deflate(),
            "; server_max_window_bits=9; server_no_context_takeover; client_max_window_bits=15",
            Agreement(12, 9, False, False),
        ),
    ],
)
def test_a_client_agrees(policy: Deflate, answer: str, agreement: Agreement) -> None:
    assert policy.agree(extensions("permessage-deflate" + answer)) == agreement


FITTING = "permessage-deflate; server_no_context_takeover; server_max_window_bits=12"


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ("x-webkit-deflate-frame", "not offered"),
        (f"{FITTING}, x-webkit-deflate-frame", "not offered"),
        (f"{FITTING}, {FITTING}", "not offered"),
        (f"{FITTING}; client_max_window_bits", "8 to 15"),
        (f"{FITTING}; client_max_window_bits=8", "8 bits"),
        ("permessage-deflate; server_max_window_bits=12", "no_context_takeover is missing"),
        ("permessage-deflate; server_no_context_takeover", "window_bits is missing"),
        (f"{FITTING[:-2]}13", "above the offer"),
        (f"{FITTING[:-2]}16", "8 to 15"),
        *((f"permessage-deflate; {parameters}", "is wrong") for parameters in MALFORMED),
    ],
)
def test_h123_a_client_drops_an_answer_that_does_not_fit(answer: str, message: str) -> None:
    with pytest.raises(HandshakeError, match=message) as caught:
        Deflate().agree(extensions(answer))
    assert caught.value.status == 101


def test_both_halves_come_to_the_same_agreement() -> None:
    policies = [
        Deflate(
            compress_bits=compress,
            inflate_bits=inflate,
            compress_takeover=ours,
            inflate_takeover=theirs,
        )
        for compress, inflate in product((9, 12, 15), (9, 15))
        for ours, theirs in product((False, True), repeat=2)
    ]
    for server, client in product(policies, repeat=2):
        accepted = server.accept(extensions(client.offer()))
        assert accepted is not None
        agreement, answer = accepted
        mirrored = client.agree(extensions(answer))
        assert mirrored is not None
        assert mirrored == Agreement(
            agreement.inflate_bits,
            agreement.compress_bits,
            compress_takeover=agreement.inflate_takeover,
            inflate_takeover=agreement.compress_takeover,
        )


# --- compressing ----------------------------------------------------------------------------


def test_the_examples_of_the_rfc_are_compressed_byte_for_byte() -> None:
    """RFC 7692, 7.2.3.1, 7.2.3.2 and 7.2.3.6."""
    compressor = Deflate().compressor(TAKEOVER)
    assert compressor.compress(b"Hello") == bytes.fromhex("f248cdc9c90700")
    assert compressor.compress(b"Hello") == bytes.fromhex("f200110000")
    assert [compressor.compress(b"") for _ in range(3)] == [b"\x00"] * 3
    compressor = Deflate().compressor(NO_TAKEOVER)
    for _ in range(2):
        assert compressor.compress(b"Hello") == bytes.fromhex("f248cdc9c90700")
        assert [compressor.compress(b"") for _ in range(3)] == [b"\x00"] * 3


@pytest.mark.parametrize("bits", range(9, 16))
@pytest.mark.parametrize("takeover", [False, True])
def test_what_is_compressed_inflates_to_the_same(bits: int, takeover: bool) -> None:
    agreement = Agreement(bits, bits, takeover, takeover)
    policy = Deflate(inflate_rate=None)
    compressor, inflater = policy.compressor(agreement), policy.inflater(agreement, LIMIT, 0.0)
    sizes = [0, 1, 100, 1023, 1024, 16_383, 16_384, 16_385, 70_000, 0, 1]
    for seed, size in enumerate(sizes):
        for payload in (words(seed, size), noise(seed, size), b"a" * size):
            message = compressor.compress(payload)
            assert not message.endswith(TAIL)
            assert receive(inflater, [message]) == payload


@pytest.mark.parametrize("takeover", [False, True])
def test_every_setting_of_zlib_works(takeover: bool) -> None:
    payload = words(1, 3_000)
    for level, memory_level in product((1, 5, 9), (1, 9)):
        policy = Deflate(level=level, memory_level=memory_level)
        agreement = Agreement(9, 9, takeover, takeover)
        compressor, inflater = policy.compressor(agreement), new_inflater(agreement)
        for _ in range(3):
            assert receive(inflater, [compressor.compress(payload)]) == payload


@pytest.mark.parametrize("bits", [9, 12, 15])
def test_without_takeover_no_message_refers_to_another(bits: int) -> None:
    compressor = Deflate().compressor(Agreement(bits, 12, False, False))
    payloads = [words(seed % 3, 2_000 + 500 * seed) for seed in range(8)]
    messages = [compressor.compress(payload) for payload in payloads]
    order = list(range(8))
    random.Random(7692).shuffle(order)
    for index in order:
        inflater = new_inflater(Agreement(12, bits, False, False))
        assert receive(inflater, [messages[index]]) == payloads[index]
    # Nor does it depend on what the stream was used for before.
    assert [compressor.compress(payload) for payload in payloads] == messages


def test_without_takeover_all_connections_share_one_compressor() -> None:
    shared = Deflate().compressor(NO_TAKEOVER)
    assert Deflate().compressor(NO_TAKEOVER) is shared
    assert Deflate(level=6).compressor(NO_TAKEOVER) is not shared
    assert Deflate().compressor(NO_TAKEOVER._replace(compress_bits=11)) is not shared
    assert Deflate().compressor(TAKEOVER) is not Deflate().compressor(TAKEOVER)
    assert not shared.keeps_context
    assert Deflate().compressor(TAKEOVER).keeps_context


class InterruptedStream:
    """A zlib stream whose first flush does not happen."""

    interrupts = 1

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def compress(self, data: bytes) -> Any:
        return self._stream.compress(data)

    def flush(self, mode: int) -> Any:
        if InterruptedStream.interrupts:
            InterruptedStream.interrupts -= 1
            raise KeyboardInterrupt
        return self._stream.flush(mode)


@pytest.mark.parametrize("takeover", [False, True])
def test_an_interrupted_message_never_shows_in_another(
    takeover: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    compressobj = zlib.compressobj
    monkeypatch.setattr(zlib, "compressobj", lambda *args: InterruptedStream(compressobj(*args)))
    monkeypatch.setattr(InterruptedStream, "interrupts", 1)
    compressor = Compressor(12, 6, 5, keeps_context=takeover)
    with pytest.raises(KeyboardInterrupt):
        compressor.compress(b"a secret of one connection")
    assert receive(new_inflater(), [compressor.compress(b"Hello")]) == b"Hello"


def test_threads_that_share_a_compressor_do_not_mix_their_messages() -> None:
    compressor = Deflate().compressor(NO_TAKEOVER)
    payloads = [words(seed, 20_000) for seed in range(4)]
    messages: list[list[bytes]] = [[] for _ in payloads]

    def compress(seed: int) -> None:
        for _ in range(20):
            messages[seed].append(compressor.compress(payloads[seed]))

    threads = [threading.Thread(target=compress, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for seed, payload in enumerate(payloads):
        assert {inflate_whole(message) for message in messages[seed]} == {payload}


# --- inflating ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "message",
    [
        "f248cdc9c90700",  # 7.2.3.1
        "000500faff48656c6c6f00",  # 7.2.3.3: a block without compression
        "f348cdc9c9070000",  # 7.2.3.4: a final block
        "f248050000 00ffffcac9c90700",  # 7.2.3.5: two blocks
    ],
)
@pytest.mark.parametrize("agreement", [NO_TAKEOVER, TAKEOVER])
def test_the_examples_of_the_rfc_are_inflated(message: str, agreement: Agreement) -> None:
    inflater = new_inflater(agreement)
    for pieces in every_split(bytes.fromhex(message)):
        assert receive(inflater, pieces) == b"Hello"


def test_a_message_may_refer_to_an_older_one_with_takeover() -> None:
    inflater = new_inflater(TAKEOVER)
    assert receive(inflater, [bytes.fromhex("f248cdc9c90700")]) == b"Hello"
    assert receive(inflater, [bytes.fromhex("f200110000")]) == b"Hello"


@pytest.mark.parametrize("agreement", [NO_TAKEOVER, TAKEOVER])
def test_the_result_does_not_depend_on_the_split(agreement: Agreement) -> None:
    compressor, inflater = Deflate().compressor(agreement), new_inflater(agreement)
    payload = json.dumps([{"id": number, "name": "x" * number} for number in range(9)]).encode()
    message = compressor.compress(payload)
    for pieces in every_split(message):
        assert receive(inflater, pieces) == payload
    for cut in range(len(message) + 1):
        assert receive(inflater, [message[:cut], message[cut:]]) == payload
    for kind in (bytearray, memoryview):
        piece: Any = kind(message)
        assert receive(inflater, [piece]) == payload


def test_output_that_fills_a_step_exactly_is_not_lost() -> None:
    for size in (8_192, 16_384, 3 * 8_192 - 1, 3 * 8_192 + 258):
        for payload in (bytes(size), noise(1, size), words(2, size)):
            message = deflate(payload)
            for pieces in ([message], [message[:-1], message[-1:]], [message[:9], message[9:]]):
                assert receive(new_inflater(), pieces) == payload


@pytest.mark.parametrize("bits", [9, 12, 15])
def test_takeover_agrees_with_a_stream_that_is_kept(bits: int) -> None:
    source = random.Random(bits)
    compressor = Compressor(bits, 6, 5, keeps_context=True)
    inflater = new_inflater(Agreement(12, bits, False, True), Deflate(inflate_rate=None))
    twin = zlib.decompressobj(wbits=-bits)
    text = words(3, 60_000)
    for _ in range(60):
        start = source.randrange(len(text))
        payload = text[start : start + source.choice([1, 30, 700, 5_000, 40_000])]
        message = compressor.compress(payload)
        cuts = sorted(source.choices(range(len(message) + 1), k=2))
        pieces = [message[: cuts[0]], message[cuts[0] : cuts[1]], message[cuts[1] :]]
        assert receive(inflater, pieces) == twin.decompress(message + TAIL) == payload


def mutations(seed: int, count: int) -> Iterator[tuple[random.Random, bytes]]:
    """Yield messages with a few octets changed, inserted, removed or cut off."""
    source = random.Random(seed)
    originals = [
        deflate(words(1, 400)),
        deflate(words(2, 60), level=0),
        deflate(b"ab" * 300),
        FINAL_HELLO * 3 + deflate(words(4, 90)),
        bytes.fromhex("f24805000000ffffcac9c90700"),
    ]
    for _ in range(count):
        message = bytearray(source.choice(originals))
        for _ in range(source.randint(1, 3)):
            at = source.randrange(len(message) + 1)
            kind = source.randrange(4)
            if kind == 0:
                message[at : at + 1] = bytes([source.randrange(256)])
            elif kind == 1:
                message[at:at] = noise(source.randrange(10**6), source.randint(1, 4))
            elif kind == 2:
                del message[at : at + source.randint(1, 4)]
            else:
                del message[at:]
        yield source, bytes(message)


def test_mutated_messages_are_judged_as_by_zlib_at_once() -> None:
    outcomes = set()
    for source, message in mutations(7692, 2_000):
        cuts = sorted(source.choices(range(len(message) + 1), k=3))
        pieces = [message[start:end] for start, end in zip([0, *cuts], [*cuts, len(message)])]
        # A window of 15 bits holds whatever these messages can refer to.
        inflater = new_inflater(Agreement(12, 15, False, False))
        try:
            result: bytes | None = receive(inflater, pieces)
        except InvalidPayload:
            result = None
        assert result == inflate_whole(message)
        outcomes.add(result is None)
    assert outcomes == {True, False}


def test_garbage_raises_nothing_but_the_named_errors() -> None:
    source = random.Random(1951)
    failures = 0
    for _ in range(2_000):
        bits = source.randint(8, 15)
        inflater = new_inflater(Agreement(12, bits, False, source.random() < 0.5), limit=2_000)
        try:
            for _ in range(2):
                receive(inflater, [noise(source.randrange(10**9), source.randint(0, 9))], 2_000)
        except (InvalidPayload, FrameTooLarge):
            failures += 1
    assert 1_000 < failures < 2_000


# --- hostile messages -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def bomb() -> bytes:
    """Return 24 KB that inflate to 24 MiB."""
    return ((deflate(bytes(MIB)) + TAIL) * 24)[:-4]


@pytest.mark.skipif(platform.python_implementation() == "PyPy", reason="it has no tracemalloc")
@pytest.mark.parametrize("fragments", [1, 1_000])
@pytest.mark.parametrize("agreement", [NO_TAKEOVER, TAKEOVER])
def test_h75_a_bomb_takes_no_memory_beyond_the_limit(
    bomb: bytes, fragments: int, agreement: Agreement
) -> None:
    import tracemalloc

    size = -(-len(bomb) // fragments)
    inflater = new_inflater(agreement)
    pieces = [bomb[at : at + size] for at in range(0, len(bomb), size)]
    tracemalloc.start()
    try:
        with pytest.raises(FrameTooLarge) as caught:
            receive(inflater, pieces)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert caught.value.close_code == CloseCode.MESSAGE_TOO_BIG
    assert peak <= LIMIT + 64 * 1024


def test_h75_a_message_of_just_the_limit_passes() -> None:
    message = deflate(bytes(LIMIT))
    assert receive(new_inflater(), [message]) == bytes(LIMIT)
    for pieces in ([message], [message[:100], message[100:]]):
        with pytest.raises(FrameTooLarge):
            receive(new_inflater(limit=LIMIT), pieces, LIMIT - 1)


def test_h75_the_tail_counts_too() -> None:
    """A stored block that swallows the octets of the tail must not cross the limit either."""
    stored = b"\x00\x04\x00\xfb\xff"
    assert receive(new_inflater(), [stored], 4) == TAIL
    with pytest.raises(FrameTooLarge):
        receive(new_inflater(), [stored], 3)


@pytest.mark.parametrize("room", [0, -1, -LIMIT])
def test_h75_where_no_room_is_left_nothing_is_inflated(bomb: bytes, room: int) -> None:
    inflater = new_inflater()
    assert inflater.feed(b"\x00\x00\x00\xff\xff", room) == b""
    with pytest.raises(FrameTooLarge):
        inflater.feed(bomb, room)


def test_h76_inflating_too_much_a_second_is_refused() -> None:
    policy = Deflate(inflate_rate=4.0 * MIB)
    message = deflate(bytes(LIMIT - 1))
    inflater = new_inflater(policy=policy)
    for _ in range(4):
        receive(inflater, [message])
    with pytest.raises(PolicyViolation) as caught:
        receive(inflater, [message])
    assert caught.value.close_code == CloseCode.POLICY_VIOLATION


def test_h76_a_peer_within_the_rate_is_never_refused() -> None:
    inflater = new_inflater(policy=Deflate(inflate_rate=4.0 * MIB))
    message = deflate(bytes(LIMIT))
    for _ in range(20):
        assert receive(inflater, [message]) == bytes(LIMIT)
        inflater.now += 0.25


def test_h76_one_message_of_any_allowed_size_passes_at_any_rate() -> None:
    policy = Deflate(inflate_rate=1_000.0)
    inflater = new_inflater(policy=policy)
    assert receive(inflater, [deflate(bytes(LIMIT))]) == bytes(LIMIT)
    with pytest.raises(PolicyViolation):
        receive(inflater, [deflate(b"a")])
    unlimited = new_inflater(policy=Deflate(inflate_rate=None))
    for _ in range(5):
        receive(unlimited, [deflate(bytes(LIMIT))])


@pytest.mark.parametrize("agreement", [NO_TAKEOVER, TAKEOVER])
@pytest.mark.parametrize("final_block", [b"\x03\x00", FINAL_BLOCK, FINAL_HELLO])
def test_h77_thousands_of_final_blocks_are_refused(
    final_block: bytes, agreement: Agreement
) -> None:
    count = 50_000
    for pieces in ([final_block * count], [final_block] * count):
        with pytest.raises(FrameTooLarge) as caught:
            receive(new_inflater(agreement), pieces)
        assert caught.value.close_code == CloseCode.MESSAGE_TOO_BIG


def test_h77_some_hundred_final_blocks_pass_in_every_message() -> None:
    for agreement in (NO_TAKEOVER, TAKEOVER):
        inflater = new_inflater(agreement)
        for _ in range(3):
            assert receive(inflater, [FINAL_HELLO * 255 + b"\x00"]) == b"Hello" * 255


@pytest.mark.parametrize("agreement", [NO_TAKEOVER, TAKEOVER])
@pytest.mark.parametrize("end", [b"\x00", b""], ids=["as in the RFC", "bare"])
def test_h78_a_final_block_ends_the_message_not_the_connection(
    agreement: Agreement, end: bytes
) -> None:
    inflater = new_inflater(agreement)
    for _ in range(3):
        assert receive(inflater, [FINAL_HELLO + end]) == b"Hello"
        assert receive(inflater, [bytes.fromhex("f248cdc9c90700")]) == b"Hello"


def test_h78_what_follows_a_final_block_may_refer_back_only_with_takeover() -> None:
    referring = FINAL_HELLO + bytes.fromhex("f200110000")
    for pieces in every_split(referring):
        assert receive(new_inflater(TAKEOVER), pieces) == b"HelloHello"
        with pytest.raises(InvalidPayload):
            receive(new_inflater(NO_TAKEOVER), pieces)


@pytest.mark.parametrize("agreement", [NO_TAKEOVER, TAKEOVER])
@pytest.mark.parametrize(
    "message",
    [
        b"garbage",
        b"\xff" * 20,
        deflate(words(1, 500))[:-1],
        deflate(words(1, 500))[:-10],
        deflate(noise(1, 500), level=0)[:-10],
        FINAL_HELLO[:-1],
        FINAL_HELLO + b"\xffjunk",
        FINAL_HELLO + b"\x00junk",
        deflate(b"Hello") + b"\xffjunk",
        deflate(b"Hello") + TAIL + b"\xff",
        deflate(b"Hello")[:-1],
        # A final block that lacks five octets, and one that lacks nine.
        b"\x01\x05\x00\xfa\xff",
        b"\x01\x09\x00\xf6\xff",
    ],
)
def test_h79_garbage_truncated_data_and_junk_are_refused(
    message: bytes, agreement: Agreement
) -> None:
    for pieces in every_split(message):
        with pytest.raises(InvalidPayload) as caught:
            receive(new_inflater(agreement), pieces)
        assert caught.value.close_code == CloseCode.INVALID_DATA


def test_h79_a_message_cut_anywhere_is_refused() -> None:
    message = deflate(words(5, 300))
    for cut in range(1, len(message)):
        with pytest.raises(InvalidPayload):
            receive(new_inflater(), [message[:cut]])


@pytest.mark.parametrize(
    "offence", [b"garbage", deflate(bytes(2_000)), b"\x03\x00" * 500, deflate(b"x")[:-1]]
)
def test_h79_after_an_error_nothing_is_left_of_the_connection(offence: bytes) -> None:
    inflater = new_inflater(TAKEOVER)
    receive(inflater, [bytes.fromhex("f248cdc9c90700")])
    with pytest.raises(ProtocolError):
        receive(inflater, [offence], 1_000)
    assert receive(inflater, [deflate(b"new")]) == b"new"
    with pytest.raises(InvalidPayload):
        receive(inflater, [bytes.fromhex("f200110000")])


def test_a_discarded_message_is_forgotten() -> None:
    inflater = new_inflater()
    inflater.feed(deflate(words(1, 500))[:50], LIMIT)
    inflater.discard()
    assert receive(inflater, [deflate(b"Hello")]) == b"Hello"


def test_h83_a_reference_to_an_older_message_needs_takeover() -> None:
    inflater = new_inflater(NO_TAKEOVER)
    assert receive(inflater, [bytes.fromhex("f248cdc9c90700")]) == b"Hello"
    with pytest.raises(InvalidPayload):
        receive(inflater, [bytes.fromhex("f200110000")])


def test_h83_a_reference_into_another_connection_is_refused() -> None:
    secret, attacker = new_inflater(TAKEOVER), new_inflater(TAKEOVER)
    receive(secret, [bytes.fromhex("f248cdc9c90700")])
    with pytest.raises(InvalidPayload):
        receive(attacker, [bytes.fromhex("f200110000")])


@pytest.mark.parametrize("bits", [8, 9, 12])
@pytest.mark.parametrize("takeover", [False, True])
def test_h83_a_reference_beyond_the_agreed_window_is_refused(bits: int, takeover: bool) -> None:
    message = deflate(noise(1, 30_000) * 2, bits=15)
    agreement = Agreement(12, bits, False, takeover)
    for size in (len(message), 1_000):
        pieces = [message[at : at + size] for at in range(0, len(message), size)]
        with pytest.raises(InvalidPayload):
            receive(new_inflater(agreement), pieces)
        assert len(receive(new_inflater(agreement._replace(inflate_bits=15)), pieces)) == 60_000


def test_h83_an_older_message_is_within_reach_as_far_as_the_window_goes() -> None:
    old = noise(1, 5_000)
    for bits, is_reached in ((12, False), (13, True)):
        stream = zlib.compressobj(6, zlib.DEFLATED, -15)
        messages = [
            (stream.compress(payload) + stream.flush(zlib.Z_SYNC_FLUSH))[:-4]
            for payload in (old, old[:300])
        ]
        inflater = new_inflater(Agreement(12, bits, False, True))
        assert receive(inflater, messages[:1]) == old
        if is_reached:
            assert receive(inflater, messages[1:]) == old[:300]
        else:
            with pytest.raises(InvalidPayload):
                receive(inflater, messages[1:])


@pytest.mark.parametrize("agreement", [NO_TAKEOVER, TAKEOVER])
def test_h84_an_empty_message_is_empty(agreement: Agreement) -> None:
    inflater = new_inflater(agreement)
    for pieces in ([b"\x00"], [b"", b"\x00", b""], [b""], []):
        assert receive(inflater, pieces) == b""
        assert receive(inflater, [deflate(b"Hello")]) == b"Hello"


@pytest.mark.skipif(platform.python_implementation() == "PyPy", reason="it has no tracemalloc")
def test_h85_five_thousand_idle_connections_cost_little() -> None:
    import tracemalloc

    policy = Deflate()
    message = deflate(words(1, 50))
    connections: list[tuple[Compressor, Inflater]] = []
    tracemalloc.start()
    try:
        for _ in range(5_000):
            inflater = new_inflater(NO_TAKEOVER, policy)
            receive(inflater, [message])
            connections.append((policy.compressor(NO_TAKEOVER), inflater))
        current = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    # zlib's memory is traced, too: 40 KB for an inflater that is kept would show.
    assert current / len(connections) < 512


@pytest.mark.parametrize("agreement", [NO_TAKEOVER, TAKEOVER])
@pytest.mark.parametrize("size", [8_192, 8_193, 8_227, 8_450])
def test_h78_a_bare_final_block_is_the_end_even_where_it_waits_behind_a_full_step(
    agreement: Agreement, size: int
) -> None:
    stream = zlib.compressobj(9, zlib.DEFLATED, -15)
    message = stream.compress(b"a" * size) + stream.flush(zlib.Z_FINISH)
    for pieces in every_split(message):
        assert receive(new_inflater(agreement), pieces) == b"a" * size
