"""Random streams, each from (campaign seed, round, role): resumed equals never stopped."""

from __future__ import annotations

import hashlib


def stream(seed: int, number: int, role: str) -> int:
    """The seed of one random stream: a hash of (campaign seed, round, role), below 2⁶³."""
    text = f"{seed}/{number}/{role}".encode()
    return int.from_bytes(hashlib.sha256(text).digest()[:8], "big") >> 1
