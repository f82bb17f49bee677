"""The table of targets: what is checked, by which inputs."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

from fuzzing import deflate, envelope, fields, frames, heads, oracle, twins, urls


class Target(NamedTuple):
    """Name one thing that can be fuzzed.

    Attributes:
        name: how the command line and the reports call it.
        check: takes any bytes, raises when a promise is broken.
        generate: returns an input that is right, or nearly so.
        dictionary: what the grammar is made of.
    """

    name: str
    check: Callable[[bytes], None]
    generate: Callable[[random.Random], bytes]
    dictionary: Sequence[bytes]


def _frame_targets() -> list[Target]:
    """Return the targets that read frames, of clients (masked) and of servers."""
    checks: dict[str, Callable[..., None]] = {"frames": frames.check_frames}
    if oracle.IS_INSTALLED:
        checks["wsproto"] = oracle.check_beside_wsproto
    if twins.IS_ACCELERATED:
        checks["twins"] = twins.check_reading
    targets = [
        _frame_target(f"{name}-of-{peer}", check, is_masked=peer == "client")
        for name, check in checks.items()
        for peer in ("client", "server")
    ]
    compressed = {"frames": frames.check_frames, "twins": checks.get("twins")}
    deflated = [
        _frame_target(f"deflated-{name}", check, is_masked=True, is_compressed=True)
        for name, check in compressed.items()
        if check is not None
    ]
    return [*targets, *deflated]


def _frame_target(name: str, check: Callable[..., None], **mode: Any) -> Target:
    generate = partial(frames.generate_stream, **mode)
    return Target(name, partial(check, **mode), generate, frames.DICTIONARY)


_TABLE = (
    Target("request", heads.check_request, heads.generate_request, heads.DICTIONARY),
    Target("response", heads.check_response, heads.generate_response, heads.DICTIONARY),
    Target("target", heads.check_target, heads.generate_target, heads.TARGET_DICTIONARY),
    Target("cookies", heads.check_cookies, heads.generate_cookies, heads.COOKIE_DICTIONARY),
    Target(
        "extensions",
        fields.check_extensions,
        fields.generate_extensions,
        fields.EXTENSION_DICTIONARY,
    ),
    Target(
        "subprotocols",
        fields.check_subprotocols,
        fields.generate_subprotocols,
        fields.SUBPROTOCOL_DICTIONARY,
    ),
    Target(
        "credentials",
        fields.check_credentials,
        fields.generate_credentials,
        fields.CREDENTIAL_DICTIONARY,
    ),
    Target("origin", urls.check_origin, urls.generate_origin, urls.ORIGIN_DICTIONARY),
    Target("url", urls.check_url, urls.generate_url, urls.URL_DICTIONARY),
    Target("redirect", urls.check_redirect, urls.generate_redirect, urls.REDIRECT_DICTIONARY),
    *_frame_targets(),
    Target("masking", twins.check_masking, twins.generate_masking, twins.DICTIONARY),
    Target("splitting", twins.check_splitting, heads.generate_request, heads.DICTIONARY),
    Target("writing", twins.check_writing, twins.generate_writing, twins.DICTIONARY),
    Target("inflater", deflate.check_inflater, deflate.generate_compressed, deflate.DICTIONARY),
    Target(
        "negotiation",
        deflate.check_negotiation,
        deflate.generate_negotiation,
        deflate.NEGOTIATION_DICTIONARY,
    ),
    Target("envelope", envelope.check_envelope, envelope.generate_envelope, envelope.DICTIONARY),
)

TARGETS = {target.name: target for target in _TABLE}
