# SPDX-License-Identifier: Apache-2.0
"""The prediction service as an operator and a client use it: three servers as processes, one of which is killed.

service_test.py --bin DIRECTORY
"""
import argparse
import json
import os
import random
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


BLOCK = 256  # ports
_held = []  # the first port of each block that this process has, so that no other test takes the block


def free_ports(count):
    """`count` ports in a row that are this process's until it ends, below those that the system hands out itself."""
    assert count < BLOCK
    while True:
        base = random.randrange(20_000, 32_000, BLOCK)
        holder = socket.socket()
        try:
            holder.bind(("127.0.0.1", base))
            for port in range(base + 1, base + 1 + count):
                with socket.socket() as s:
                    s.bind(("127.0.0.1", port))
        except OSError:
            holder.close()
            continue
        _held.append(holder)
        return base + 1


class Service:
    """A deployment with MnistNet3's package, tokens of alice and an operator, and its servers; `options(i)` are
    server i's, beside those that it needs, and `publish` the trainer's. With several workers a server process n is
    worker n % workers of server n // workers, and has three lanes of all."""

    PACKAGE = "/v2/repository/models/MnistNet3/versions/1"

    def __init__(self, binaries, directory, options, workers=1, start=True, total=1000, publish=()):
        self.tercet, self.party = str(binaries / "tercet"), str(binaries / "tercet-party")
        self.directory, self.root = directory, directory / "demo"
        self.options, self.workers = options, workers
        self.run("keygen", "--servers", self.root)
        self.deployment = self.root / "deployment.json"
        document = json.loads(self.deployment.read_text())
        lanes, count = 3 * workers, 3 * workers
        given = options(0)
        each = lanes * (int(given[given.index("--in-flight") + 1]) if "--in-flight" in given else 1)
        base = free_ports(count + 3 * each)
        self.urls = [f"https://localhost:{base + n}" for n in range(count)]
        self.lanes = [f"{3 * w}-{3 * w + 2}" for w in range(workers)] * 3
        for i, server in enumerate(document["servers"]):
            server["port"] = base + count + each * i
            server["url"] = self.urls[i]
            if workers > 1:
                own = {key: server.pop(key) for key in ("url", "authority", "host", "port")}
                own["listen"] = "127.1"  # which is looked up, like a name
                server["workers"] = [{**own, "url": self.urls[n], "lanes": self.lanes[n]}
                                     for n in range(workers * i, workers * (i + 1))]
        document["lanes"] = lanes
        self.deployment.write_text(json.dumps(document))
        self.package = directory / "m.tercet"
        self.run("publish", ROOT / "nets/mnistnet3.json", "--model", ROOT / "nets/mnistnet3.compiled.safetensors",
                 "--deployment", self.deployment, "--out", self.package, *publish)
        self.token, self.operator = directory / "alice", directory / "operator"
        for i in range(3):
            store = self.root / f"server{i}"
            self.check([self.party, "token", "--store", store, "--add", "alice", "--token-file", self.token,
                        "--total", str(total)])
            self.check([self.party, "token", "--store", store, "--add", "op", "--operator", "--token-file",
                        self.operator])
        self.stores = []
        for n in range(count):
            i, w = divmod(n, workers)
            self.stores.append(self.root / (f"server{i}-{w}" if w else f"server{i}"))
            if w:
                shutil.copytree(self.root / f"server{i}", self.stores[n])
        self.servers = [self.start(n) for n in range(count)] if start else []

    @staticmethod
    def check(command, code=0):
        done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=120)
        assert done.returncode == code, (command, done.returncode, done.stderr)
        return done.stdout + done.stderr

    def run(self, *arguments, code=0):
        return self.check([self.tercet, *arguments], code)

    def start(self, n, **environment):
        """Process n; with several workers `environment`, where given, tells it which it is."""
        lanes = ["--lanes", self.lanes[n]] if self.workers > 1 and not environment else []
        with open(self.directory / f"log{n}", "a") as log:
            return subprocess.Popen([self.party, "serve", "--id", str(n // self.workers), "--deployment",
                                     str(self.deployment), "--store", str(self.stores[n]), *lanes, *self.options(n)],
                                    stderr=log, env={**os.environ, **environment},
                                    restore_signals=False)  # SIGXFSZ stays ignored: a file too large is an error

    def kill(self, n):
        """Process n, with SIGKILL, until it is gone."""
        self.servers[n].kill()
        self.servers[n].wait(timeout=60)

    def ask(self, i, path, method="GET", body=None, token=None, **headers):
        """Status and JSON of a request to a server; None where it cannot be reached."""
        if token:
            headers["Authorization"] = "Bearer " + token.read_text().strip()
        request = urllib.request.Request(self.urls[i] + path, data=body, method=method, headers=headers)
        context = ssl.create_default_context(cafile=str(self.stores[i] / "https.pem"))
        try:
            with urllib.request.urlopen(request, context=context, timeout=30) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as e:
            return e.code, json.load(e)
        except OSError:
            return None, None

    def wait(self, done, what, seconds=60):
        end = time.monotonic() + seconds
        while not done():
            assert time.monotonic() < end, what
            time.sleep(0.05)

    def drain(self):
        for server in self.servers:
            server.send_signal(signal.SIGTERM)
        for n, server in enumerate(self.servers):
            assert server.wait(timeout=30) == 0, f"server {n} ended with {server.returncode}"

    def used(self, n):
        """How many images alice has asked process n about."""
        return int(self.check([self.party, "token", "--store", self.stores[n]]).split("alice: ")[1].split()[0])

    def draw(self, count):
        """Draws digits into the file images; returns their logits as one machine alone reckons them."""
        images, plain = self.directory / "images", self.directory / "plain.json"
        self.run("draw-digits", images, self.directory / "labels", "--count", count)
        self.run("plain", ROOT / "nets/mnistnet3.json", "--model", ROOT / "nets/mnistnet3.compiled.safetensors",
                 "--images", images, "--json", plain)
        return json.loads(plain.read_text())["logits"]

    def put(self):
        """Gives the package to all servers; returns when they serve it."""
        package = self.package.read_bytes()
        for i in range(len(self.urls)):
            self.wait(lambda: self.ask(i, "/v2/health/live")[0] == 200, f"server {i} is not there")
            assert self.ask(i, self.PACKAGE, "PUT", package, self.operator)[0] == 200
        self.wait_until_served()

    def wait_until_served(self):
        for i in range(len(self.urls)):
            self.wait(lambda: self.serves(i), f"server {i} does not serve the model")

    def serves(self, i):
        status, models = self.ask(i, "/v2/models")
        return status == 200 and models["models"] and models["models"][0]["ready"]

    def logits(self, out, *more, code=0, token=None):
        text = self.run("predict", "--deployment", self.deployment, "--model", "MnistNet3", "--token-file",
                        token or self.token, "--images", self.directory / "images", "--json", out, *more, code=code)
        if code != 0:
            return text
        assert out.stat().st_mode & 0o777 == 0o600  # logits, of images that are the client's
        return json.loads(out.read_text())["logits"]


def run(check, options=lambda i: [], workers=1, start=True, total=1000, parser=None):
    """Calls check(service, directory) with servers of the programs that --bin names; unless `start`, without any. Alice
    may ask about `total` images at each; what `parser` reads besides is in service.arguments."""
    parser = parser or argparse.ArgumentParser()
    parser.add_argument("--bin", type=Path, required=True)
    parser.add_argument("--memory-factor", type=float, default=1, help="by how much sanitizers may multiply memory")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        service = Service(arguments.bin, directory, options, workers, start, total)
        service.arguments = arguments
        try:
            check(service, directory)
        except BaseException:
            for log in sorted(directory.glob("log*")):
                print(f"--- {log.name}\n{log.read_text()[-3000:]}", file=sys.stderr)
            raise
        finally:
            for n in range(len(service.servers)):
                service.kill(n)


def check_formats(service, directory, plain):
    """The drawn digits as a client has its own: a table with their labels, pictures in folders, swapped bytes."""
    images = (directory / "images").read_bytes()[16:]
    labels = (directory / "labels").read_bytes()[8:]
    pictures = [images[i:i + 784] for i in range(0, len(images), 784)]
    table = directory / "digits.csv"
    table.write_text("".join(",".join(map(str, [*picture, label + 1])) + "\n"
                             for picture, label in zip(pictures, labels)))
    asked = ["predict", "--deployment", service.deployment, "--model", "MnistNet3", "--token-file", service.token]
    with_labels = ["--label-column", "last", "--first-label", "1"]
    said = service.run(*asked, "--images", table, *with_labels, "--json", directory / "table.json")
    assert json.loads((directory / "table.json").read_text())["logits"] == plain
    correct = sum(max(range(10), key=row.__getitem__) == label for row, label in zip(plain, labels))
    assert f"({correct} of {len(plain)} images)" in said, said
    (directory / "pictures").mkdir()
    for i, picture in enumerate(pictures):
        (directory / f"pictures/{i:02}.pgm").write_bytes(b"P5 28 28 255\n" + picture)
    (directory / "names.csv").write_text("file,label\n" + "".join(f"{i:02}.pgm,{v}\n" for i, v in enumerate(labels)))
    said = service.run(*asked, "--images", directory / "pictures", "--labels", directory / "names.csv")
    assert f"({correct} of {len(plain)} images)" in said, said
    swapped = directory / "swapped.u8"
    swapped.write_bytes(b"".join(bytes(p[28 * x + y] for y in range(28) for x in range(28)) for p in pictures))
    service.run(*asked, "--images", swapped, "--transpose", "--json", directory / "swapped.json")
    assert json.loads((directory / "swapped.json").read_text())["logits"] == plain
    service.run("load", *asked[1:], "--images", table, *with_labels, "--clients", "1", "--seconds", "0.2")
    said = service.run(*asked, "--images", table, code=2)
    assert "785 columns, expected 784" in said, said


def check(service, directory):
    plain = service.draw(30)
    service.wait(lambda: service.ask(0, "/v2/health/live")[0] == 200, "server 0 is not there")
    assert service.ask(0, service.PACKAGE, "PUT", service.package.read_bytes(), service.token)[0] == 401
    service.put()

    assert service.logits(directory / "a.json") == plain
    assert service.logits(directory / "b.json", "--batch", "7") == plain
    check_formats(service, directory, plain)
    wrong = directory / "wrong"
    wrong.write_text("0" * 32 + "\n")
    wrong.chmod(0o600)
    assert "Unauthorized" in service.logits(directory / "c.json", token=wrong, code=1)

    # Killed in the middle of queries: whoever asks again gets right answers as soon as it is back.
    asking = subprocess.Popen([service.tercet, "load", "--deployment", str(service.deployment), "--model",
                               "MnistNet3", "--token-file", str(service.token), "--images", str(directory / "images"),
                               "--clients", "2", "--seconds", "1.5", "--rate", "40"], stdout=subprocess.DEVNULL)
    time.sleep(0.5)
    service.kill(1)
    assert asking.wait(timeout=60) == 0
    for other in (0, 2):
        service.wait(lambda: service.ask(other, "/v2/health/ready")[0] == 503, "a server's end is not noticed")
    # Whoever gets no answer asks less and less: after 0.05, 0.1, 0.2, 0.4 and 0.8 s.
    service.run("load", "--deployment", service.deployment, "--model", "MnistNet3", "--token-file", service.token, "--images",
                directory / "images", "--clients", "2", "--seconds", "2", "--json", directory / "load.json")
    figures = json.loads((directory / "load.json").read_text())
    assert figures["queries"] == 0 and 2 <= sum(figures["errors"].values()) <= 12, figures
    assert "tercet: error" in service.logits(directory / "d.json", "--tries", "1", code=1)
    before = service.used(1)
    service.servers[1] = service.start(1)
    assert service.logits(directory / "e.json", "--tries", "40") == plain
    assert service.used(1) > before > 0

    # Nothing secret in the logs, and all of them drain.
    secret = service.token.read_text().strip()
    service.drain()
    for log in directory.glob("log*"):
        assert secret not in log.read_text()


if __name__ == "__main__":
    run(check)
