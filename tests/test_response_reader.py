from __future__ import annotations

import pytest
from splits import every_split

from websocket.errors import HandshakeError
from websocket.limits import Limits
from websocket.response_reader import _STEP, ResponseReader

LIMITS = Limits()
INTERIM = b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"
SHORT = b"HTTP/1.1 100\r\n\r\n"
FINAL = b"HTTP/1.1 404 Not Found\r\nX: y\r\n\r\n"


def read(*pieces: bytes) -> tuple[int, bytes] | None:
    """Return the status of the answer, and all bytes behind it."""
    reader = ResponseReader(LIMITS)
    for number, piece in enumerate(pieces):
        response = reader.feed(memoryview(piece))
        if response is not None:
            return response.status, reader.leftover + b"".join(pieces[number + 1 :])
    return None


STREAM = INTERIM + SHORT + FINAL + b"body"


@pytest.mark.parametrize(
    "pieces", [*every_split(STREAM)], ids=lambda pieces: f"{len(pieces)} pieces"
)
def test_the_answer_is_found_however_the_stream_is_cut(pieces: list[bytes]) -> None:
    assert read(*pieces) == (404, b"body")


@pytest.mark.parametrize(
    ("stream", "answer"),
    [
        (FINAL, (404, b"")),
        (b"HTTP/1.1 101 ok\r\n\r\nframes", (101, b"frames")),
        (b"HTTP/1.0 200\r\n\r\n" + FINAL, (200, FINAL)),
        (INTERIM * 50, None),
        (FINAL[:-1], None),
        (b"", None),
    ],
)
def test_the_first_that_is_not_interim_counts(
    stream: bytes, answer: tuple[int, bytes] | None
) -> None:
    assert read(stream) == answer


@pytest.mark.parametrize("before", [0, 1, _STEP - len(FINAL), _STEP - 20, _STEP - 1, _STEP, 99_999])
@pytest.mark.parametrize("behind", [0, 1, _STEP, 3 * _STEP + 1])
def test_an_answer_anywhere_in_a_long_read(before: int, behind: int) -> None:
    interim = SHORT * (before // len(SHORT))
    field = "x" * (before % len(SHORT))
    final = FINAL.replace(b"X: y", f"X: y{field}".encode())
    assert read(interim + final + bytes(behind)) == (404, bytes(behind))


@pytest.mark.parametrize(
    "stream",
    [
        b"SSH-2.0",
        INTERIM + b"SSH-2.0",
        SHORT + b"HTTP/1.1 200 ok\r\nno colon\r\n\r\n",
        SHORT + b"HTTP/1.1 200 ok\r\n" + b"X: y\r\n" * 101,
        b"HTTP/1.1 103\r\nX: " + b"y" * LIMITS.max_header_line + b"\r\n\r\n" + FINAL,
    ],
)
def test_what_is_no_answer_is_a_handshake_error(stream: bytes) -> None:
    with pytest.raises(HandshakeError) as caught:
        read(stream)
    assert caught.value.status == 0
