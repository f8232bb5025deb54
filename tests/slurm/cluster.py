"""A Slurm cluster of this machine: two nodes, two partitions of which one preempts the other, all in one folder."""

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PATIENCE_S = 60
PATH = "/usr/sbin:/usr/bin:/sbin:/bin"

CONF = """
ClusterName=wonder
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
SlurmUser=root
SlurmdUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/pgid
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=sched_interval=1,sched_min_interval=0,batch_sched_delay=0,bf_interval=1
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
ReturnToService=2
MinJobAge={forget_s}
KillWait=5
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal
SlurmdParameters=config_overrides
NodeName=wonder1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=8 State=UNKNOWN
NodeName=wonder2 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=8 State=UNKNOWN
PartitionName=low Nodes=ALL Default=YES PriorityTier=1 GraceTime=30 MaxTime=60 State=UP
PartitionName=high Nodes=ALL PriorityTier=2 PreemptMode=OFF State=UP
"""


class Cluster:
    """The daemons of a cluster, each a child of this process; the controller may be stopped and started again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.conf = folder / "slurm.conf"
        self._daemons: dict[str, subprocess.Popen[bytes]] = {}

    def start(self) -> None:
        """Begin with nothing; ready when both nodes are idle."""
        folder, host = self.folder, socket.gethostname().partition(".")[0]
        for name in ("state", "spool-wonder1", "spool-wonder2"):
            (folder / name).mkdir()
        (folder / "munge.key").write_bytes(os.urandom(1024))
        (folder / "munge.key").chmod(0o400)
        self.conf.write_text(CONF.format(folder=folder, host=host, ports=_free_ports(3), forget_s=300))
        munge = [f"--{name}={folder}/{file}" for name, file in MUNGE.items()]
        self._daemon("munged", "--foreground", "--force", *munge)
        _wait(lambda: (folder / "munge.socket").exists(), "munged")
        self.start_controller()
        for node in ("wonder1", "wonder2"):
            self._daemon("slurmd", "-D", "-N", node, name=node)
        _wait(lambda: self.ask("sinfo", "-h", "-p", "low", "-t", "idle", "-o", "%D").strip() == "2", "two idle nodes")

    def start_controller(self) -> None:
        """Without it no command of Slurm is answered; jobs go on."""
        self._daemon("slurmctld", "-D")
        _wait(lambda: "UP" in self.ask("scontrol", "ping"), "slurmctld")

    def stop_controller(self) -> None:
        """As when its machine goes down for a while."""
        self._stop("slurmctld")

    def stop(self) -> None:
        """Cancel every job, and end all daemons."""
        with suppress(subprocess.SubprocessError):
            self.ask("scancel", "--full", "--signal=KILL", "--user=root")
            self.ask("scancel", "--user=root")
        for name in reversed(list(self._daemons)):
            self._stop(name)

    def ask(self, *command: str) -> str:
        """What a command of Slurm prints."""
        return subprocess.run(command, capture_output=True, text=True, check=False, env=self.environment()).stdout

    def environment(self) -> dict[str, str]:
        """Where the commands find this cluster."""
        return {"SLURM_CONF": str(self.conf), "PATH": PATH}

    def _daemon(self, *command: str, name: str = "") -> None:
        name = name or command[0]
        with (self.folder / f"{name}.out").open("ab") as out:
            self._daemons[name] = subprocess.Popen(command, stdout=out, stderr=out, env=self.environment())

    def _stop(self, name: str) -> None:
        process = self._daemons.pop(name)
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


MUNGE = {
    "key-file": "munge.key", "socket": "munge.socket", "pid-file": "munged.pid", "log-file": "munged.log",
    "seed-file": "munge.seed",
}  # fmt: skip


@contextmanager
def cluster(folder: Path) -> Iterator[Cluster]:
    """A cluster while the block runs."""
    for program in ("munged", "slurmctld", "slurmd", "sbatch"):
        assert shutil.which(program, path=PATH), f"{program} is missing: `make test-slurm` as root installs it"
    made = Cluster(folder)
    try:
        made.start()
        yield made
    finally:
        made.stop()


def _free_ports(count: int) -> list[int]:
    taken = [socket.socket() for _ in range(count)]
    try:
        for one in taken:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in taken]
    finally:
        for one in taken:
            one.close()


def _wait(done: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not done():
        assert time.monotonic() < deadline, f"{what} did not come up"
        time.sleep(0.1)
