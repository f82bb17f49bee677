"""One message for many connections, encoded once however many they are.

What goes out depends on nothing but the compression agreed on, and without context takeover all
connections of a server share one compressor: so there are two forms at the most. With takeover
each connection has to compress for itself, and does.

Not for: clients, which mask each frame with a key of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from websocket.frame_writer import FrameWriter, Payload, encode_message, frame_message

if TYPE_CHECKING:
    from collections.abc import Hashable

    from websocket.deflate_codec import Compressor
    from websocket.policies import SlowConsumer

_WRITER = FrameWriter(masks=False)


class SharedMessage:
    """Hold a message in the forms that are sent; see ``Endpoint.send_shared``.

    Args:
        message: text, or anything bytes-like, which is copied.
        policy: what becomes of it where a peer is slow; by default each connection's own.
        key: what it is about, see ``SlowConsumer.LATEST``.

    Attributes:
        policy, key: as given.
        head: the first octet of the uncompressed frame.
        payload: the uncompressed payload.
        frame: the uncompressed frame.

    Raises:
        TypeError: neither str nor bytes-like.
        ValueError: text that UTF-8 cannot encode (a lone surrogate).
    """

    __slots__ = ("_compressed", "frame", "head", "key", "payload", "policy")

    def __init__(
        self, message: Payload, policy: SlowConsumer | None = None, key: Hashable = None
    ) -> None:
        self.policy = policy
        self.key = key
        self.head, self.payload = encode_message(message)
        self.frame = frame_message(message if isinstance(message, str) else self.payload)
        self._compressed: dict[Compressor, tuple[bytes, ...]] = {}

    def frame_by(self, compressor: Compressor) -> tuple[bytes, ...]:
        """Return the frame that a compressor without takeover makes of the message."""
        frame = self._compressed.get(compressor)
        if frame is None:
            frame = _WRITER.encode_compressed(self.head, self.payload, compressor)
            self._compressed[compressor] = frame
        return frame
