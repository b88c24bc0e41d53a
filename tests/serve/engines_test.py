# SPDX-License-Identifier: Apache-2.0
"""Two workers a party, started by the examples in configs/service: under Open MPI, and by a Slurm of one node that this
starts. Skipped (77) where the engine is missing or does not come up.

engines_test.py --bin DIRECTORY --engine mpirun|slurm
"""
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from service_test import ROOT, free_ports, run

IMAGES = 100
CONFIG = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmdPort={node_port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={directory}/munge.socket
StateSaveLocation={directory}/state
SlurmdSpoolDir={directory}/spool
SlurmctldPidFile={directory}/slurmctld.pid
SlurmdPidFile={directory}/slurmd.pid
SlurmctldLogFile={directory}/slurmctld.log
SlurmdLogFile={directory}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
MpiDefault=none
ReturnToService=2
NodeName={host} NodeAddr=127.0.0.1 CPUs=6
PartitionName=all Nodes={host} Default=YES MaxTime=INFINITE
"""


def skip(reason):
    print("skipped:", reason)
    sys.exit(77)


def need(*programs):
    path = os.environ["PATH"] + ":/usr/sbin:/sbin"
    os.environ["PATH"] = path
    for program in programs:
        if not shutil.which(program):
            skip(f"{program} is missing")


class Slurm:
    """A cluster of one node, in a directory."""

    def __init__(self, directory):
        self.directory = directory
        self.daemons = []
        host = socket.gethostname().split(".")[0]
        port = free_ports(2)
        for name in ("state", "spool"):
            (directory / name).mkdir()
        (directory / "munge.key").write_bytes(os.urandom(128))
        (directory / "munge.key").chmod(0o600)
        self.config = directory / "slurm.conf"
        user = subprocess.run(["id", "-un"], capture_output=True, text=True, check=True, timeout=60).stdout.strip()
        self.config.write_text(CONFIG.format(host=host, port=port, node_port=port + 1, user=user, directory=directory))
        os.environ["SLURM_CONF"] = str(self.config)
        self.host = host

    def daemon(self, *command):
        with open(self.directory / "daemons.log", "a") as log:
            self.daemons.append(subprocess.Popen(command, stdout=log, stderr=log))

    def start(self):
        """Whether it has come up."""
        d = self.directory
        self.daemon("munged", "--foreground", "--force", f"--socket={d}/munge.socket", f"--key-file={d}/munge.key",
                    f"--pid-file={d}/munge.pid", f"--log-file={d}/munge.log", f"--seed-file={d}/munge.seed")
        end = time.monotonic() + 30
        while not (d / "munge.socket").exists():
            if time.monotonic() > end or self.daemons[0].poll() is not None:
                return False
            time.sleep(0.1)
        self.daemon("slurmctld", "-D", "-f", self.config)
        self.daemon("slurmd", "-D", "-f", self.config, "-N", self.host)
        while time.monotonic() < end and not any(daemon.poll() is not None for daemon in self.daemons):
            seen = subprocess.run(["sinfo", "-h", "-o", "%T"], capture_output=True, text=True, timeout=60)
            if seen.stdout.strip() == "idle":
                return subprocess.run(["srun", "-n1", "-t1", "true"], capture_output=True, timeout=60).returncode == 0
            time.sleep(0.2)
        return False

    def stop(self):
        for daemon in reversed(self.daemons):
            daemon.terminate()
        for daemon in self.daemons:
            try:
                daemon.wait(timeout=20)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait(timeout=20)


def environment(service, directory, i, hosts):
    """What the examples take their settings from, for party i."""
    stores = directory / f"party{i}"
    stores.mkdir()
    for w in range(2):
        (stores / f"worker{w}").symlink_to(service.stores[2 * i + w])
    return {**os.environ, "TERCET_ID": str(i), "TERCET_DEPLOYMENT": str(service.deployment), "TERCET_STORE": str(stores),
            "TERCET_HOSTS": str(hosts), "PATH": f"{Path(service.party).parent}:{os.environ['PATH']}"}


def asked(service, directory):
    """All workers of all parties answer."""
    plain = service.draw(IMAGES)
    service.put()
    assert service.logits(directory / "a.json") == plain
    assert all(service.used(n) for n in range(6)), [service.used(n) for n in range(6)]


def mpirun(service, directory):
    hosts = directory / "hosts"
    hosts.write_text(f"{socket.gethostname()}\n" * 2)  # it knows itself by no other name
    os.environ.update({"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
                       "OMPI_MCA_rmaps_base_oversubscribe": "1", "SLURM_PROCID": "7"})
    for i in range(3):
        with open(directory / f"log{i}", "w") as log:
            service.servers.append(subprocess.Popen(["bash", ROOT / "configs/service/server.mpirun", "--max-wait", "1"],
                                                    env=environment(service, directory, i, hosts), stdout=log, stderr=log))
    asked(service, directory)
    for server in service.servers:
        server.send_signal(signal.SIGTERM)
    for server in service.servers:
        server.wait(timeout=60)
    for i in range(3):
        assert (directory / f"log{i}").read_text().count("those under way end") == 2


def slurm(service, directory):
    cluster = directory / "slurm"
    cluster.mkdir()
    engine = Slurm(cluster)
    try:
        if not engine.start():
            for log in sorted(cluster.glob("*.log")):
                print(f"--- {log.name}\n{log.read_text()[-2000:]}", file=sys.stderr)
            skip("Slurm does not come up here")
        hosts = directory / "hosts"
        hosts.write_text(f"{engine.host}\n" * 2)
        jobs = []
        for i in range(3):
            command = ["sbatch", "--parsable", "--nodes=1", "--cpus-per-task=1", f"--output={directory}/log{i}",
                       ROOT / "configs/service/server.sbatch", "--max-wait", "1"]
            done = subprocess.run([str(part) for part in command], env=environment(service, directory, i, hosts),
                                  capture_output=True, text=True, timeout=60)
            assert done.returncode == 0, done.stderr
            jobs.append(done.stdout.strip())
        asked(service, directory)
        subprocess.run(["scancel", "--signal=TERM", *jobs], check=True, timeout=60)
        listed = {"capture_output": True, "text": True, "check": True, "timeout": 60}
        service.wait(lambda: not subprocess.run(["squeue", "-h"], **listed).stdout, "the jobs do not end")
        for i in range(3):
            assert (directory / f"log{i}").read_text().count("those under way end") == 2
    finally:
        engine.stop()


if __name__ == "__main__":
    at = sys.argv.index("--engine")
    engine = sys.argv[at + 1]
    del sys.argv[at:at + 2]
    if engine == "mpirun":
        need("mpirun")
        run(mpirun, workers=2, start=False)
    else:
        need("srun", "slurmctld", "slurmd", "munged")
        run(slurm, workers=2, start=False)
