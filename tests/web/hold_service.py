# SPDX-License-Identifier: Apache-2.0
"""Holds a prediction service for the web page's test: three servers as processes, with MnistNet3 and web/dist.

hold_service.py --bin DIRECTORY

Prints one line of JSON with what the test needs. Then obeys the lines of its input, each answered by a line:
"kill I" and "start I" of server I, "take-out" and "put-in" of the model at all servers. It ends with its input.
"""
import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/serve"))
from service_test import run  # noqa: E402


def obey(service, command, i=None):
    if command == "kill":
        service.kill(int(i))
    elif command == "start":
        service.servers[int(i)] = service.start(int(i))
        service.wait_until_served()
    elif command == "take-out":
        for each in range(3):
            assert service.ask(each, service.PACKAGE, "DELETE", token=service.operator)[0] == 200
    elif command == "put-in":
        service.put()
    else:
        raise ValueError(command)


def hold(service, directory):
    service.put()
    logits = service.draw(70)
    print(json.dumps({"urls": service.urls, "token": service.token.read_text().strip(),
                      "images": str(directory / "images"), "logits": logits}), flush=True)
    for line in sys.stdin:
        obey(service, *line.split())
        print("done", flush=True)


if __name__ == "__main__":
    run(hold, lambda i: ["--web", str(ROOT / "web/dist")])
