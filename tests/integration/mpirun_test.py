#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A job in two shards: each party is `mpirun -n 2`, and each process finds its shard in what mpirun tells it.

mpirun_test.py --bin DIRECTORY
"""
import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/serve"))
from service_test import free_ports  # noqa: E402


def start(program, party, folder, more):
    environment = dict(os.environ, OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1", TMPDIR=str(folder))
    command = ["mpirun", "-n", "2", "--oversubscribe", program, "--id", str(party), "--testbed", folder / "testbed.json",
               "--network", ROOT / "nets/mnistnet1.json", "--shard", "auto", "--resume",
               "--json", folder / f"p{party}-{{shard}}.json", *more]
    return subprocess.Popen(list(map(str, command)), env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                            text=True)


def run_all(program, folder, images, model):
    """What the parties print."""
    parties = [start(program, party, folder, more)
               for party, more in enumerate(([], ["--images", images], ["--model", model]))]
    texts = []
    for party in parties:
        try:
            out, err = party.communicate(timeout=120)
        except subprocess.TimeoutExpired:
            for each in parties:
                each.kill()
            raise
        assert party.returncode == 0, err
        texts.append(out)
    return texts


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", type=Path, required=True)
    binaries = parser.parse_args().bin.resolve()
    if shutil.which("mpirun") is None:
        print("mpirun is not installed (Debian: openmpi-bin)")
        return 77
    tercet, party = binaries / "tercet", binaries / "tercet-party"
    model = ROOT / "nets/mnistnet1.compiled.safetensors"
    with tempfile.TemporaryDirectory(prefix="tercet-mpirun-") as name:
        folder = Path(name)
        images = folder / "images.u8"
        images.write_bytes(random.Random(3).randbytes(7 * 28 * 28))
        subprocess.run([tercet, "keygen", folder / "keys"], check=True, stdout=subprocess.DEVNULL)
        ports = free_ports(4)
        hosts = [{"host": "127.0.0.1", "port": ports}, {"host": "127.0.0.1", "port": ports + 2}, {"host": "127.0.0.1"}]
        (folder / "testbed.json").write_text(json.dumps({"parties": hosts, "certificates": "keys"}))
        for out in run_all(party, folder, images, model):
            assert "shard 0/2: images 0 to 3 of 7" in out and "shard 1/2: images 4 to 6 of 7" in out, out
        subprocess.run([tercet, "join", folder / "all.json", folder / "p1-0.json", folder / "p1-1.json"], check=True,
                       stdout=subprocess.DEVNULL)
        subprocess.run([tercet, "run", ROOT / "nets/mnistnet1.json", "--model", model, "--images", images, "--transport",
                        "memory", "--json", folder / "one.json"], check=True, stdout=subprocess.DEVNULL)
        whole = json.loads((folder / "one.json").read_text())
        assert json.loads((folder / "all.json").read_text())["logits"] == sum(whole["logits"], [])
        for out in run_all(party, folder, images, model):
            assert out.count("done already by all parties") == 2, out
    return 0


if __name__ == "__main__":
    sys.exit(main())
