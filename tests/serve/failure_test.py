# SPDX-License-Identifier: Apache-2.0
"""Servers that fail: each killed, one that stands still, a full disk; and a token's limit across all of it.

failure_test.py --bin DIRECTORY
"""
import json
import resource
import signal
import subprocess
import time

from service_test import run

TOTAL = 2


def spend(service, directory, token):
    """Asks until the token is used up at all three servers; how many were answered."""
    answered = 0
    refused = 0
    for _ in range(60):
        try:
            service.logits(directory / "one.json", "--limit", "1", "--tries", "1", token=token)
            answered += 1
            refused = 0
        except AssertionError as e:
            assert "Forbidden" in str(e), e
            refused += 1
        if answered == 3 * TOTAL or refused == 12:
            break
    return answered


def check(service, directory):
    plain = service.draw(10)
    service.put()

    def right():
        for each in range(3):
            service.wait(lambda: service.ask(each, "/v2/health/live")[0] == 200, f"server {each} is not there")
        assert service.logits(directory / "right.json", "--tries", "40") == plain

    # A limit is held by a server that was killed right after it had answered.
    bob = directory / "bob"
    for i in range(3):
        service.check([service.party, "token", "--store", service.root / f"server{i}", "--add", "bob", "--token-file", bob,
                       "--total", str(TOTAL)])
    answered = spend(service, directory, bob)
    assert TOTAL <= answered <= 3 * TOTAL
    for i in range(3):
        service.kill(i)
        service.servers[i] = service.start(i)
    right()
    assert answered + spend(service, directory, bob) <= 3 * TOTAL

    # Who asks while all are away is answered when they are back.
    for n in range(3):
        service.kill(n)
    service.logits(directory / "away.json", "--limit", "1", "--tries", "1", code=1)
    asking = subprocess.Popen([service.tercet, "predict", "--deployment", service.deployment, "--model", "MnistNet3",
                               "--token-file", service.token, "--images", directory / "images", "--json",
                               directory / "back.json", "--tries", "40"], stdout=subprocess.DEVNULL)
    service.servers[:] = [service.start(i) for i in range(3)]
    assert asking.wait(timeout=120) == 0
    assert json.loads((directory / "back.json").read_text())["logits"] == plain

    # Each is killed while others are asked; nobody gets a wrong answer, and soon all get right ones.
    for i in range(3):
        service.kill(i)
        service.wait(lambda: service.ask((i + 1) % 3, "/v2/health/ready")[0] == 503, f"{i}'s end is not noticed")
        service.servers[i] = service.start(i)
        right()

    # One that stands still is like one that is away, and comes back.
    service.servers[2].send_signal(signal.SIGSTOP)
    service.wait(lambda: service.ask(0, "/v2/health/ready")[0] == 503, "a server that stands still is not noticed")
    service.servers[2].send_signal(signal.SIGCONT)
    right()

    # No room on the disk: the server refuses, says so, and goes on when there is room again.
    pid = service.servers[0].pid
    limits = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, limits[1]))
    seen = set()
    end = time.monotonic() + 60
    while "another" not in seen or "503" not in seen:
        assert time.monotonic() < end, seen
        try:
            assert service.logits(directory / "full.json", "--limit", "1", "--tries", "1") == plain[:1]
            seen.add("another")
        except AssertionError as e:
            seen.add("503" if "Service Unavailable" in str(e) else str(e))
        assert seen <= {"another", "503"}, seen
    assert service.ask(0, service.PACKAGE, "PUT", service.package.read_bytes(), service.operator)[0] == 503
    assert service.servers[0].poll() is None
    resource.prlimit(pid, resource.RLIMIT_FSIZE, limits)
    right()


if __name__ == "__main__":
    run(check)
