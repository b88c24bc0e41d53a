# SPDX-License-Identifier: Apache-2.0
"""Servers that run for long: killed at random times while they are asked, and asked so often that what leaks shows.

endurance_test.py --bin DIRECTORY [--kills 5] [--queries 5000]

Prints how long a killed server takes to be back, and the memory of the servers. No client gets a wrong answer or, as it
asks again, none.
"""
import argparse
import json
import random
import subprocess
import threading
import time

from hostile_test import memory
from service_test import run

CLIENTS = 8
ALLOWED_MB = 12  # of growth between a fifth of the queries and all: what an allocator may keep for itself


def ask_all_the_time(service, directory, plain, ended, answered, wrong):
    """Clients that ask about all images again and again until `ended`."""
    def client(k):
        out = directory / f"client{k}.json"
        while not ended.is_set():
            try:
                if service.logits(out, "--tries", "1000", "--batch", str(k % 3 + 1)) != plain:
                    wrong.append("other logits")
            except (AssertionError, subprocess.TimeoutExpired) as e:
                wrong.append(str(e))
            answered.append(len(plain))
    clients = [threading.Thread(target=client, args=(k,)) for k in range(3)]
    for each in clients:
        each.start()
    return clients


def kill(service, directory, plain):
    ended, answered, wrong, seconds = threading.Event(), [], [], []
    clients = ask_all_the_time(service, directory, plain, ended, answered, wrong)
    try:
        for _ in range(service.arguments.kills):
            time.sleep(random.uniform(0, 2))
            i = random.randrange(3)
            service.kill(i)
            time.sleep(random.uniform(0, 0.5))
            service.servers[i] = service.start(i)
            begin = time.monotonic()
            for each in range(3):
                service.wait(lambda: service.ask(each, "/v2/health/ready")[0] == 200, f"server {each} is not back")
            seconds.append(time.monotonic() - begin)
            if wrong:
                break
    finally:
        ended.set()
        for client in clients:
            client.join()
    assert not wrong, wrong[:3]
    seconds.sort()
    print(f"{len(seconds)} kills, {sum(answered)} images answered, all right; back after {seconds[len(seconds) // 2]:.2f} s "
          f"(median), {seconds[-1]:.2f} s (worst)", flush=True)


def load(service, images, queries, report):
    """Asks until about so many queries are answered."""
    done = 0
    while done < queries:
        service.run("load", "--deployment", service.deployment, "--model", "MnistNet3", "--token-file", service.token,
                    "--images", images, "--clients", CLIENTS, "--seconds", "5", "--json", report)
        figures = json.loads(report.read_text())
        assert figures["queries"] > 0 and not figures["errors"], figures
        done += figures["queries"]
    return done


def grow(service, directory):
    queries = service.arguments.queries
    images, report = directory / "images", directory / "load.json"
    done = load(service, images, queries / 5, report)
    before = [memory(server) for server in service.servers]
    done += load(service, images, queries - done, report)
    after = [memory(server) for server in service.servers]
    for number, (low, high) in enumerate(zip(before, after)):
        print(f"server {number}: {low:.0f} MB after a fifth of {done} queries, {high:.0f} MB after all", flush=True)
        assert high - low < ALLOWED_MB * service.arguments.memory_factor, (low, high)


def check(service, directory):
    plain = service.draw(30)
    service.put()
    kill(service, directory, plain)
    grow(service, directory)


if __name__ == "__main__":
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--kills", type=int, default=5)
    arguments.add_argument("--queries", type=int, default=5000)
    random.seed(1)
    run(check, total=10**9, parser=arguments)
