"""The `motherlode` command, deaf to no Ctrl-C: also while it loads and while it goes."""

from __future__ import annotations

import os
import signal
import sys

from flows.interrupts import INTERRUPTED, leave_at_once


def main() -> None:
    """Run the command line; an interrupt at any moment is exit code 130, not a dead process."""
    # Before torch loads: its threads spin while they wait for each other, and where another process
    # wants the cores too, training becomes ten times slower.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    leave_at_once()
    try:
        # Here, not above: loading takes seconds, in which a person may press Ctrl-C.
        from flows.cli import app

        app(args=sys.argv[1:])
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        sys.exit(INTERRUPTED)
    finally:
        # All is written. While Python takes itself down it has no handler any more, and an
        # interrupt would kill the process with the work done.
        signal.signal(signal.SIGINT, signal.SIG_IGN)


if __name__ == "__main__":
    main()
