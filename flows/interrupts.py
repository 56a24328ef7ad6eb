"""What Ctrl-C does: leave at once while nothing is at work, stop in order while something is."""

from __future__ import annotations

import os
import signal
from types import FrameType

INTERRUPTED = 130


def leave_at_once() -> None:
    """From now on an interrupt ends the process on the spot, with exit code 130.

    Modules load for seconds, and an exception in the middle of one that is written in C++ would
    abort the process. What is written to disk is whole or not there at any moment.
    """
    _handle(_leave)


def stop_in_order() -> None:
    """From now on an interrupt is a `KeyboardInterrupt`: workers and servers are to be stopped."""
    _handle(signal.default_int_handler)


def _handle(handler: signal._HANDLER) -> None:
    # Whoever started us in the background asked for no interrupts.
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, handler)


def _leave(number: int, frame: FrameType | None) -> None:
    os.write(2, b"stopped\n")
    os._exit(INTERRUPTED)
