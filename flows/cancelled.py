"""Cancelling `motherlode run` on the page of a shared Prefect server.

Prefect's runners and workers watch the runs that they started. Nobody watches one that runs in its
own process: it would stay "Cancelling" and work on.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any
from uuid import UUID

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.objects import State

LOOK_S = 2.0
"""How often the server is asked."""


class PageWatch:
    """Watches the page of the flow run that is played in this process."""

    def __init__(self) -> None:
        self._over = threading.Event()
        self._cancelled: UUID | None = None

    @contextmanager
    def heeding(self) -> Iterator[None]:
        """In a flow: while the block runs, cancelling it on its page is a SIGTERM to this process.

        A server that does not answer cancels nothing.
        """
        from prefect.runtime import flow_run

        watcher = threading.Thread(target=self._watch, args=(UUID(flow_run.id),), daemon=True)
        watcher.start()
        try:
            yield
        finally:
            self._over.set()
            watcher.join()

    def conclude(self) -> None:
        """After the flow: a run that was cancelled is `Cancelled`, where Prefect says `Crashed`."""
        if self._cancelled is None:
            return
        from prefect.client.orchestration import get_client
        from prefect.states import Cancelled

        told: State[Any] = Cancelled(message="stopped in order; the same command again goes on")
        # A server that is gone keeps its page as it was; the campaign has stopped all the same.
        with suppress(*_unreachable()), get_client(sync_client=True) as client:
            client.set_flow_run_state(self._cancelled, told, force=True)

    def _watch(self, flow_run: UUID) -> None:
        from prefect.client.orchestration import get_client

        with get_client(sync_client=True) as client:
            while not self._over.wait(LOOK_S):
                if _is_cancelling(client, flow_run):
                    self._cancelled = flow_run
                    os.kill(os.getpid(), signal.SIGTERM)
                    return


def _is_cancelling(client: SyncPrefectClient, flow_run: UUID) -> bool:
    try:
        state = client.read_flow_run(flow_run).state
    # The round goes on without its page; what it needs of the server says so itself.
    except _unreachable():
        return False
    return state is not None and state.is_cancelling()


def _unreachable() -> tuple[type[Exception], ...]:
    """What a server that does not answer as it should raises."""
    import httpx
    from prefect.exceptions import PrefectException

    return httpx.HTTPError, PrefectException, OSError
