# SPDX-License-Identifier: Apache-2.0
"""The commands of README's section on the prediction service, as they stand there, and those of docs/service.md from keys to
the first answer.

readme_test.py --bin DIRECTORY
"""
import argparse
import json
import os
import re
import signal
import subprocess
import tempfile
import textwrap
import time
from pathlib import Path

from service_test import ROOT, free_ports


def commands():
    """The lines of the section's code, one a command, without comments."""
    section = re.search(r"^## A prediction service\n(.*?)^## ", (ROOT / "README.md").read_text(), re.M | re.S)[1]
    code = "\n".join(line[4:] for line in section.splitlines() if line.startswith("    "))
    return [line.split("#")[0].strip() for line in code.replace("\\\n", " ").splitlines()]


def page(binaries, folder):
    """Keys, package, tokens, servers, the package put in, and a question, as docs/service.md has them."""
    text = (ROOT / "docs/service.md").read_text()
    blocks = [re.findall(r"(?:^    .*\n)+", part, re.M)
              for part in re.split(r"^## ", text, flags=re.M) if re.match("Set up|Run the servers|Ask", part)]
    (keys, *_), (servers, put, *_), (ask, *_) = blocks
    keygen, publish = re.sub(r"^    ", "", keys, flags=re.M).split("\n", 1)
    os.symlink(ROOT / "nets", folder / "nets")
    environment = {**os.environ, "PATH": f"{binaries}:{os.environ['PATH']}"}

    def do(commands):
        done = subprocess.run(["bash", "-ec", textwrap.dedent(commands)], cwd=folder, env=environment, capture_output=True,
                              text=True, timeout=120)
        assert done.returncode == 0, (commands, done.stdout, done.stderr)
        return done.stdout

    do(keygen)
    base = free_ports(12)
    move(folder / "demo/deployment.json", base)
    do(publish)
    tokens, serve = servers.rsplit("    tercet-party serve", 1)
    do(tokens)
    running = []
    try:
        for i in range(3):
            command = ("exec tercet-party serve" + serve).replace("--id 0", f"--id {i}").replace("server0", f"server{i}")
            with open(folder / f"log{i}", "w") as log:
                running.append(subprocess.Popen(["bash", "-c", command], cwd=folder, env=environment, stderr=log))
        end = time.monotonic() + 60
        while any((folder / f"log{i}").read_text().count("is up") < 3 for i in range(3)):
            assert time.monotonic() < end and all(server.poll() is None for server in running), \
                [(folder / f"log{i}").read_text() for i in range(3)]
            time.sleep(0.1)
        do(put.replace("https://localhost:844$i", f"https://localhost:$(({base} + i))"))
        do("tercet draw-digits images labels --count 10")
        ask = re.sub(r"t10k-(images|labels)-\S+", r"\1", ask).replace("--seconds 10", "--seconds 1")
        assert "of 10 images" in do(ask.replace("--model MnistNet3", "--model MnistNet3 --tries 20", 1))
    finally:
        for server in running:
            server.send_signal(signal.SIGTERM)
        for server in running:
            server.wait(timeout=60)


def move(file, base):
    """Ports that nobody has, into a deployment for one machine."""
    document = json.loads(file.read_text())
    for i, server in enumerate(document["servers"]):
        server["url"], server["port"] = f"https://localhost:{base + i}", base + 3 + 3 * i
    file.write_text(json.dumps(document))


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
        move(Path(name) / "demo/deployment.json", free_ports(12))
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
    with tempfile.TemporaryDirectory() as name:
        page(binaries, Path(name))


if __name__ == "__main__":
    main()
