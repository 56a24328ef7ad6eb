"""A real Slurm on this machine, for the tests and benchmarks/chaos.py: one node, its own munge.

Needs Debian's slurm-wlm and munge, and root. Nothing of it outlives `stop`, and it touches no Slurm
that may be installed: everything is in one folder, on ports of its own.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path

CONF = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
SchedulerParameters=batch_sched_delay=0,sched_min_interval=0,bf_interval=1
MpiDefault=none
ReturnToService=2
KillWait=1
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} State=UNKNOWN
PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE OverSubscribe=NO State=UP
"""


class SlurmCluster:
    """Starts on creation; `stop` ends its three daemons and all that they started."""

    def __init__(self, cpus: int = 2) -> None:
        # Short, because a socket's path may have no more than 107 characters.
        self.folder = Path(tempfile.mkdtemp(prefix="slurm-", dir="/tmp"))
        self.conf = self.folder / "slurm.conf"
        self._host = socket.gethostname().split(".")[0]
        for name in ("state", "spool"):
            (self.folder / name).mkdir()
        self.conf.write_text(
            CONF.format(host=self._host, ports=_free_ports(2), folder=self.folder, cpus=cpus)
        )
        self._daemons: list[subprocess.Popen[bytes]] = []
        try:
            self._start_munge()
            self._daemon("slurmctld", "-D")
            self.start_node()
            self._await(lambda: "idle" in self.ask("sinfo", "--noheader", "--format=%T"))
        except BaseException:
            self.stop()
            raise

    @property
    def environment(self) -> dict[str, str]:
        """What the commands of Slurm need to find it."""
        return {**os.environ, "SLURM_CONF": str(self.conf)}

    def ask(self, *command: str) -> str:
        """What a command prints; nothing when it fails."""
        done = subprocess.run(command, capture_output=True, text=True, env=self.environment)
        return done.stdout if done.returncode == 0 else ""

    def does(self, *command: str) -> bool:
        """Whether a command succeeds."""
        done = subprocess.run(command, capture_output=True, text=True, env=self.environment)
        return done.returncode == 0

    def set_node(self, state: str) -> None:
        """Have the controller take the node for `down`, or `resume` it."""
        what = [f"nodename={self._host}", f"state={state}", "reason=test"]
        # A node whose daemon is heard again may be back before it is told to.
        if not self.does("scontrol", "update", *what) and not (state == "resume" and self._is_up()):
            raise RuntimeError(f"the node cannot be set to {state}\n{self._logs()}")

    def _is_up(self) -> bool:
        return self.ask("sinfo", "--noheader", "--format=%T").strip() in (
            "idle",
            "mixed",
            "allocated",
        )

    def start_node(self) -> None:
        """Start the node's daemon."""
        self._daemon("slurmd", "-D", "-N", self._host)

    def stop(self) -> None:
        """End everything, and take the folder away."""
        self.ask("scancel", "--quiet", "--user=root")
        deadline = time.monotonic() + 10
        while self.ask("squeue", "--noheader").strip() and time.monotonic() < deadline:
            time.sleep(0.1)
        for daemon in reversed(self._daemons):
            daemon.terminate()
        for daemon in self._daemons:
            try:
                daemon.wait(timeout=10)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _start_munge(self) -> None:
        key = self.folder / "munge.key"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o400)
        paths = {
            "socket": "munge.socket",
            "key-file": "munge.key",
            "pid-file": "munged.pid",
            "log-file": "munged.log",
            "seed-file": "munged.seed",
        }
        named = [f"--{option}={self.folder / name}" for option, name in paths.items()]
        self._daemon("munged", "--foreground", "--force", "--num-threads=1", *named)
        self._await((self.folder / "munge.socket").exists)

    def _daemon(self, program: str, *arguments: str) -> None:
        path = shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
        if path is None:
            raise FileNotFoundError(f"{program}: install Debian's slurm-wlm and munge")
        out = (self.folder / f"{program}.out").open("wb")
        with out:
            self._daemons.append(
                subprocess.Popen([path, *arguments], stdout=out, stderr=out, env=self.environment)
            )

    def _await(self, true: object, seconds: float = 60) -> None:
        deadline = time.monotonic() + seconds
        while not true():  # type: ignore[operator]
            if time.monotonic() > deadline:
                raise TimeoutError(f"Slurm did not start\n{self._logs()}")
            time.sleep(0.1)

    def _logs(self) -> str:
        files = sorted([*self.folder.glob("*.log"), *self.folder.glob("*.out")])
        return "\n".join(f"{p.name}: {p.read_text(errors='replace')[-1500:]}" for p in files)


def _free_ports(n: int) -> list[int]:
    sockets = [socket.socket() for _ in range(n)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports
