# SPDX-License-Identifier: Apache-2.0
"""What operators see of the servers: metrics, logs in JSON, new certificates, and the document of the interface.

operation_test.py --bin DIRECTORY
"""
import json
import os
import re
import shutil
import signal
import ssl
import sys
import urllib.request

from service_test import ROOT, free_ports, run

try:
    import jsonschema
except ImportError:
    print("skipped: python3-jsonschema is missing")
    sys.exit(77)

METRICS = free_ports(3)
MODEL = "/v2/models/MnistNet3"


def metrics(i):
    """Server i's metrics, by name and labels."""
    with urllib.request.urlopen(f"http://127.0.0.1:{METRICS + i}/metrics", timeout=20) as answer:
        lines = answer.read().decode().splitlines()
    return {line.rsplit(" ", 1)[0]: float(line.rsplit(" ", 1)[1]) for line in lines if not line.startswith("#")}


def total(name):
    return sum(metrics(i).get(name, 0) for i in range(3))


def counted(service, directory):
    assert service.logits(directory / "a.json", "--batch", "3")
    wrong = directory / "wrong"
    wrong.write_text("0" * 32 + "\n")
    wrong.chmod(0o600)
    service.logits(directory / "b.json", token=wrong, code=1)
    assert total("tercet_images_total") == 30 and total("tercet_queries_total") == 10
    assert total("tercet_batch_images_sum") == 30 and 0 < total("tercet_batch_images_count") <= 10
    for stage in ("open", "wait", "material", "compute", "all"):
        assert total(f'tercet_query_seconds_count{{stage="{stage}"}}') == 10, stage
    assert total('tercet_answers_total{code="401"}') == 1
    one = metrics(0)
    for lane in range(3):
        assert one[f'tercet_lane_up{{lane="{lane}"}}'] == 1
        assert one[f'tercet_material_batches{{lane="{lane}"}}'] > 0
        assert 0 < one[f'tercet_material_bytes{{lane="{lane}"}}'] <= 96 * 2**20 / 3
        assert one[f'tercet_sent_bytes_total{{lane="{lane}"}}'] > 0
        assert one[f'tercet_received_bytes_total{{lane="{lane}"}}'] > 0
    assert "alice" not in json.dumps(one)


def described(service):
    """The document is of this server: what it answers is what the document says."""
    document = service.ask(0, "/openapi.json")[1]
    assert document == json.loads((ROOT / "configs/openapi.json").read_text())

    def follow(node):
        while "$ref" in node:
            target = document
            for step in node["$ref"].removeprefix("#/").split("/"):
                target = target[step]
            node = target
        return node

    for reference in set(re.findall(r'"\$ref": "([^"]*)"', json.dumps(document))):
        follow({"$ref": reference})
    package = service.package.read_bytes()
    asked = set()
    for method, path, body, token, status in [
            ("GET", "/v2/health/live", None, None, 200), ("GET", "/v2/health/ready", None, None, 200),
            ("GET", "/v2/models", None, None, 200), ("GET", MODEL, None, None, 200),
            ("GET", "/v2/models/none", None, None, 404), ("GET", MODEL + "/versions/1", None, None, 200),
            ("GET", MODEL + "/versions/2", None, None, 404), ("GET", "/deployment.json", None, None, 200),
            ("GET", "/openapi.json", None, None, 200), ("POST", MODEL + "/infer", b"x", None, 401),
            ("POST", MODEL + "/infer", b"x", service.token, 400),
            ("POST", MODEL + "/infer", bytes(10**6), service.token, 413),
            ("POST", MODEL + "/versions/1/infer", b"x", service.token, 400),
            ("PUT", service.PACKAGE, b"x", service.operator, 400), ("PUT", service.PACKAGE, package, None, 401),
            ("PUT", service.PACKAGE, package, service.operator, 200),
            ("DELETE", service.PACKAGE, None, service.token, 401),
            ("DELETE", service.PACKAGE, None, service.operator, 200),
            ("DELETE", service.PACKAGE, None, service.operator, 404)]:
        template, operations = next(
            (template, operations) for template, operations in document["paths"].items()
            if re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", template), path))
        got, answer = service.ask(0, path, method, body, token)
        assert got == status, (method, path, got, answer)
        content = follow(operations[method.lower()]["responses"][str(status)])["content"]
        (kind, schema), = content.items()
        assert kind == ("application/json" if status == 200 else "application/problem+json")
        jsonschema.Draft202012Validator({**schema["schema"], "components": document["components"]}).validate(answer)
        asked.add((method.lower(), template))
    described = {(method, template) for template, operations in document["paths"].items() for method in operations
                 if method != "parameters"}
    assert asked == described, asked ^ described


def renewed(service, directory):
    """SIGHUP: a new certificate for clients; what is none is left alone."""
    service.run("keygen", "--servers", directory / "other")
    store, other = service.root / "server0", directory / "other/server0"

    def trusted(authority):
        try:
            urllib.request.urlopen(service.urls[0] + "/v2/health/live", timeout=20,
                                   context=ssl.create_default_context(cafile=str(authority))).close()
            return True
        except urllib.error.URLError:
            return False
    old = directory / "old.pem"
    shutil.copy(store / "https.pem", old)
    assert trusted(old) and not trusted(other / "https.pem")
    for name in ("https.pem", "https-key.pem"):
        shutil.copy(other / name, store / name)
    service.servers[0].send_signal(signal.SIGHUP)
    service.wait(lambda: trusted(other / "https.pem"), "the new certificate is not shown")
    for _ in range(20):  # whatever had been made ready for connections before
        assert not trusted(old)

    def said():
        return (directory / "log0").read_text().count("keeps the certificate")
    (store / "https-key.pem").chmod(0o644)
    service.servers[0].send_signal(signal.SIGHUP)
    service.wait(lambda: said() == 1, "a key that others may read is taken")
    assert "https-key.pem: has mode 644" in (directory / "log0").read_text()
    (store / "https-key.pem").chmod(0o600)
    (store / "https.pem").write_text("none")
    service.servers[0].send_signal(signal.SIGHUP)
    service.wait(lambda: said() == 2, "nothing is said")
    (store / "https.pem").unlink()
    os.mkfifo(store / "https.pem")  # to which nobody writes
    service.servers[0].send_signal(signal.SIGHUP)
    service.wait(lambda: said() == 3, "the server waits for a pipe")
    (store / "https.pem").unlink()
    (store / "https.pem").write_text("none")
    assert trusted(other / "https.pem")


def nonsense_certified(service, directory, certificate, key):
    """A certificate whose dates are none stands for nobody, whatever key it has."""
    der = bytearray(ssl.PEM_cert_to_DER_cert(certificate.read_text()))
    for _ in range(2):  # UTCTime: not before, not after
        at = der.index(b"\x17\x0d2")
        der[at + 2:at + 14] = b"999999999999"
    wrong = directory / "nonsense.pem"
    wrong.write_text(ssl.DER_cert_to_PEM_cert(bytes(der)))
    context = ssl.create_default_context(cafile=str(service.root / "server0/https.pem"))
    context.load_cert_chain(str(wrong), str(key))
    request = urllib.request.Request(service.urls[0] + MODEL + "/infer", data=b"x", method="POST")
    try:
        urllib.request.urlopen(request, context=context, timeout=20).close()
    except urllib.error.HTTPError as e:
        assert e.code == 401, e
    else:
        raise AssertionError("a query of nobody is answered")
    assert service.ask(0, "/v2/health/live")[0] == 200


def certified(service, directory):
    """A client that shows a certificate in place of a token."""
    service.run("keygen", "--party", "1", directory / "bob")
    certificate, key = directory / "bob/party1.pem", directory / "bob/party1-key.pem"
    ask = ["predict", "--deployment", service.deployment, "--model", "MnistNet3", "--images", directory / "images"]
    shown = ["--certificate", certificate, "--key", key]
    assert "Unauthorized" in service.run(*ask, *shown, code=1)
    for i in range(3):
        service.check([service.party, "token", "--store", service.root / f"server{i}", "--add", "bob", "--certificate",
                       certificate])
    assert "30 images" in service.run(*ask, *shown)
    nonsense_certified(service, directory, certificate, key)
    for wrong, text in ((shown[:2], "--key"), (shown[2:], "--certificate"), ([], "--token-file"),
                        ([*shown, "--token-file", service.token], "excludes")):
        assert text in service.run(*ask, *wrong, code=2), wrong


def check(service, directory):
    service.run("draw-digits", directory / "images", directory / "labels", "--count", "30")
    service.put()
    counted(service, directory)
    certified(service, directory)
    described(service)
    renewed(service, directory)
    for i, server in enumerate(service.servers):
        server.send_signal(signal.SIGTERM)
        assert server.wait(timeout=30) == 0
        for line in (directory / f"log{i}").read_text().splitlines():
            entry = json.loads(line)
            assert entry["server"] == i and entry["level"] == "info" and entry["message"] and entry["time"], line


if __name__ == "__main__":
    run(check, lambda i: ["--metrics", f"127.0.0.1:{METRICS + i}", "--log-format", "json",
                         "--client-certificates"])
