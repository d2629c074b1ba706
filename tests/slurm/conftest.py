"""A real Slurm on this machine: a controller and two nodes, each in namespaces of its own.

    ctl  10.77.0.1  slurmctld, munged, and a bridge      a1, a2  10.77.0.2, 3  slurmd

A node has its own network, host name, processes, /dev/shm and /tmp, as a host has; what they share
is a folder, as hosts do, in which Slurm's files and the jobs' are too. It takes root, Debian's
slurm-wlm and munge, and iproute2: only `make slurm` collects these tests. Nothing is made outside
of the namespaces but that folder, so all of it ends with three processes.
"""

import os
import secrets
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "deploy" / "slurm.sh"
HOSTS = {"ctl": "10.77.0.1", "a1": "10.77.0.2", "a2": "10.77.0.3"}
NODES = ("a1", "a2")
PATIENCE_S = 120
_COMMAND_TIMEOUT_S = 60
_CONF = """\
ClusterName=xpmem-emu
SlurmctldHost=ctl
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
ReturnToService=2
MailProg=/bin/true
KillWait=20
NodeName=a1,a2 CPUs=8
PartitionName=main Nodes=ALL Default=YES
"""
_HOST = """\
set -e
hostname {name}
mount --bind {folder}/hosts /etc/hosts
mount -t tmpfs tmpfs /dev/shm
mount -t tmpfs tmpfs /tmp
ip link set lo up
echo ready
exec sleep infinity
"""


def until(condition: Callable[[], bool], told: Callable[[], object]) -> float:
    """Wait for `condition`; `told` says what is wrong. Result: seconds that it took."""
    begun = time.monotonic()
    while not condition():
        assert time.monotonic() < begun + PATIENCE_S, told()
    return time.monotonic() - begun


@dataclass
class Host:
    """Namespaces, kept by a process whose end is the end of all that runs in them."""

    name: str
    folder: Path
    keeper: "subprocess.Popen[str]"
    pid: int
    daemons: list["subprocess.Popen[bytes]"] = field(default_factory=list)

    def words(self, *command: str) -> list[str]:
        """The command line that runs `command` there."""
        return [
            "nsenter",
            "--target",
            str(self.pid),
            "--net",
            "--uts",
            "--mount",
            "--pid",
            f"--wd={self.folder}",
            "--",
            *command,
        ]

    def start(self, log: Path, *command: str) -> None:
        """Start a daemon there that stays in the foreground."""
        with log.open("wb") as output:
            self.daemons.append(
                subprocess.Popen(self.words(*command), stdout=output, stderr=subprocess.STDOUT)
            )

    def end(self) -> None:
        """End everything there."""
        self.keeper.kill()  # it ignores SIGTERM
        for daemon in self.daemons:
            daemon.wait(30)
        self.keeper.wait(30)


@dataclass(frozen=True)
class Slurm:
    """The cluster. `folder` is what all its hosts see."""

    folder: Path
    hosts: dict[str, Host]
    environment: dict[str, str]

    def run(
        self,
        *command: str,
        on: str = "ctl",
        check: bool = True,
        env: Mapping[str, str] | None = None,
    ) -> str:
        """What a command prints on a host."""
        done = subprocess.run(
            self.hosts[on].words(*command),
            capture_output=True,
            text=True,
            cwd=self.folder,
            timeout=_COMMAND_TIMEOUT_S,
            env=self.environment | dict(env or {}),
        )
        assert not check or done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout

    def submit(self, *options: str, env: Mapping[str, str] | None = None) -> "Job":
        """Submit the shipped script."""
        said = self.run("sbatch", "--parsable", *options, str(SCRIPT), env=env)
        return Job(self, said.strip())

    def logs(self) -> str:
        """The ends of all logs, and what Slurm thinks."""
        ends = [
            f"== {path.name}\n{path.read_text(errors='replace')[-1500:]}"
            for path in sorted([*self.folder.glob("*.log"), *self.folder.glob("slurm-*.out")])
        ]
        return "\n".join([self.run("sinfo", check=False), self.run("squeue", check=False), *ends])


@dataclass(frozen=True)
class Job:
    """One job of the shipped script."""

    slurm: Slurm
    ident: str

    @property
    def folder(self) -> Path:
        return self.slurm.folder / f"xpmem-emu-{self.ident}"

    def shell(self, command: str, *, check: bool = True) -> str:
        """A client's command on the controller's host, as the script says that it is done."""
        text = f". {self.folder}/clients.sh; {command}"
        return self.slurm.run("bash", "-c", text, check=check)

    def until_well(self, count: int) -> float:
        """Wait until so many partitions are active with all others. Result: seconds."""

        def well() -> bool:
            return self.shell("xpmem-emu status", check=False).count(" well ") == count

        return until(well, self.slurm.logs)

    def cancel(self) -> None:
        """`scancel`; returns when the job is over."""
        self.slurm.run("scancel", self.ident)
        self.until_over()

    def until_over(self) -> None:
        """Wait until Slurm knows no job of that number, or that it is done everywhere."""
        until(
            lambda: (
                not self.slurm.run(
                    "squeue", "--noheader", "--jobs", self.ident, check=False
                ).strip()
            ),
            self.slurm.logs,
        )


def _host(name: str, folder: Path) -> Host:
    keeper = subprocess.Popen(
        [
            "unshare",
            "--net",
            "--uts",
            "--mount",
            "--pid",
            "--fork",
            "--kill-child",
            "--mount-proc",
            "bash",
            "-c",
            _HOST.format(name=name, folder=folder),
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert keeper.stdout is not None
    assert keeper.stdout.readline() == "ready\n", f"no namespaces for {name}"
    (child,) = psutil.Process(keeper.pid).children()
    return Host(name, folder, keeper, child.pid)


def _wire(hosts: dict[str, Host]) -> None:
    """A bridge on ctl, and a cable from each node to it."""

    def ip(host: str, *words: str) -> None:
        subprocess.run(hosts[host].words("ip", *words), check=True, timeout=_COMMAND_TIMEOUT_S)

    ip("ctl", "link", "add", "br0", "type", "bridge")
    for name in NODES:
        ip("ctl", "link", "add", name, "type", "veth", "peer", "name", "eth0")
        subprocess.run(
            [
                "nsenter",
                "--target",
                str(hosts["ctl"].pid),
                "--net",
                "ip",
                "link",
                "set",
                "eth0",
                "netns",
                str(hosts[name].pid),
            ],
            check=True,
        )
        ip("ctl", "link", "set", name, "master", "br0", "up")
        ip(name, "address", "add", f"{HOSTS[name]}/24", "dev", "eth0")
        ip(name, "link", "set", "eth0", "up")
    ip("ctl", "address", "add", f"{HOSTS['ctl']}/24", "dev", "br0")
    ip("ctl", "link", "set", "br0", "up")


@pytest.fixture(scope="session")
def slurm() -> Iterator[Slurm]:
    """Up, with two idle nodes; nothing is left of it afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="xe", dir="/var/tmp"))
    conf = folder / "slurm.conf"
    conf.write_text(_CONF.format(folder=folder))
    (folder / "hosts").write_text(
        "127.0.0.1 localhost\n" + "".join(f"{ip} {name}\n" for name, ip in HOSTS.items())
    )
    (folder / "state").mkdir()
    key = folder / "munge.key"
    key.touch(mode=0o600)
    key.write_bytes(secrets.token_bytes(128))
    environment = {
        "PATH": f"{ROOT / '.venv' / 'bin'}:{os.environ['PATH']}:/usr/sbin:/sbin",
        "HOME": str(folder),
        "SLURM_CONF": str(conf),
    }
    hosts: dict[str, Host] = {}
    try:
        for name in HOSTS:
            hosts[name] = _host(name, folder)
        _wire(hosts)
        made = Slurm(folder, hosts, environment)
        hosts["ctl"].start(
            folder / "munged.log",
            "munged",
            "--foreground",
            "--force",
            f"--key-file={key}",
            f"--socket={folder}/munge.socket",
            f"--pid-file={folder}/munged.pid",
            f"--seed-file={folder}/munged.seed",
        )
        until(lambda: (folder / "munge.socket").exists(), made.logs)
        env = ("env", *(f"{name}={value}" for name, value in environment.items()))
        hosts["ctl"].start(folder / "slurmctld.log", *env, "slurmctld", "-D", "-f", str(conf))
        for name in NODES:
            hosts[name].start(folder / f"slurmd-{name}.log", *env, "slurmd", "-D", "-f", str(conf))
        idle = ["sinfo", "--noheader", "--format", "%D %T"]
        until(lambda: made.run(*idle, check=False).split() == ["2", "idle"], made.logs)
        yield made
    finally:
        for host in hosts.values():
            host.end()
        shutil.rmtree(folder)
