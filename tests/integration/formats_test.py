#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The same images and labels in every format, given to every command: each must compute the same.

  formats_test.py --bin DIR [--train]    needs the standard library only
"""
import argparse
import json
import lzma
import gzip
import random
import struct
import subprocess
import sys
import tempfile
import zlib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/serve"))
from service_test import free_ports  # noqa: E402

COUNT, CHANNELS, HEIGHT, WIDTH, CLASSES = 12, 3, 4, 5, 4
SIZE = CHANNELS * HEIGHT * WIDTH


def tensors(named):
    """A safetensors file of float32 tensors: name -> (shape, values)."""
    header, body = {}, b""
    for name, (shape, values) in named.items():
        data = struct.pack(f"<{len(values)}f", *values)
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [len(body), len(body) + len(data)]}
        body += data
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


def npy(descr, shape, data, fortran=False):
    head = f"{{'descr': '{descr}', 'fortran_order': {fortran}, 'shape': {shape}, }}".encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head + data


def png(pixels):
    """A colour picture of channels one after the other, each row with the filter Sub."""
    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    rows = b""
    for row in range(HEIGHT):
        values = [pixels[c * HEIGHT * WIDTH + row * WIDTH + x] for x in range(WIDTH) for c in range(CHANNELS)]
        rows += b"\1" + bytes((v - (values[i - CHANNELS] if i >= CHANNELS else 0)) % 256 for i, v in enumerate(values))
    header = struct.pack(">IIBBBBB", WIDTH, HEIGHT, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def ppm(pixels):
    plane = HEIGHT * WIDTH
    return b"P6 %d %d 255\n" % (WIDTH, HEIGHT) + bytes(pixels[c * plane + i] for i in range(plane) for c in range(CHANNELS))


class World:
    def __init__(self, folder, programs):
        self.folder, self.programs = folder, programs
        r = random.Random(5)
        self.images = [bytes(r.randrange(256) for _ in range(SIZE)) for _ in range(COUNT)]
        self.labels = [i % CLASSES for i in range(COUNT)]
        self.network = self.write("net.json", json.dumps({
            "name": "small", "input": {"shape": [CHANNELS, HEIGHT, WIDTH], "mean": 0.4, "std": 0.3}, "output": "logits",
            "layers": [{"name": "fc1", "type": "linear", "out_features": 7}, {"name": "s1", "type": "sign"},
                       {"name": "fc2", "type": "linear", "out_features": CLASSES}]}))
        uniform = lambda n: [r.uniform(-1, 1) for _ in range(n)]
        self.weights = self.write("weights.safetensors", tensors({
            "fc1.weight": ([7, SIZE], uniform(7 * SIZE)), "fc1.bias": ([7], uniform(7)),
            "fc2.weight": ([CLASSES, 7], uniform(7 * CLASSES)), "fc2.bias": ([CLASSES], uniform(CLASSES))}))

    def write(self, name, data):
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data if isinstance(data, bytes) else data.encode())
        return path

    def run(self, *words, stdin=None, status=0):
        done = subprocess.run([str(self.programs / words[0]), *map(str, words[1:])], input=stdin, capture_output=True,
                              cwd=self.folder, timeout=120)
        if done.returncode != status:
            sys.exit(f"{' '.join(map(str, words))}: exit status {done.returncode}, {status} expected\n"
                     f"{done.stdout.decode()}{done.stderr.decode()}")
        return done.stdout.decode() + done.stderr.decode()

    def parties(self, images, labels):
        """What the owner of the images, who receives the result, writes after a run of three parties."""
        testbed = self.folder / "testbed.json"
        if not testbed.exists():
            self.run("tercet", "keygen", "keys")
            port = free_ports(2)
            hosts = [{"host": "127.0.0.1", "port": port}, {"host": "127.0.0.1", "port": port + 1}, {"host": "127.0.0.1"}]
            self.write("testbed.json", json.dumps({"parties": hosts, "certificates": "keys"}))
        given = [[], ["--images", *images, "--json", "party.json", *(["--labels", labels] if labels else [])],
                 ["--model", self.weights]]
        running = [subprocess.Popen([str(word) for word in (
            self.programs / "tercet-party", "--id", party, "--testbed", testbed, "--network", self.network, *more)],
            cwd=self.folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            for party, more in enumerate(given)]
        try:
            ended = [party.communicate(timeout=120) for party in running]
        finally:
            for party in running:
                party.kill()
        if any(party.returncode != 0 for party in running):
            sys.exit(f"three parties with {images} {labels}: {ended}")
        return json.loads((self.folder / "party.json").read_text())

    def formats(self):
        """(what to give for --images and more, what for --labels or None where the images have them)."""
        flat = b"".join(self.images)
        numbers = [pixel for image in self.images for pixel in image]
        plain_labels = self.write("labels.idx", struct.pack(">2I", 0x801, COUNT) + bytes(self.labels))
        at = lambda n, c, y, x: self.images[n][(c * HEIGHT + y) * WIDTH + x]
        loop = lambda order: bytes(at(**dict(zip(order, place))) for place in places(
            [{"n": COUNT, "c": CHANNELS, "y": HEIGHT, "x": WIDTH}[d] for d in order]))
        shape = f"({COUNT}, {CHANNELS}, {HEIGHT}, {WIDTH})"

        yield [self.write("u1.npy", npy("|u1", shape, flat))], plain_labels
        yield [self.write("packed.npy.xz", lzma.compress(npy("|u1", shape, flat)))], plain_labels
        whole = npy("<i8", shape, struct.pack(f"<{len(numbers)}q", *numbers))
        yield [self.write("members.npy.gz", gzip.compress(whole[:99]) + gzip.compress(whole[99:]))], plain_labels
        yield [self.write("floats.npy", npy("<f4", shape, struct.pack(f"<{len(numbers)}f", *(v / 255 for v in numbers))))
               ], self.write("labels.npy", npy(">i4", f"({COUNT},)", struct.pack(f">{COUNT}i", *self.labels)))
        yield [self.write("normal.npy", npy("<f8", f"({COUNT}, {SIZE})", struct.pack(
            f"<{len(numbers)}d", *((v / 255 - 0.4) / 0.3 for v in numbers)))), "--values", "normalised"], plain_labels
        yield [self.write("fortran.npy", npy("|u1", shape, loop("xycn"), fortran=True))], plain_labels
        yield [self.write("nhwc.npy", npy("|u1", f"({COUNT}, {HEIGHT}, {WIDTH}, {CHANNELS})", loop("nyxc"))),
               "--layout", "nhwc"], plain_labels
        yield [self.write("transposed.npy", npy("|u1", f"({COUNT}, {CHANNELS}, {WIDTH}, {HEIGHT})", loop("ncxy"))),
               "--transpose"], plain_labels
        yield [self.write("bytes.u8", flat), "--first-label", "1"], self.write(
            "from1.u8", bytes(label + 1 for label in self.labels))
        rows = lambda columns: "".join(",".join(map(str, columns(i))) + "\n" for i in range(COUNT))
        yield [self.write("header.csv", "a,b,y" + ",p" * (SIZE - 2) + "\n" + rows(
            lambda i: [*self.images[i][:2], self.labels[i] + 5, *self.images[i][2:]])), "--label-column", "y", "--first-label",
               "5"], None
        yield [self.write("last.csv", rows(lambda i: [*self.images[i], self.labels[i]])), "--label-column", "last"], None
        yield [self.write("named.csv.gz", gzip.compress(
            (",".join(["label"] + [f"p{i}" for i in range(SIZE)]) + "\n" +
             rows(lambda i: [self.labels[i], *self.images[i]])).encode()))], None
        yield [self.write("alone.csv", rows(lambda i: list(self.images[i])))], self.write(
            "labels.csv", rows(lambda i: [self.labels[i]]))
        for i in range(COUNT):
            self.write(f"folder/{i:02}.{'png' if i % 2 else 'ppm'}", (png if i % 2 else ppm)(self.images[i]))
        order = random.Random(6).sample(range(COUNT), COUNT)
        yield [self.folder / "folder"], self.write("files.csv", "file,label\n" + "".join(
            f"{i:02}.{'png' if i % 2 else 'ppm'},{self.labels[i]}\n" for i in order))


def places(sizes):
    if not sizes:
        yield ()
        return
    for i in range(sizes[0]):
        for rest in places(sizes[1:]):
            yield (i, *rest)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", type=Path, required=True)
    parser.add_argument("--train", action="store_true", help="the build has tercet train")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tercet-formats-") as name:
        check(World(Path(name), options.bin.resolve()), options.train)


def check(world, train):
    formats = list(world.formats())

    def report(command, *words, stdin=None):
        world.run("tercet", command, world.network, "--model", world.weights, *words, "--json", "out.json", stdin=stdin)
        return json.loads((world.folder / "out.json").read_text())

    def words(images, labels):
        return ["--images", *images, *(["--labels", labels] if labels else [])]

    first = report("plain", *words(*formats[0]))
    expected = (first["predictions"], first["accuracy"])
    if len(set(first["predictions"])) < 2:
        sys.exit("the network says the same of all images, which would hide a wrong order")
    for images, labels in formats:
        found = report("plain", *words(images, labels))
        if (found["predictions"], found["accuracy"]) != expected or found["warnings"] != first["warnings"]:
            sys.exit(f"{images} {labels}: {found} found, {first} expected")
    stdin = (world.folder / "u1.npy").read_bytes()
    if report("plain", "--images", "-", stdin=stdin)["predictions"] != expected[0]:
        sys.exit("standard input gives other predictions")

    # A folder for each class, whose images come class by class.
    for i in range(COUNT):
        world.write(f"classes/{world.labels[i]}/{i:02}.png", png(world.images[i]))
    by_class = report("plain", "--images", world.folder / "classes")
    order = sorted(range(COUNT), key=lambda i: (world.labels[i], i))
    if by_class["predictions"] != [expected[0][i] for i in order] or by_class["accuracy"] != expected[1]:
        sys.exit(f"folders of classes: {by_class} found")

    # The other commands take them by the same code: a format with options and one without.
    for number, (images, labels) in enumerate((formats[4], formats[-1])):
        results = f"results{number}"
        found = report("run", *words(images, labels), "--transport", "memory")
        if found["predictions"] != expected[0] or found["accuracy"] != expected[1]:
            sys.exit(f"tercet run: {found} found")
        world.run("tercet", "compile", world.network, "--model", world.weights, *words(images, labels), "--out",
                  "compiled.safetensors")
        world.run("tercet", "bench", world.network, "--model", world.weights, *words(images, labels), "--batches", "1",
                  "--repetitions", "1", "--queries", "2", "--transport", "memory", "--no-charts", "--out", results)
        table = json.loads((world.folder / results / "results.json").read_text())
        if table["accuracies"][0]["images"] != COUNT or any(row.get("failed") for row in table["rows"]):
            sys.exit(f"tercet bench: {table} found")
        if train:
            world.run("tercet", "train", world.network, *words(images, labels), "--epochs", "1", "--batch-size", "4",
                      "--validation", "4", "--width-bits", "0", "--no-augment", "--out", "trained.safetensors")

    logits = [value for row in report("run", *words(*formats[0]), "--transport", "memory")["logits"] for value in row]
    for images, labels in formats:
        if len(images) == 1 and labels and labels.suffix == ".idx":
            continue
        found = world.parties(images, labels)
        if found["logits"] != logits or found["correct"] != first["correct"]:
            sys.exit(f"three parties with {images} {labels}: {found} found")
    by_class = world.parties([world.folder / "classes"], None)
    if by_class["correct"] != first["correct"]:
        sys.exit(f"three parties with folders of classes: {by_class} found")

    # Black images are warned of, once the run has begun, and in its report.
    dark = world.write("dark.u8", bytes(range(2)) * (SIZE // 2))
    if not any("the largest pixel of all 1 images is 1" in text for text in report("plain", "--images", dark)["warnings"]):
        sys.exit("images from 0 to 1 are not warned of")


if __name__ == "__main__":
    main()
