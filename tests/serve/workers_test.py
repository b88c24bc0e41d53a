# SPDX-License-Identifier: Apache-2.0
"""Two machines a party: six processes, of which one is killed and comes back.

workers_test.py --bin DIRECTORY
"""
import json
import os
import re
import subprocess
import textwrap

from service_test import ROOT, run

IMAGES = 100


def refused(service, n, lanes, text, **environment):
    """Process n does not start with these lanes."""
    done = subprocess.run([service.party, "serve", "--id", str(n // 2), "--deployment", service.deployment, "--store",
                           service.stores[n], *(["--lanes", lanes] if lanes else [])],
                          capture_output=True, text=True, timeout=60, env={**os.environ, **environment})
    assert done.returncode == 2 and text in done.stderr, (lanes, environment, done.returncode, done.stderr)


def misdirected(service):
    """A query goes to the worker that has its lane. Server 0 is E1 of the lanes 2 and 5."""
    path = "/v2/models/MnistNet3/infer"
    digest = service.ask(0, "/v2/models/MnistNet3")[1]["digest"]
    part = {"datatype": "UINT8", "shape": [200], "parameters": {"binary_data_size": 200}}

    def ask(n, lane):
        head = json.dumps({"id": f"{lane:02x}" + "00" * 15, "inputs": [{"name": "share_e1", **part}, {"name": "share_e2", **part}],
                           "parameters": {"model_digest": digest, "lane": lane, "images": 1, "time_ms": 1,
                                          "reply_key": "11" * 32}}).encode()
        length = {"Inference-Header-Content-Length": str(len(head))}
        return service.ask(n, path, "POST", head + bytes(400), service.token, **length)
    for n, lane, status in ((0, 2, 400), (0, 5, 421), (1, 5, 400), (1, 2, 421), (0, 0, 421)):
        got, problem = ask(n, lane)
        assert got == status, (n, lane, problem)
        assert (problem["field"] == "body /parameters/lane") == (status == 421), problem
    other = ask(0, 5)[1]["detail"]
    assert other == f"lane 5 is not one of this worker's, 0-2; its worker is at {service.urls[1]}", other


def put(service, directory):
    """Gives the package to all workers as docs/service.md says."""
    code = re.search(r"runs this\. -->\n\n((?:    .*\n)+)", (ROOT / "docs/service.md").read_text())[1]
    here = directory / "put"
    here.mkdir()
    (here / "deployment.json").symlink_to(service.deployment)
    (here / "mnistnet3.tercet").symlink_to(service.package)
    (here / "operator.header").write_text(f"Authorization: Bearer {service.operator.read_text().strip()}\n")
    (here / "authorities").write_text("".join((service.root / f"server{i}/https.pem").read_text() for i in range(3)))
    for n in range(6):
        service.wait(lambda: service.ask(n, "/v2/health/live")[0] == 200, f"process {n} is not there")
    done = subprocess.run(["bash", "-e", "-c", textwrap.dedent(code)], cwd=here, capture_output=True, text=True, timeout=60,
                          env={**os.environ, "CURL_CA_BUNDLE": str(here / "authorities")})
    assert done.returncode == 0, done.stderr
    for n in range(6):
        service.wait(lambda: service.serves(n), f"process {n} does not serve the model")


def check(service, directory):
    plain = service.draw(IMAGES)
    put(service, directory)
    for n in range(6):
        status, health = service.ask(n, "/v2/health/ready")
        assert status == 200 and (health["lanes"], health["lanes_up"]) == (3, 3), health
    assert service.logits(directory / "a.json") == plain
    used = [service.used(n) for n in range(6)]
    assert all(used) and sum(used) == IMAGES, used
    misdirected(service)

    refused(service, 3, "0-1", "--lanes: 0-1 found, but the deployment has workers with 0-2 and 3-5")
    refused(service, 3, "", "--lanes: expected")
    refused(service, 3, "", "OMPI_COMM_WORLD_RANK", OMPI_COMM_WORLD_RANK="2")
    refused(service, 3, "3-5", "another process serves with this store")

    # Without worker 1 of server 1 the other workers' lanes go on as if nothing was; its own come back with it.
    logs = [directory / f"log{n}" for n in (0, 2, 4)]
    before = [log.read_text() for log in logs]
    service.kill(3)
    for n in (1, 5):
        service.wait(lambda: service.ask(n, "/v2/health/ready")[0] == 503, "a worker's end is not noticed")
    assert service.logits(directory / "b.json", "--tries", "40", "--limit", "10") == plain[:10]
    assert all(service.ask(n, "/v2/health/ready")[0] == 200 for n in (0, 2, 4))
    assert [log.read_text() for log in logs] == before
    service.servers[3] = service.start(3, JOB_COMPLETION_INDEX="1")
    for n in range(6):
        service.wait(lambda: service.ask(n, "/v2/health/ready")[0] == 200, f"process {n} is not ready again")
    assert service.logits(directory / "c.json") == plain
    assert "server 1 worker 1: " in (directory / "log3").read_text()
    service.drain()


if __name__ == "__main__":
    run(check, workers=2)
