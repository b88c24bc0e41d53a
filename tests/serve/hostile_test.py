# SPDX-License-Identifier: Apache-2.0
"""What clients can do to a server without it: connections that say nothing, bodies that nobody asked for.

hostile_test.py --bin DIRECTORY
"""
import json
import re
import resource
import socket
import ssl
from select import select

from service_test import run

PER_ADDRESS = 600
INFER = "/v2/models/MnistNet3/infer"


def address(service, i):
    return "localhost", int(service.urls[i].rsplit(":", 1)[1])


def connect(service, i):
    """A connection with TLS."""
    context = ssl.create_default_context(cafile=str(service.root / f"server{i}" / "https.pem"))
    return context.wrap_socket(socket.create_connection(address(service, i), timeout=20), server_hostname="localhost")


def send_header(connection, length, token="", method="POST", path=INFER, more=""):
    authorization = f"Authorization: Bearer {token}\r\n" if token else ""
    connection.sendall(f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n{authorization}{more}"
                       f"Content-Length: {length}\r\n\r\n".encode())


def answer(connection):
    """Status, header fields and JSON of the next answer."""
    stream = connection.makefile("rb")
    status = int(stream.readline().split()[1])
    fields = {}
    while (line := stream.readline().strip()):
        name, value = line.decode().split(":", 1)
        fields[name.lower()] = value.strip()
    return status, fields, json.loads(stream.read(int(fields["content-length"])))


def memory(server):
    """What a process has in memory, in MB."""
    with open(f"/proc/{server.pid}/status") as status:
        return int(next(line for line in status if line.startswith("VmRSS")).split()[1]) / 1000


def refused_early(service, token, operator):
    """Whoever may not send a body is told so before it comes."""
    for length, bearer, method, path, status in [
            (10**9, "", "POST", INFER, 401), (10**9, "0" * 32, "POST", INFER, 401),
            (10**9, token, "POST", INFER, 413), (10**9, token, "PUT", service.PACKAGE, 401),
            (10**9, operator, "PUT", service.PACKAGE, 413), (10**9, token, "GET", "/v2/models", 413)]:
        with connect(service, 0) as connection:
            send_header(connection, length, bearer, method, path)
            got, fields, problem = answer(connection)
            assert (got, problem["status"], fields["connection"]) == (status, status, "close"), (path, problem)
            assert connection.recv(1) == b""
    with connect(service, 0) as connection:
        connection.sendall(f"POST {INFER} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n"
                           "Transfer-Encoding: chunked\r\n\r\n".encode())
        assert answer(connection)[0] == 411
    # Who expects no body sees none in the place of the next answer.
    with connect(service, 0) as connection:
        connection.sendall(b"HEAD /v2/models HTTP/1.1\r\nHost: localhost\r\n\r\n")
        got, fields, _ = answer(connection)
        assert (got, fields["connection"]) == (405, "close")
    # A client that asks whether to send a body is told.
    expect = "Expect: 100-continue\r\n"
    with connect(service, 0) as connection:
        send_header(connection, 100, token, more=expect)
        go_on = b"HTTP/1.1 100 Continue\r\n\r\n"
        assert connection.recv(len(go_on)) == go_on
        connection.sendall(bytes(100))
        assert answer(connection)[0] == 400  # it is no query
        send_header(connection, 100, token, more=expect.swapcase())
        connection.sendall(bytes(100))  # it need not wait
        assert connection.recv(len(go_on)) == go_on
        assert answer(connection)[0] == 400
    with connect(service, 0) as connection:
        send_header(connection, 100, "", more=expect)
        got, fields, _ = answer(connection)
        assert (got, fields["connection"]) == (401, "close")
    # HTTP/1.1 has one Host in each request, 1.0 need not.
    for version, hosts, status in [("1.1", 0, 400), ("1.1", 1, 200), ("1.1", 2, 400), ("1.0", 0, 200)]:
        with connect(service, 0) as connection:
            connection.sendall((f"GET /v2/health/live HTTP/{version}\r\n" + "Host: localhost\r\n" * hosts +
                                "\r\n").encode())
            got, _, said = answer(connection)
            assert got == status, (version, hosts, said)
            assert status == 200 or said["field"] == "Host"
    # What is short is read, and the connection goes on.
    with connect(service, 0) as connection:
        for _ in range(2):
            send_header(connection, 5000)
            connection.sendall(bytes(5000))
            assert answer(connection)[0] == 401


def flood(service):
    """Bodies of nobody take no memory."""
    connections = [connect(service, 0) for _ in range(100)]
    before = memory(service.servers[0])
    for connection in connections:
        send_header(connection, 150_000, "0" * 32)
        connection.sendall(bytes(140_000))
    service.wait(lambda: not unread(connections), "nobody reads the bodies")
    grown = memory(service.servers[0]) - before
    assert grown < 7 * service.arguments.memory_factor, f"{grown} MB for 14 MB of bodies"
    for connection in connections:
        connection.close()


def unread(connections):
    """Whether the other ends of connections on this machine have not read all bytes yet."""
    ports = {connection.getsockname()[1] for connection in connections}
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with open(table) as lines:
            next(lines)
            for line in lines:
                remote, queues = line.split()[2], line.split()[4]
                if int(remote.split(":")[1], 16) in ports and int(queues.split(":")[1], 16):
                    return True
    return False


def idle(service, count, talking):
    """Connections of which every second one, or all, say a byte and no more."""
    connections = []
    for k in range(count):
        connections.append(socket.create_connection(address(service, 0), timeout=20))
        if talking or k % 2:
            connections[-1].sendall(b"\x16")
    return connections


def close(connections):
    for connection in connections:
        connection.close()


def ended(connections):
    """How many of these the server has ended."""
    ready, _, _ = select(connections, [], [], 0)
    return len(ready)


def others_work(service, images, report):
    service.run("load", "--deployment", service.deployment, "--model", "MnistNet3", "--token-file", service.token,
                "--images", images, "--clients", "8", "--rate", "100", "--seconds", "2", "--json", report)
    figures = json.loads(report.read_text())
    assert figures["queries"] > 0 and not figures["errors"], figures


def many_of_one_address(service):
    """No address gets more than its part, and whoever does not begin TLS is put out."""
    connections = idle(service, PER_ADDRESS + 100, talking=True)
    service.wait(lambda: ended(connections) >= 100, "too many connections are kept")
    assert ended(connections) < len(connections), "all connections are ended"
    service.wait(lambda: ended(connections) == len(connections), "connections without a handshake are kept")
    assert service.ask(0, "/v2/health/live")[0] == 200
    close(connections)


def fingerprint_as_token(service):
    """Whoever knows a client's certificate, which is no secret, cannot give what it stands for as a token."""
    certificate = service.root / "server0/party0.pem"
    service.check([service.party, "token", "--store", service.root / "server0", "--add", "bob", "--certificate", certificate])
    shown = re.search("sha256:[0-9a-f]{64}", service.run("certificate", certificate))[0]
    for token in (shown, "\0certificate " + shown, "certificate " + shown):
        with connect(service, 0) as connection:
            send_header(connection, 5, token)
            connection.sendall(bytes(5))
            stream = connection.makefile("rb").read(13)
            assert stream in (b"", b"HTTP/1.1 401 "), (token, stream)


def bounded_bodies(service, token):
    """Requests under way are bounded; who comes too much is told to come again, and can when others are through."""
    connections = []
    for _ in range(20):
        connections.append(connect(service, 0))
        send_header(connections[-1], 150_000, token)
    refused = connections[-1]
    refused.sendall(bytes(150_000))
    status, fields, _ = answer(refused)
    assert status == 503 and fields["retry-after"], (status, fields)
    close(connections)

    def taken():
        with connect(service, 0) as connection:
            send_header(connection, 100, token)
            connection.sendall(bytes(100))
            return answer(connection)[0] == 400  # it is no query
    service.wait(taken, "what is gone still counts")


def check(service, directory):
    images = directory / "images"
    service.run("draw-digits", images, directory / "labels", "--count", "30")
    service.put()
    token, operator = service.token.read_text().strip(), service.operator.read_text().strip()
    refused_early(service, token, operator)
    fingerprint_as_token(service)
    flood(service)
    silent = idle(service, 1000, talking=False)
    others_work(service, images, directory / "load.json")
    close(silent)
    bounded_bodies(service, token)
    with connect(service, 1) as slow:  # its body does not come
        send_header(slow, 100, token)
        slow.sendall(b"x")
        many_of_one_address(service)
        service.wait(lambda: ended([slow]), "a request that does not come is waited for")


if __name__ == "__main__":
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 4096)), hard))
    run(check, lambda i: ["--max-bodies", "2", "--max-connections-per-address", str(PER_ADDRESS)])
