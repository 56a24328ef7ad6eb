"""The campaign's own Prefect server, when no other is named by PREFECT_API_URL.

It listens on loopback, keeps its records in the campaign's directory, prints into a file there, and
goes when its parent does, however that ends: it watches a pipe that only the parent holds open.
Prefect's built-in temporary server does none of this (it outlives a killed parent and dies of the
Ctrl-C that was meant for the campaign).
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

from flows.prepared import copy_prepared, keep_prepared

START_LIMIT_S = 120.0

QUIET = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    # Records go to the server's pages; the terminal is the campaign's own.
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
    "PREFECT_LOGGING_LOGGERS_PREFECT_FLOW_RUNS_LEVEL": "INFO",
}


class PrefectServerError(Exception):
    """The Prefect server did not come up; the message says where its log is."""


class PrefectServer:
    """A Prefect server for one campaign; starting takes seconds, so start early and wait late.

    `schedules`: with the pages and the services that make scheduled runs.
    """

    def __init__(self, directory: Path, schedules: bool = False) -> None:
        self.home = (directory / "prefect").resolve()
        self.home.mkdir(parents=True, exist_ok=True)
        self._database = self.home / "prefect.db"
        self._is_new = not self._database.exists() and not copy_prepared("prefect", self._database)
        self.log = self.home / "server.log"
        self.port = _free_port()
        self.url = f"http://127.0.0.1:{self.port}/api"
        with self.log.open("a", encoding="utf-8") as log:
            self.process = subprocess.Popen(  # noqa: S603 - our own module, no shell
                [sys.executable, "-P", "-m", "flows.server", str(self.port), *["full"] * schedules],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env=os.environ | QUIET | {"PREFECT_HOME": str(self.home), "PREFECT_API_URL": ""},
                start_new_session=True,
            )

    def wait(self) -> None:
        """Wait until it answers. PrefectServerError when it does not in `START_LIMIT_S`."""
        deadline = time.monotonic() + START_LIMIT_S
        while time.monotonic() < deadline and self.process.poll() is None:
            if _answers(f"{self.url}/health"):
                if self._is_new:  # nobody has asked it for anything yet
                    keep_prepared("prefect", self._database)
                return
            time.sleep(0.1)
        raise PrefectServerError(f"Prefect's server did not start; its log is {self.log}")

    def stop(self) -> None:
        """Ask it to go, and make it go after a few seconds."""
        self.process.terminate()
        try:
            self.process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        if self.process.stdin:
            self.process.stdin.close()


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as reply:  # noqa: S310 - loopback http
            return bool(reply.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _leave_with_parent() -> None:
    """End this process when the parent's end of our standard input closes."""
    sys.stdin.buffer.read()
    os._exit(0)


def serve(port: int, schedules: bool) -> None:
    """Serve Prefect's API on loopback until the parent goes."""
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    import uvicorn
    from prefect.server.api.server import create_app

    uvicorn.run(create_app(ephemeral=not schedules), host="127.0.0.1", port=port, log_level="error")


if __name__ == "__main__":
    serve(int(sys.argv[1]), schedules="full" in sys.argv[2:])
