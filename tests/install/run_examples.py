# SPDX-License-Identifier: Apache-2.0
"""Runs the examples as an outside project has built them: both must print the classes of the plain network.

    run_examples.py EXAMPLES_DIR TERCET NETS_DIR
"""
import json
import pathlib
import socket
import subprocess
import sys
import tempfile

IMAGES = 20
SECONDS = 60


def free_ports(count):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


def main():
    examples, tercet, nets = (pathlib.Path(a) for a in sys.argv[1:])
    network, model = nets / "mnistnet1.json", nets / "mnistnet1.compiled.safetensors"
    with tempfile.TemporaryDirectory() as scratch:
        scratch = pathlib.Path(scratch)
        images, report, testbed = scratch / "images.idx", scratch / "plain.json", scratch / "testbed.json"

        def run_tercet(*arguments):
            subprocess.run([tercet, *arguments], check=True, stdout=subprocess.DEVNULL, timeout=SECONDS)

        run_tercet("draw-digits", images, scratch / "labels.idx", "--count", str(IMAGES))
        run_tercet("plain", network, "--model", model, "--images", images, "--json", report)
        expected = json.loads(report.read_text())["predictions"]
        run_tercet("keygen", scratch / "certificates")
        ports = free_ports(2)
        parties = [{"host": "127.0.0.1", "port": port} for port in ports] + [{"host": "127.0.0.1"}]
        testbed.write_text(json.dumps({"parties": parties, "transport": "tls", "certificates": "certificates"}))

        def check(name, processes, receiver):
            outputs = [process.communicate(timeout=SECONDS)[0] for process in processes]
            if any(process.returncode != 0 for process in processes):
                sys.exit(f"{name} failed")
            found = [int(word) for word in outputs[receiver].split()]
            if found != expected:
                sys.exit(f"{name} says {found}, the plain network {expected}")

        def start(*command):
            return subprocess.Popen([str(c) for c in command], stdout=subprocess.PIPE, text=True)

        check("three_parties", [start(examples / "three_parties", network, model, images)], 0)
        own = ([], [images], [model])
        check("one_party", [start(examples / "one_party", i, testbed, network, *own[i]) for i in range(3)], 1)

    if (examples / "ask_service").exists():
        ask_service(examples / "ask_service", tercet)


def ask_service(program, tercet):
    """The client of a prediction service, whose servers run beside it."""
    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "serve"))
    from service_test import Service
    with tempfile.TemporaryDirectory() as scratch:
        service = Service(tercet.parent, pathlib.Path(scratch), lambda n: [])
        try:
            logits = service.draw(IMAGES)
            service.put()
            done = subprocess.run([program, service.deployment, "MnistNet3", service.token, service.directory / "images"],
                                  capture_output=True, text=True, timeout=SECONDS)
            expected = [row.index(max(row)) for row in logits]
            if done.returncode != 0 or [int(word) for word in done.stdout.split()] != expected:
                sys.exit(f"ask_service says {done.stdout}{done.stderr}, the plain network {expected}")
        finally:
            for server in service.servers:
                server.kill()


main()
