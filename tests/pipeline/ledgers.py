"""What the tests of the ledger ask it."""

from __future__ import annotations

from pipeline.ledger import Ledger


def state_of(ledger: Ledger) -> dict[str, str]:
    frame = ledger.to_frame(["key", "state"])
    return dict(zip(frame["key"], frame["state"], strict=True))
