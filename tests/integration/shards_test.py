#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A job in two shards: each party is `mpirun -n 2`, or a job of a Slurm of one node that this starts, and each process finds
its shard in what the engine tells it. Skipped (77) where the engine is missing or does not come up.

shards_test.py --bin DIRECTORY --engine mpirun|slurm
"""
import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/serve"))
from engines_test import Slurm, need, skip  # noqa: E402
from service_test import free_ports  # noqa: E402

NETWORK, MODEL = ROOT / "nets/mnistnet1.json", ROOT / "nets/mnistnet1.compiled.safetensors"


class Mpirun:
    def __init__(self, binaries, folder):
        need("mpirun")
        self.program, self.folder = binaries / "tercet-party", folder

    def run_all(self, parties):
        """What the parties print."""
        environment = dict(os.environ, OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1",
                           TMPDIR=str(self.folder))
        running = []
        for party, more in enumerate(parties):
            command = ["mpirun", "-n", "2", "--oversubscribe", self.program, "--id", party, "--testbed",
                       self.folder / "testbed.json", "--network", NETWORK, "--shard", "auto", "--resume", "--json",
                       self.folder / f"p{party}/shard-{{shard}}.json", *more]
            running.append(subprocess.Popen([str(part) for part in command], env=environment, stdout=subprocess.PIPE,
                                            stderr=subprocess.PIPE, text=True))
        texts = []
        for party in running:
            try:
                out, err = party.communicate(timeout=120)
            except subprocess.TimeoutExpired:
                for each in running:
                    each.kill()
                raise
            assert party.returncode == 0, err
            texts.append(out)
        out = self.folder / "p1"
        subprocess.run([self.program.parent / "tercet", "join", out / "all.json", out / "shard-0.json",
                        out / "shard-1.json"], check=True, stdout=subprocess.DEVNULL)
        return texts

    def stop(self):
        pass


class Batch:
    """The example in configs/batch."""

    def __init__(self, binaries, folder):
        need("srun", "slurmctld", "slurmd", "munged")
        self.binaries, self.folder = binaries, folder
        (folder / "slurm").mkdir()
        self.cluster = Slurm(folder / "slurm")
        if not self.cluster.start():
            self.cluster.stop()
            skip("Slurm does not come up here")

    def run_all(self, parties):
        jobs = []
        for party, more in enumerate(parties):
            command = ["sbatch", "--wait", "--ntasks=2", "--cpus-per-task=1", f"--output={self.folder}/log{party}",
                       ROOT / "configs/batch/shards.sbatch", *more]
            environment = {**os.environ, "TERCET_ID": str(party), "TERCET_TESTBED": str(self.folder / "testbed.json"),
                           "TERCET_NETWORK": str(NETWORK), "TERCET_OUT": str(self.folder / f"p{party}"),
                           "PATH": f"{self.binaries}:{os.environ['PATH']}"}
            jobs.append(subprocess.Popen([str(part) for part in command], env=environment, stdout=subprocess.DEVNULL))
        codes = [job.wait(timeout=200) for job in jobs]
        texts = [(self.folder / f"log{party}").read_text() for party in range(3)]
        assert codes == [0, 0, 0], texts
        return texts

    def stop(self):
        self.cluster.stop()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", type=Path, required=True)
    parser.add_argument("--engine", choices=["mpirun", "slurm"], required=True)
    arguments = parser.parse_args()
    binaries = arguments.bin.resolve()
    tercet = binaries / "tercet"
    with tempfile.TemporaryDirectory(prefix="tercet-shards-") as name:
        folder = Path(name)
        engine = (Mpirun if arguments.engine == "mpirun" else Batch)(binaries, folder)
        try:
            images = folder / "images.u8"
            images.write_bytes(random.Random(3).randbytes(7 * 28 * 28))
            subprocess.run([tercet, "keygen", folder / "keys"], check=True, stdout=subprocess.DEVNULL)
            ports = free_ports(4)
            hosts = [{"host": "127.0.0.1", "port": ports}, {"host": "127.0.0.1", "port": ports + 2}, {"host": "127.0.0.1"}]
            (folder / "testbed.json").write_text(json.dumps({"parties": hosts, "certificates": "keys"}))
            for party in range(3):
                (folder / f"p{party}").mkdir()
            parties = [[], ["--images", images], ["--model", MODEL]]
            for out in engine.run_all(parties):
                assert "shard 0/2: images 0 to 3 of 7" in out and "shard 1/2: images 4 to 6 of 7" in out, out
            subprocess.run([tercet, "run", NETWORK, "--model", MODEL, "--images", images, "--transport", "memory", "--json",
                            folder / "one.json"], check=True, stdout=subprocess.DEVNULL)
            whole = json.loads((folder / "one.json").read_text())
            assert json.loads((folder / "p1/all.json").read_text())["logits"] == sum(whole["logits"], [])
            for out in engine.run_all(parties):
                assert out.count("done already by all parties") == 2, out
        finally:
            engine.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
