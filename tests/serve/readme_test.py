# SPDX-License-Identifier: Apache-2.0
"""The commands of README's section on the prediction service, as they stand there.

readme_test.py --bin DIRECTORY
"""
import argparse
import json
import os
import re
import signal
import subprocess
import tempfile
import time
from pathlib import Path

from service_test import ROOT, free_ports


def commands():
    """The lines of the section's code, one a command, without comments."""
    section = re.search(r"^## A prediction service\n(.*?)^## ", (ROOT / "README.md").read_text(), re.M | re.S)[1]
    code = "\n".join(line[4:] for line in section.splitlines() if line.startswith("    "))
    return [line.split("#")[0].strip() for line in code.replace("\\\n", " ").splitlines()]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--bin", type=Path, required=True)
    binaries = parser.parse_args().bin.resolve()
    servers, *others = commands()
    assert "serve-demo" in servers and any("predict" in command for command in others), (servers, others)
    with tempfile.TemporaryDirectory() as name:
        # As in a checkout that was built, but for ports that nobody has.
        for part in ("scripts", "nets"):
            os.symlink(ROOT / part, Path(name) / part)
        (Path(name) / "build/release").mkdir(parents=True)
        os.symlink(binaries, Path(name) / "build/release/bin")
        subprocess.run([binaries / "tercet", "keygen", "--servers", "demo"], cwd=name, check=True, capture_output=True,
                       timeout=120)
        deployment = Path(name) / "demo/deployment.json"
        document = json.loads(deployment.read_text())
        base = free_ports(12)
        for i, server in enumerate(document["servers"]):
            server["url"], server["port"] = f"https://localhost:{base + i}", base + 3 + 3 * i
        deployment.write_text(json.dumps(document))
        environment = {**os.environ, "TERCET_BIN": str(binaries), "TERCET_WEB": ""}
        with open(Path(name) / "out", "w") as out:
            running = subprocess.Popen(["bash", "-c", "exec " + servers], cwd=name, env=environment, stdout=out, stderr=out)
        try:
            end = time.monotonic() + 120
            while "Three servers are up" not in (Path(name) / "out").read_text():
                assert running.poll() is None and time.monotonic() < end, (Path(name) / "out").read_text()
                time.sleep(0.1)
            for command in others:
                done = subprocess.run(["bash", "-c", command], cwd=name, env=environment, capture_output=True, text=True,
                                      timeout=120)
                assert done.returncode == 0, (command, done.stdout, done.stderr)
            assert "%" in done.stdout, done.stdout  # how many of the digits were told right
        finally:
            running.send_signal(signal.SIGTERM)
            running.wait(timeout=60)


if __name__ == "__main__":
    main()
