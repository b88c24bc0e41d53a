#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Gives damaged files of every kind to the real programs.

    tests/fuzz/mutate_files.py --bin build/release/bin [--count 400] [--seed 1] [--kind NAME ...]

For each kind of file that a program reads, makes a good one, checks that it is accepted, and then runs the program on
COUNT damaged ones: flipped bits, cut, repeated, lengths at their extremes, rubbish, and (where a file holds a digest or is
packed) damage below a digest or packing that is right again. Each run must end within 20 s with exit status 0, 1 or 2 and
at most 2 GB of memory; one that fails says why in one line that names the file. A damaged compiled model must never be
accepted. Equal seeds give equal files; the damaged file of each failure is kept in --keep. Needs the standard library only.
"""

import argparse
import base64
import gzip
import hashlib
import io
import json
import lzma
import os
import random
import re
import resource
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from pathlib import Path

TIME_LIMIT_S = 20
MEMORY_LIMIT_MB = 2000
CLOSED_PORTS = (1, 2)  # nobody listens on them, so whoever connects fails at once

# ---------------------------------------------------------------- damage

EXTREMES = [b"\x00", b"\xff", b"\x7f", b"\x80"]
NUMBERS = [b"0", b"-1", b"1", b"1e308", b"1e999", b"-0.0", b"4294967296", b"9223372036854775807", b"18446744073709551615",
           b"99999999999999999999999", b"1e-320", b"2147483648", b"0.5", b"true", b"null", b'"x"', b"[]", b"{}", b"NaN"]


def flip_bit(r, data):
    at = r.randrange(len(data))
    return data[:at] + bytes([data[at] ^ 1 << r.randrange(8)]) + data[at + 1:]


def flip_bits(r, data):
    for _ in range(r.randint(2, 40)):
        data = flip_bit(r, data)
    return data


def cut(r, data):
    return data[:r.randrange(len(data))]


def insert(r, data):
    at = r.randrange(len(data) + 1)
    return data[:at] + r.randbytes(r.choice((1, 2, 4, 8, 100, 5000))) + data[at:]


def block(r, data):
    begin = r.randrange(len(data))
    return begin, min(len(data), begin + r.choice((1, 4, 16, 64, 512)))


def repeat(r, data):
    begin, end = block(r, data)
    return data[:end] + data[begin:end] * r.choice((1, 1, 3, 1000)) + data[end:]


def remove(r, data):
    begin, end = block(r, data)
    return data[:begin] + data[end:]


def overwrite(r, data):
    begin, end = block(r, data)
    return data[:begin] + r.randbytes(end - begin) + data[end:]


def extreme(r, data):
    """A length field, perhaps: 1 to 8 bytes become all 0, all 1 and the like; more often near the beginning."""
    width = r.choice((1, 2, 4, 8))
    at = r.randrange(min(len(data), r.choice((16, 64, 10**9))))
    value = r.choice(EXTREMES) + r.choice((b"\x00", b"\xff")) * (width - 1)
    return data[:at] + (value if r.random() < 0.5 else value[::-1]) + data[at + width:]


def replace_number(r, data):
    found = list(re.finditer(rb"-?\d+(\.\d+)?([eE][-+]?\d+)?", data))
    if not found:
        return extreme(r, data)
    number = r.choice(found)
    return data[:number.start()] + r.choice(NUMBERS) + data[number.end():]


def append(r, data):
    return data + r.choice((b"\x00", b"\x00rubbish", b"\n\n", b" ", b"{}", b"\xff" * 100, data))


def drop_token(r, data):
    found = list(re.finditer(rb'"[^"]*"|[\[\]{}:,\n]', data))
    if not found:
        return remove(r, data)
    token = r.choice(found)
    return data[:token.start()] + r.choice((b"", b"", token.group() * 2, b"\xc3\x28", b"[" * 100_000)) + data[token.end():]


def rubbish(r, data):
    return r.choice((b"", r.randbytes(r.randrange(1, 200)), data[:8] + r.randbytes(len(data)), b"[" * 200_000,
                     b"\x00" * len(data)))


DAMAGES = [flip_bit, flip_bits, cut, insert, repeat, remove, overwrite, extreme, replace_number, append, drop_token, rubbish]


def damage(r, data):
    """One damage, sometimes two, that really changes something."""
    while True:
        result = r.choice(DAMAGES)(r, data)
        if result and r.random() < 0.2:
            result = r.choice(DAMAGES)(r, result)
        if result != data:
            return result


# ---------------------------------------------------------------- good files


def tensors_file(tensors, metadata=None):
    """tensors: name -> (dtype, shape, bytes)."""
    header, body = {}, b""
    if metadata:
        header["__metadata__"] = metadata
    for name, (dtype, shape, data) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(body), len(body) + len(data)]}
        body += data
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


def parse_tensors(data):
    length = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8:8 + length])
    body = data[8 + length:]
    metadata = header.pop("__metadata__", {})
    return {k: (v["dtype"], v["shape"], body[slice(*v["data_offsets"])]) for k, v in header.items()}, metadata


def content_digest(tensors, metadata):
    """What `tercet.sha256` holds; see include/tercet/files/tensor_file.h."""
    lines = []
    for key in sorted(metadata):
        if key != "tercet.sha256":
            lines.append(f"{len(key.encode())} {key} {len(metadata[key].encode())} {metadata[key]}\n")
    for name in sorted(tensors):
        dtype, shape, data = tensors[name]
        lines.append(f"{len(name.encode())} {name} {dtype} {shape} {hashlib.sha256(data).hexdigest()}\n")
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def floats(r, count):
    return struct.pack(f"<{count}f", *(r.uniform(-1, 1) for _ in range(count)))


def protobuf(*fields):
    """(number, int | bytes | str) -> the message's bytes."""
    def varint(value):
        out = b""
        while value > 127:
            out += bytes([value & 127 | 128])
            value >>= 7
        return out + bytes([value])

    out = b""
    for number, value in fields:
        if isinstance(value, int):
            out += varint(number << 3) + varint(value)
        else:
            value = value.encode() if isinstance(value, str) else value
            out += varint(number << 3 | 2) + varint(len(value)) + value
    return out


def onnx_model(r):
    def info(name, sizes):
        dims = b"".join(protobuf((1, protobuf((1, size)))) for size in sizes)
        return protobuf((1, name), (2, protobuf((1, protobuf((1, 1), (2, dims))))))

    def tensor(name, sizes, data):
        return protobuf(*((1, size) for size in sizes), (2, 1), (8, name), (9, data))

    def attribute(name, value):
        return protobuf((1, name), (3, value), (20, 2))

    def node(kind, inputs, outputs, *attributes):
        return protobuf(*((1, i) for i in inputs), *((2, o) for o in outputs), (4, kind), *((5, a) for a in attributes))

    graph = protobuf(
        (1, node("Flatten", ["x"], ["flat"], attribute("axis", 1))),
        (1, node("Gemm", ["flat", "w1", "b1"], ["h"], attribute("transB", 1))),
        (1, node("Sign", ["h"], ["s"])),
        (1, node("Gemm", ["s", "w2", "b2"], ["y"], attribute("transB", 1))),
        (2, "small"),
        (5, tensor("w1", (8, 16), floats(r, 128))), (5, tensor("b1", (8,), floats(r, 8))),
        (5, tensor("w2", (4, 8), floats(r, 32))), (5, tensor("b2", (4,), floats(r, 4))),
        (11, info("x", (1, 1, 4, 4))), (12, info("y", (1, 4))))
    return protobuf((1, 7), (2, "test"), (7, graph), (8, protobuf((2, 13))))


# ---------------------------------------------------------------- runs


class Outcome:
    def __init__(self, status, seconds, megabytes, err, timed_out):
        self.status, self.seconds, self.megabytes, self.err, self.timed_out = status, seconds, megabytes, err, timed_out


class Runner:
    def __init__(self, options, folder):
        self.options, self.folder = options, folder
        self.err_file = folder / "err"
        # Sanitizers reserve terabytes of addresses; memory in use is what counts, and is measured below.
        self.environment = dict(os.environ, ASAN_OPTIONS="abort_on_error=1", UBSAN_OPTIONS="halt_on_error=1",
                                XDG_STATE_HOME=str(folder / "state"))  # records of material

    def run(self, command):
        with open(self.err_file, "wb") as err:
            start = time.monotonic()
            process = subprocess.Popen([str(part) for part in command], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                       stderr=err, env=self.environment, start_new_session=True,
                                       preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CORE, (0, 0)))
            timed_out = False
            while True:
                pid, status, usage = os.wait4(process.pid, os.WNOHANG)
                if pid:
                    break
                if time.monotonic() - start > TIME_LIMIT_S * self.options.patience:
                    timed_out = True
                    os.killpg(process.pid, signal.SIGKILL)
                    pid, status, usage = os.wait4(process.pid, 0)
                    break
                time.sleep(0.002)
            seconds = time.monotonic() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        text = self.err_file.read_bytes().decode(errors="replace")
        return Outcome(process.returncode, seconds, usage.ru_maxrss / 1024, text, timed_out)

    def problem(self, outcome, names):
        """What is wrong with how a run ended; nothing when all is as it should be."""
        if outcome.timed_out:
            return f"no end within {TIME_LIMIT_S} s"
        if outcome.status not in (0, 1, 2):
            return f"status {outcome.status}"
        if "Sanitizer" in outcome.err or "runtime error" in outcome.err:
            return "a sanitizer's report"
        if outcome.megabytes > MEMORY_LIMIT_MB * self.options.memory_factor:
            return f"{outcome.megabytes:.0f} MB of memory"
        lines = [line for line in outcome.err.splitlines() if line.strip()]
        errors = [line for line in lines if re.match(r"tercet(-party)?: error: ", line)]
        if outcome.status == 0:
            return "an error is printed, but the status is 0" if errors else None
        if len(errors) != 1 or lines[-1] != errors[0]:
            return f"{len(errors)} lines with errors, expected one, the last"
        if not any(name in errors[0] for name in names):
            return f"the error does not name {' or '.join(names)}"
        if any(ord(c) < 32 or ord(c) == 127 for c in errors[0]):
            return "the error holds control characters"
        return None


# ---------------------------------------------------------------- kinds


class Kind:
    """A good file, the command that reads it, and how it is damaged."""

    def __init__(self, name, file, good, commands, *, below=None, never_accepted=False, status=0, also_names=(), reset=None):
        self.name, self.file, self.good, self.commands = name, file, good, commands
        self.below = below  # (random, good bytes) -> bytes that are damaged below a digest or packing
        self.never_accepted = never_accepted
        self.status, self.also_names = status, also_names
        self.reset = reset  # before each run

    def damaged(self, r):
        if self.below is not None and r.random() < 0.5:
            return self.below(r, self.good), True
        return damage(r, self.good), False


def below_json_of_tensors(r, good):
    """Metadata, shapes or data of a compiled model, with its digest right again."""
    tensors, metadata = parse_tensors(good)
    for _ in range(100):
        changed, texts = dict(tensors), dict(metadata)
        if r.random() < 0.8:
            key = "tercet.network" if r.random() < 0.9 else r.choice(sorted(texts))
            texts[key] = damage(r, texts[key].encode()).decode(errors="ignore")
        else:
            name = r.choice(sorted(changed))
            dtype, shape, data = changed[name]
            changed[name] = (dtype, shape, damage(r, data)[:len(data)].ljust(len(data), b"\0"))
        try:
            texts["tercet.sha256"] = content_digest(changed, texts)
            return tensors_file(changed, texts)
        except UnicodeError:
            pass
    return damage(r, good)


def png_picture(width, height, pixels):
    chunk = lambda name, data: struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
    rows = b"".join(b"\0" + pixels[y * width:(y + 1) * width] for y in range(height))
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)) +
            chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))


def below_png(r, good):
    """What a PNG's chunks hold, with their lengths and checksums right again; of the pixels sometimes what is packed."""
    chunks, at = [], 8
    while at < len(good):
        length = struct.unpack(">I", good[at:at + 4])[0]
        chunks.append((good[at + 4:at + 8], good[at + 8:at + 8 + length]))
        at += 12 + length
    number = r.randrange(len(chunks) - 1)
    name, data = chunks[number]
    chunks[number] = name, (zlib.compress(damage(r, zlib.decompress(data))) if name == b"IDAT" and r.random() < 0.5
                            else damage(r, data))
    if r.random() < 0.2:
        chunks.insert(r.randrange(len(chunks)), r.choice(chunks))
    return good[:8] + b"".join(struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
                               for name, data in chunks)


def below_pem(r, good):
    lines = good.decode().splitlines()
    der = damage(r, base64.b64decode("".join(lines[1:-1])))
    return "\n".join([lines[0], *re.findall(".{1,64}", base64.b64encode(der).decode()), lines[-1], ""]).encode()


def below_material(r, good):
    """The header of a material file (magic, then each part as length, bytes, SHA-256 in hex)."""
    length = struct.unpack("<Q", good[8:16])[0]
    header = damage(r, good[16:16 + length])
    return (good[:8] + struct.pack("<Q", len(header)) + header + hashlib.sha256(header).hexdigest().encode()
            + good[16 + length + 64:])


def make_kinds(options, folder, runner):
    r = random.Random(f"good files {options.seed}")
    tercet, party = options.bin / "tercet", options.bin / "tercet-party"

    def write(name, data, mode=0o644):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data if isinstance(data, bytes) else data.encode())
        (folder / name).chmod(mode)
        return folder / name

    def must(*command):
        outcome = runner.run(command)
        if outcome.status != 0:
            sys.exit(f"{' '.join(map(str, command))}\nfails with status {outcome.status}: {outcome.err}")

    network = write("net.json", json.dumps({
        "name": "small", "input": {"shape": [1, 4, 4]}, "output": "logits",
        "layers": [{"name": "fc1", "type": "linear", "out_features": 8}, {"name": "s1", "type": "sign"},
                   {"name": "fc2", "type": "linear", "out_features": 6}, {"name": "r2", "type": "relu"},
                   {"name": "fc3", "type": "linear", "out_features": 4}]}, indent=1))
    weights = write("weights.safetensors", tensors_file(
        {f"fc{i}.{what}": ("F32", shape, floats(r, shape[0] * (shape + [1])[1]))
         for i, out, into in ((1, 8, 16), (2, 6, 8), (3, 4, 6)) for what, shape in (("weight", [out, into]), ("bias", [out]))}))
    pixels = r.randbytes(20 * 16)
    classes = bytes(r.randrange(4) for _ in range(20))
    idx = write("images.idx", struct.pack(">4I", 0x803, 20, 4, 4) + pixels)
    labels = write("labels.idx", struct.pack(">2I", 0x801, 20) + classes)
    compiled = folder / "compiled.safetensors"
    must(tercet, "compile", network, "--model", weights, "--out", compiled)
    cifar_network = write("cifar.json", json.dumps({
        "name": "cifar", "input": {"shape": [3, 32, 32]}, "output": "logits",
        "layers": [{"name": "fc1", "type": "linear", "out_features": 2}, {"name": "s1", "type": "sign"},
                   {"name": "fc2", "type": "linear", "out_features": 10}]}))
    cifar_weights = write("cifar.safetensors", tensors_file({
        "fc1.weight": ("F32", [2, 3072], floats(r, 6144)), "fc1.bias": ("F32", [2], floats(r, 2)),
        "fc2.weight": ("F32", [10, 2], floats(r, 20)), "fc2.bias": ("F32", [10], floats(r, 10))}))
    cifar_compiled = folder / "cifar.compiled.safetensors"
    must(tercet, "compile", cifar_network, "--model", cifar_weights, "--out", cifar_compiled)
    npy = io.BytesIO()
    head = b"{'descr': '|u1', 'fortran_order': False, 'shape': (20, 4, 4), }".ljust(117) + b"\n"
    npy.write(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head + pixels)
    head = b"{'descr': '<i8', 'fortran_order': False, 'shape': (20,), }".ljust(117) + b"\n"
    npy_labels = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head + struct.pack("<20q", *classes)

    def plain(images, *more):
        return [tercet, "plain", network, "--model", compiled, "--images", images, *more]

    kinds = []

    def add(name, file, commands, **more):
        kinds.append(Kind(name, file, file.read_bytes(), commands, **more))

    add("network", write("network.json", network.read_bytes()),
        [[tercet, "plan", folder / "network.json", "--suite", "lut"],
         [tercet, "plan", folder / "network.json", "--suite", "auto", "--link", "wan"],
         [tercet, "plain", folder / "network.json", "--model", weights, "--images", idx]],
        also_names=["weights.safetensors", "images.idx", "layer ", "--suite"])
    add("compiled", write("model.safetensors", compiled.read_bytes()),
        [[tercet, "plain", network, "--model", folder / "model.safetensors", "--images", idx],
         [tercet, "plan", network, "--model", folder / "model.safetensors", "--suite", "auto"]],
        below=below_json_of_tensors, never_accepted=True, also_names=["layer "])
    add("weights", write("float.safetensors", weights.read_bytes()),
        [[tercet, "compile", network, "--model", folder / "float.safetensors", "--out", folder / "out.safetensors"],
         [tercet, "plain", network, "--model", folder / "float.safetensors", "--images", idx]],
        also_names=["network small"])  # whose weights these are, where they are read but make no integer network
    images_commands = lambda name: [plain(folder / name, "--labels", labels), plain(folder / name, "--limit", 3)]
    images_names = dict(also_names=["labels.idx"])
    add("idx", write("a.idx", idx.read_bytes()), images_commands("a.idx"), **images_names)
    packed = lambda module: lambda r, good: module.compress(damage(r, module.decompress(good)))
    add("gzip", write("a.idx.gz", gzip.compress(idx.read_bytes(), mtime=0)), images_commands("a.idx.gz"),
        below=packed(gzip), **images_names)
    add("xz", write("a.idx.xz", lzma.compress(idx.read_bytes())), images_commands("a.idx.xz"), below=packed(lzma),
        **images_names)
    add("npy", write("a.npy", npy.getvalue()), images_commands("a.npy"), **images_names)
    add("raw", write("a.u8", pixels), images_commands("a.u8"), **images_names)
    head = b"{'descr': '<f4', 'fortran_order': True, 'shape': (20, 4, 4), }".ljust(117) + b"\n"
    add("npy-float", write("f.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head +
                           struct.pack("<320f", *(pixel / 255 for pixel in pixels))),
        [plain(folder / "f.npy", "--labels", labels), plain(folder / "f.npy", "--limit", 3, "--layout", "nhwc")],
        **images_names)
    rows = [pixels[i:i + 16] for i in range(0, 320, 16)]
    add("csv", write("a.csv", "label," + ",".join(f"p{i}" for i in range(16)) + "\n" +
                     "".join(f"{label}," + ",".join(map(str, row)) + "\n" for label, row in zip(classes, rows))),
        [plain(folder / "a.csv"), plain(folder / "a.csv", "--limit", 3)])
    add("png", write("a.png", png_picture(4, 4, pixels[:16])), [plain(folder / "a.png")], below=below_png)
    add("pgm", write("a.pgm", b"P5\n4 4\n255\n" + pixels[:16]), [plain(folder / "a.pgm")])
    add("pgm-text", write("t.pgm", "P2\n# rows\n4 4\n255\n" + "".join(f"{p}\n" for p in pixels[:16])), [plain(folder / "t.pgm")])
    add("ppm", write("b.ppm", b"P6 4 4 255\n" + b"".join(bytes([p] * 3) for p in pixels[:16])), [plain(folder / "b.ppm")])
    add("ppm-text", write("a.ppm", "P3\n# grey\n4 4\n255\n" + "".join(f"{p} {p} {p}\n" for p in pixels[:16])),
        [plain(folder / "a.ppm")])
    write("table/a.png", png_picture(4, 4, pixels[:16]))
    write("table/b.png", png_picture(4, 4, pixels[16:32]))
    add("labels-csv", write("l.csv", "file,label\na.png,1\nb.png,3\n"),
        [plain(folder / "table", "--labels", folder / "l.csv")], also_names=["table/"])
    add("labels-column", write("c.csv", "x,class\n" + "".join(f"{i},{label + 1}\n" for i, label in enumerate(classes))),
        [plain(idx, "--labels", folder / "c.csv", "--label-column", "class", "--first-label", "1")])
    write("classes/b/1.png", png_picture(4, 4, pixels[:16]))
    for name in "cde":
        write(f"classes/{name}/1.pgm", b"P5 4 4 255\n" + pixels[16:32])
    add("classes", folder / "classes/b/1.png", [plain(folder / "classes")], below=below_png)
    cifar100 = b"".join(bytes([r.randrange(10), r.randrange(10)]) + r.randbytes(3072) for _ in range(3))
    add("cifar100", write("c.bin", cifar100),
        [[tercet, "plain", cifar_network, "--model", cifar_compiled, "--images", folder / "c.bin", "--cifar100", kind]
         for kind in ("fine", "coarse")])
    cifar = b"".join(bytes([r.randrange(10)]) + r.randbytes(3072) for _ in range(3))
    add("cifar", write("a.bin", cifar),
        [[tercet, "plain", cifar_network, "--model", cifar_compiled, "--images", folder / "a.bin"],
         [tercet, "plain", cifar_network, "--model", cifar_compiled, "--images", folder / "a.bin", "--limit", "2"]])
    add("labels", write("l.idx", labels.read_bytes()), [plain(idx, "--labels", folder / "l.idx")])
    add("labels-npy", write("l.npy", npy_labels), [plain(idx, "--labels", folder / "l.npy")])

    must(tercet, "run", network, "--model", compiled, "--images", idx, "--transport", "memory", "--json", folder / "report.json")
    add("report", write("measured.json", (folder / "report.json").read_bytes()),
        [[tercet, "plan", network, "--model", compiled, "--suite", "lut", "--batch", "20", "--measured",
          folder / "measured.json"]])

    must(tercet, "run", network, "--model", compiled, "--images", idx, "--transport", "memory", "--shard", "0/2",
         "--json", folder / "shard0.json")
    must(tercet, "run", network, "--model", compiled, "--images", idx, "--transport", "memory", "--shard", "1/2",
         "--json", folder / "shard1.json")
    add("shard", write("shard.json", (folder / "shard1.json").read_bytes()),
        [[tercet, "join", folder / "joined.json", folder / "shard0.json", folder / "shard.json"]],
        also_names=["shards: no report of"])

    # Party 2 owns the model. One that is missing ends the run once the testbed has been read.
    must(tercet, "keygen", folder / "keys")
    testbed = {"parties": [{"host": "127.0.0.1", "port": CLOSED_PORTS[0]}, {"host": "127.0.0.1", "port": CLOSED_PORTS[1]},
                           {"host": "127.0.0.1"}],
               "transport": "tls", "certificates": "keys",
               "roles": {"helper": 0, "data_owner": 1, "model_owner": 2, "receiver": 1},
               "timeout_s": 1, "connect_timeout_s": 0.1}
    add("testbed", write("testbed.json", json.dumps(testbed, indent=1)),
        [[party, "--id", "2", "--testbed", folder / "testbed.json", "--network", network, "--model", folder / "missing"]],
        status=2, also_names=["missing", "--model", "--images", "party"])
    # Nobody listens, so a party that gets past its certificates says that it reaches nobody.
    for name in ("ca.pem", "party2.pem", "party2-key.pem"):
        shutil.copytree(folder / "keys", folder / f"keys-{name}", dirs_exist_ok=True)
        config = dict(testbed, certificates=f"keys-{name}")
        write(f"testbed-{name}.json", json.dumps(config))
        add(name, folder / f"keys-{name}" / name,
            [[party, "--id", "2", "--testbed", folder / f"testbed-{name}.json", "--network", network, "--model", compiled]],
            below=below_pem, status=1, also_names=["could not be reached", "party2", "ca.pem"])

    # Made anew before each run: what was used is used up. Always the same file, which a copy may not stand in for.
    material = folder / "material"
    must(tercet, "run", network, "--model", compiled, "--transport", "memory", "--batch", "4", "--material-out", material,
         "--queries", "2")
    def kept():
        return [path for top in (material, folder / "state") for path in top.rglob("*") if path.is_file()]

    beside = {path: path.read_bytes() for path in kept()}

    def reset():
        for path in kept():
            if path not in beside:
                path.unlink()
        for path, data in beside.items():
            with open(path, "r+b" if path.exists() else "wb") as file:
                file.truncate(0)
                file.write(data)
            path.chmod(0o600)

    use = [tercet, "run", network, "--model", compiled, "--images", idx, "--limit", "4", "--transport", "memory",
           "--material", material]
    for number in (1, 2):
        add(f"material-{number}", material / f"party{number}.material", [use], below=below_material, reset=reset,
            also_names=[f"party {number} has ", f"party {number} sent "])
    record = next(path for path in beside if path.name.endswith("-party1.json"))
    add("record", record, [use], reset=reset, also_names=["party1.material"])

    if options.onnx:
        add("onnx", write("model.onnx", onnx_model(r)),
            [[tercet, "import", folder / "model.onnx", "--out", folder / "imported.json"]],
            also_names=["imported", "--name", "--shape"])
    if options.train:
        add("train", write("train.json", json.dumps({
            "network": "net.json", "data": {"train_images": "none.idx", "train_labels": "none-labels.idx"},
            "optimizer": {"name": "adamw", "lr": 0.001}, "epochs": 1, "batch": 4, "seed": 1, "out": "trained.safetensors"})),
            [[tercet, "train", folder / "train.json"]], status=2, also_names=["none", "--", "net.json"])
    return kinds


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", type=Path, required=True, help="the folder of tercet and tercet-party")
    parser.add_argument("--count", type=int, default=400, help="damaged files of each kind")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kind", action="append", help="only this one")
    parser.add_argument("--only", type=int, help="only the damaged file of this number")
    parser.add_argument("--keep", type=Path, help="where damaged files that show a fault are kept")
    parser.add_argument("--onnx", action="store_true", help="the build has tercet import")
    parser.add_argument("--train", action="store_true", help="the build has tercet train")
    parser.add_argument("--patience", type=float, default=1, help="times 20 s, for builds with sanitizers")
    parser.add_argument("--memory-factor", type=float, default=1, help="times 2 GB, for builds with sanitizers")
    options = parser.parse_args()
    options.bin = options.bin.resolve()
    print(f"seed {options.seed}, {options.count} damaged files of each kind")

    faults = 0
    with tempfile.TemporaryDirectory(prefix="tercet-mutate-") as name:
        folder = Path(name)
        runner = Runner(options, folder)
        for kind in make_kinds(options, folder, runner):
            if options.kind and kind.name not in options.kind:
                continue
            names = [kind.file.name, *kind.also_names]
            for command in kind.commands:
                if kind.reset:
                    kind.reset()
                outcome = runner.run(command)
                if outcome.status != kind.status:
                    sys.exit(f"the good file of kind {kind.name} gives status {outcome.status}, expected {kind.status}: "
                             f"{outcome.err}")
            counts, slowest, largest, start = {}, 0.0, 0.0, time.monotonic()
            numbers = range(options.count) if options.only is None else [options.only]
            for number in numbers:
                r = random.Random(f"{options.seed} {kind.name} {number}")
                data, below = kind.damaged(r)
                if kind.reset:
                    kind.reset()
                with open(kind.file, "r+b") as file:
                    file.truncate(0)
                    file.write(data)
                command = kind.commands[number % len(kind.commands)]
                outcome = runner.run(command)
                problem = runner.problem(outcome, names)
                if kind.never_accepted and not below and outcome.status == 0:
                    problem = "accepted"
                counts[outcome.status] = counts.get(outcome.status, 0) + 1
                slowest, largest = max(slowest, outcome.seconds), max(largest, outcome.megabytes)
                if options.only is not None:
                    print(f"status {outcome.status}: {outcome.err}", end="")
                if problem is None:
                    continue
                faults += 1
                print(f"FAULT {kind.name} {number}: {problem}\n  {' '.join(map(str, command))}\n  " +
                      "\n  ".join(outcome.err.splitlines()[-15:]))
                if options.keep:
                    options.keep.mkdir(parents=True, exist_ok=True)
                    (options.keep / f"{kind.name}-{number}-{kind.file.name}").write_bytes(data)
            with open(kind.file, "r+b") as file:
                file.truncate(0)
                file.write(kind.good)
            statuses = ", ".join(f"status {status}: {count}" for status, count in sorted(counts.items()))
            print(f"{kind.name}: {len(numbers)} files; {statuses}; slowest {slowest:.2f} s, at most {largest:.0f} MB, "
                  f"{time.monotonic() - start:.0f} s in all", flush=True)
    print(f"{faults} faults")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
