#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Measures the prediction service: three servers, and the clients, on this machine, with TLS everywhere.

    benchmarks/service.py --bin build/release/bin [--repetitions 5] [--seconds 5] [--only NAME ...] [--out FILE.json]

Prints a Markdown table: of each figure the median of the repetitions and, in brackets, the least and the greatest. The
settings take turns, so that what else the machine does falls on all of them. Needs the standard library only, taskset for
`lanes`, and an idle machine.
"""
import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests/serve"))
from service_test import ROOT, Service  # noqa: E402: how a deployment is made and asked is the same

MODELS = ("mnistnet1", "mnistnet2", "mnistnet3")


def load(service, images, clients, seconds, pin=None, report="load.json"):
    """Starts `tercet load`; its figures are in the file `report` when it has ended."""
    command = [service.tercet, "load", "--deployment", service.deployment, "--model", "MnistNet3", "--token-file",
               service.token, "--images", images, "--clients", clients, "--seconds", seconds, "--json",
               service.directory / report]
    if pin is not None:
        command = ["taskset", "-c", pin, *command]
    return subprocess.Popen([str(part) for part in command], stdout=subprocess.DEVNULL)


def figures(service, report="load.json"):
    found = json.loads((service.directory / report).read_text())
    if found["errors"]:
        raise SystemExit(f"queries failed: {found['errors']}")
    return found


class Setting:
    """Servers that stay up, and what is measured of them."""

    def __init__(self, arguments, name, clients, options=(), workers=1, pinned=False, longer=1, publish=()):
        self.name, self.clients, self.pinned = name, clients, pinned
        self.seconds = arguments.seconds * longer
        self.directory = Path(tempfile.mkdtemp(prefix="tercet-service-"))
        self.service = Service(arguments.bin, self.directory, lambda n: list(options), workers, total=10**12,
                               publish=publish)
        self.service.draw(100)
        self.service.put()
        self.rows = {}

    def pin(self):
        """Each worker's processes to a processor of their own; of one worker all to the first."""
        for n, server in enumerate(self.service.servers):
            subprocess.run(["taskset", "-a", "-cp", str(n % self.service.workers), str(server.pid)], check=True,
                           stdout=subprocess.DEVNULL)

    def add(self, figure, value):
        self.rows.setdefault(figure, []).append(value)

    def measure(self):
        images = self.directory / "images"
        if self.pinned:
            self.pin()
            workers = self.service.workers
            running = [load(self.service, images, self.clients, self.seconds, str(w), f"load{w}.json")
                       for w in range(workers)]
            for each in running:
                each.wait()
            self.add("images/s", sum(figures(self.service, f"load{w}.json")["queries_per_s"] for w in range(workers)))
            return
        load(self.service, images, self.clients, self.seconds).wait()
        found = figures(self.service)
        self.add("images/s", found["queries_per_s"])
        for part in ("50", "95", "99"):
            self.add(f"{part} % under, ms", found["latency_ms"][part])

    def close(self):
        for n in range(len(self.service.servers)):
            self.service.kill(n)
        shutil.rmtree(self.directory)


class Restart(Setting):
    """One server after the other is killed and started while clients ask."""

    def measure(self):
        running = load(self.service, self.directory / "images", self.clients, 4)
        time.sleep(1)
        service, i = self.service, len(self.rows.get("back after, s", [])) % 3
        service.kill(i)
        service.servers[i] = service.start(i)
        begin = time.monotonic()
        for each in range(3):
            service.wait(lambda: service.ask(each, "/v2/health/ready")[0] == 200, f"server {each} is not back")
        self.add("back after, s", time.monotonic() - begin)
        running.wait()


class Memory(Setting):
    """Three models are served, and all have been asked about."""

    def __init__(self, arguments, name, clients, options=(), longer=1, publish=()):
        super().__init__(arguments, name, clients, options, longer=longer, publish=publish)
        for net in MODELS:
            package = self.directory / f"{net}.tercet"
            self.service.run("publish", ROOT / f"nets/{net}.json", "--model", ROOT / f"nets/{net}.compiled.safetensors",
                             "--deployment", self.service.deployment, "--out", package, *publish)
            spelling = json.loads((ROOT / f"nets/{net}.json").read_text())["name"]
            self.service.PACKAGE = f"/v2/repository/models/{spelling}/versions/1"
            self.service.package = package
            if net != "mnistnet3":
                self.service.put()

    def measure(self):
        super().measure()
        for n, server in enumerate(self.service.servers):
            status = Path(f"/proc/{server.pid}/status").read_text()
            peak = next(line for line in status.splitlines() if line.startswith("VmHWM"))
            self.add(f"most memory of server {n}, MB", int(peak.split()[1]) / 1000)


WAN = ("--link", "wan", "--in-flight", "10", "--material", "128")
# What a trainer says who publishes for servers that are so far apart.
FAR = ("--suite", "auto", "--link", "wan", "--optimise", "total", "--batch", "64")
SETTINGS = {
    "many": lambda a: Setting(a, "64 clients", 64),
    "one": lambda a: Setting(a, "one client", 1),
    # A client asks less than twice a second there, and all of them connect and end within the time that counts.
    "wan": lambda a: Setting(a, "`wan`, 256 clients", 256, WAN, longer=4, publish=FAR),
    "wan-lut": lambda a: Setting(a, "`wan`, 256 clients, suite `lut`", 256, WAN, longer=4),
    "wan-one": lambda a: Setting(a, "`wan`, one client", 1, ("--link", "wan"), publish=FAR),
    "lanes": lambda a: Setting(a, "one worker a party, all on one core", 32, pinned=True),
    "lanes-two": lambda a: Setting(a, "two workers a party, each on a core", 32, workers=2, pinned=True),
    "restart": lambda a: Restart(a, "one server is killed under load", 8),
    "memory": lambda a: Memory(a, "three models, 64 clients", 64),
    "memory-wan": lambda a: Memory(a, "three models, `wan`, 256 clients", 256, WAN, longer=4, publish=FAR),
}


def machine():
    model = next((line.split(":", 1)[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), "")
    commit = subprocess.run(["git", "-C", ROOT, "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout
    return {"processor": model, "cores": os.cpu_count(), "system": platform.platform(), "commit": commit.strip()}


def spread(values):
    """Median, least and greatest, with three digits."""
    def digits(value):
        return f"{value:.0f}" if value >= 100 else f"{value:.3g}"
    return f"{digits(statistics.median(values))} ({digits(min(values))}-{digits(max(values))})"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", type=Path, required=True, help="where the programs are")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=5, help="of each measurement")
    parser.add_argument("--only", nargs="+", choices=SETTINGS, default=list(SETTINGS), metavar="NAME",
                        help=", ".join(SETTINGS))
    parser.add_argument("--out", type=Path, help="writes all figures as JSON")
    arguments = parser.parse_args()
    settings = []
    try:
        # Servers that are not asked wait for each other and hardly compute.
        settings = [SETTINGS[name](arguments) for name in arguments.only]
        for k in range(arguments.repetitions + 1):
            for setting in settings:
                print(f"{k} of {arguments.repetitions}: {setting.name}", file=sys.stderr)
                setting.measure()
                if k == 0 and not isinstance(setting, Memory):
                    setting.rows.clear()  # warm-up
    finally:
        for setting in settings:
            setting.close()
    about = machine()
    print(f"{about['processor']}, {about['cores']} cores, {about['system']}, commit {about['commit']}; "
          f"{arguments.repetitions} repetitions of {arguments.seconds:g} s, after one that does not count.\n")
    print("| | figure | median (least-greatest) |\n|---|---|---|")
    for setting in settings:
        for figure, values in setting.rows.items():
            print(f"| {setting.name} | {figure} | {spread(values)} |")
    if arguments.out:
        arguments.out.write_text(json.dumps({"machine": about, "repetitions": arguments.repetitions,
                                             "seconds": arguments.seconds,
                                             "settings": {s.name: s.rows for s in settings}}, indent=1) + "\n")


if __name__ == "__main__":
    main()
