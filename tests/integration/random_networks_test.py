# SPDX-License-Identifier: Apache-2.0
"""Random networks, the same on every machine, against an implementation in numpy that shares nothing with Tercet.

For each: `tercet plain --check` compares the float network layer by layer with what numpy computes; the compiled
integers must give numpy's logits, all in one scale; and some run securely, in every suite with each party as helper,
where `tercet run` compares with the plain integers. Numbers are small whole ones and halves, so that nothing is
rounded, and ties are many. `--fault` plants a wrong layer into numpy's side, which must be found.
"""
import argparse
import json
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

try:
    import numpy
except ImportError:
    print("no numpy: install python3-numpy")
    sys.exit(77)

NETWORKS = 48
SECURE_EVERY = 4
BATCHES = (1, 3, 17)
SUITES = ("lut", "fss", "aby3")


# --- The network in numpy, one window after the other


def padded(x, sides, value):
    top, left, bottom, right = sides
    return numpy.pad(x, [(0, 0), (0, 0), (top, bottom), (left, right)], constant_values=value)


def windows(x, layer, reach, sides, value):
    """Yields (row, column, the padded map's part there)."""
    x = padded(x, sides, value)
    for row, top in enumerate(range(0, x.shape[2] - reach[0] + 1, layer["stride"][0])):
        for column, left in enumerate(range(0, x.shape[3] - reach[1] + 1, layer["stride"][1])):
            yield row, column, x[:, :, top:top + reach[0], left:left + reach[1]]


def collect(parts):
    rows, columns = (1 + max(part[i] for part in parts) for i in (0, 1))
    out = numpy.zeros((*parts[0][2].shape, rows, columns))
    for row, column, values in parts:
        out[:, :, row, column] = values
    return out


def conv2d(x, layer, weights):
    w, dilation, groups = weights["weight"], layer["dilation"], layer["groups"]
    reach = [(w.shape[i + 2] - 1) * dilation[i] + 1 for i in (0, 1)]
    each_in, each_out = w.shape[1], w.shape[0] // groups
    parts = []
    for row, column, part in windows(x, layer, reach, layer["padding"], layer["pad_value"]):
        part = part[:, :, ::dilation[0], ::dilation[1]]
        sums = [numpy.einsum("nchw,ochw->no", part[:, g * each_in:(g + 1) * each_in],
                             w[g * each_out:(g + 1) * each_out]) for g in range(groups)]
        parts.append((row, column, numpy.concatenate(sums, 1) + weights.get("bias", 0)))
    return collect(parts)


def max_pool2d(x, layer, _weights):
    return collect([(row, column, part.max((2, 3))) for row, column, part in
                    windows(x, layer, layer["kernel"], layer["padding"], -numpy.inf)])


def avg_pool2d(x, layer, _weights):
    counted = numpy.ones_like(x)
    ones = windows(counted, layer, layer["kernel"], layer["padding"], 1.0 if layer["count_include_pad"] else 0.0)
    numbers = {(row, column): part.sum((2, 3)) for row, column, part in ones}
    return collect([(row, column, part.sum((2, 3)) / numbers[row, column]) for row, column, part in
                    windows(x, layer, layer["kernel"], layer["padding"], 0.0)])


def batch_norm(x, layer, weights):
    values = [weights[key][:, None, None] for key in ("weight", "bias", "running_mean", "running_var")]
    gamma, beta, mean, variance = values
    return gamma * (x - mean) / numpy.sqrt(variance + layer["eps"]) + beta


OPERATIONS = {
    "conv2d": conv2d, "max_pool2d": max_pool2d, "avg_pool2d": avg_pool2d, "batch_norm": batch_norm,
    "linear": lambda x, _, w: (x.reshape(len(x), -1) @ w["weight"].T + w.get("bias", 0))[:, :, None, None],
    "sign": lambda x, *_: numpy.where(x >= 0, 1.0, -1.0),
    "relu": lambda x, *_: numpy.maximum(x, 0),
    "flatten": lambda x, *_: x.reshape(len(x), -1, 1, 1),
}


# --- A network of layers that follow each other as people have them


class Drawn:
    def __init__(self, seed):
        self.rng = numpy.random.default_rng(seed)
        self.layers, self.weights, self.values, self.last = [], {}, {}, "input"
        sides = [1, 1] if seed % 8 == 0 else [self.pick(range(2, 9)), self.pick(range(2, 9))]
        bits = self.pick([1, 2, 3])
        self.input = {"shape": [self.pick([1, 2, 3]), *sides], "bits": bits, "scale": 255 / (2**bits - 1),
                      "mean": self.pick([0, 1]), "std": self.pick([1, 2])}
        self.images = self.rng.integers(0, 256, [max(BATCHES), *self.input["shape"]], numpy.uint8)
        levels = (self.images.astype(int) * (2**bits - 1) + 127) // 255
        self.x = (levels - self.input["mean"]) / self.input["std"]
        relu = seed % 3 == 2
        for block in range(self.pick([1, 2, 3])):
            self.block(block, "relu" if relu and block == 0 else "sign")
        if self.chance(0.3):
            self.add("flatten")
        self.dense("logits", self.pick([1, 2, 5]))

    def pick(self, options):
        return options[int(self.rng.integers(len(options)))]

    def chance(self, share):
        return self.rng.random() < share

    def add(self, kind, name=None, weights=None, **layer):
        name = name or f"{kind}{len(self.layers)}"
        layer = {"name": name, "type": kind, **layer}
        self.layers.append(layer)
        self.weights[name] = weights or {}
        if kind == "add":
            self.x = self.x + self.values[layer["from"]]
        else:
            x = self.values[layer["from"]] if "from" in layer else self.x
            self.x = OPERATIONS[kind](x, layer, self.weights[name])
        self.values[name] = self.x
        self.last = name

    def whole(self, shape, most=2):
        return self.rng.integers(-most, most + 1, shape).astype(float)

    def bias(self, channels):
        return {"bias": self.whole([channels]) / 2} if self.chance(0.6) else {}

    def dense(self, name, outputs):
        weights = {"weight": self.whole([outputs, self.x[0].size]), **self.bias(outputs)}
        self.add("linear", name, weights, out_features=outputs, bias="bias" in weights)

    def conv(self, source=None, like=None):
        x = self.x if source is None else self.values[source]
        channels, height, width = x.shape[1:]
        groups = 1 if like is not None or self.chance(0.6) else channels
        outputs = groups * self.pick([1, 2]) if groups > 1 else self.pick([1, 2, 4])
        if like is not None:
            outputs = like
        whole_map = self.chance(0.15) and source is None and like is None
        layer = {"kernel": [self.pick([1, 2, 3]), self.pick([1, 2, 3])],
                 "stride": [self.pick([1, 1, 2]), self.pick([1, 2])],
                 "dilation": [self.pick([1, 1, 2]), self.pick([1, 1, 2])], "groups": groups,
                 "padding": [self.pick([0, 1, 1, 2]) for _ in range(4)], "pad_value": self.pick([0, 0, 1, -1, 1.5])}
        if whole_map:
            layer.update(kernel=[height, width], dilation=[1, 1], padding=[0] * 4)
        if like is not None:
            layer.update(kernel=[1, 1], stride=[1, 1], dilation=[1, 1], padding=[0] * 4)
        for axis, side in ((0, height), (1, width)):
            reach = (layer["kernel"][axis] - 1) * layer["dilation"][axis] + 1
            short = reach - side - layer["padding"][axis] - layer["padding"][axis + 2]
            layer["padding"][axis + 2] += max(0, short)
        weights = {"weight": self.whole([outputs, channels // groups, *layer["kernel"]]), **self.bias(outputs)}
        if source is not None:
            layer["from"] = source
        self.add("conv2d", None, weights, out_channels=outputs, bias="bias" in weights, **layer)

    def norm(self, positive=False):
        channels = self.x.shape[1]
        gamma = self.whole([channels])
        if positive:
            gamma = numpy.abs(gamma)
        variance = self.rng.choice([0.0, 3.0], channels)
        self.add("batch_norm", None, {"weight": gamma, "bias": self.whole([channels]) / 2,
                                      "running_mean": self.whole([channels]), "running_var": variance}, eps=1)

    def pool(self, kind, whole_map=False):
        height, width = self.x.shape[2:]
        # Averages of 1, 2 or 4 numbers are not rounded.
        sizes = [1, 2, 2] if kind == "avg_pool2d" else [1, 2, 2, 3]
        kernel = [height, width] if whole_map else [min(self.pick(sizes), height), min(self.pick(sizes), width)]
        pads = [0] * 4
        if not whole_map and self.chance(0.5):
            pads = [int(self.rng.integers(0, kernel[i % 2] // 2 + 1)) for i in range(4)]
        layer = {"kernel": kernel, "stride": [self.pick([1, 2]), self.pick([1, 2])], "padding": pads}
        if kind == "avg_pool2d":
            layer["count_include_pad"] = self.chance(0.5)
        self.add(kind, None, None, **layer)

    def block(self, index, activation):
        shortcut = self.last if index > 0 and self.x.shape[2] * self.x.shape[3] > 1 and self.chance(0.4) else None
        if shortcut:
            self.conv(like=self.x.shape[1])
            self.add("add", **{"from": shortcut})
        elif self.x.shape[2] * self.x.shape[3] == 1 and self.chance(0.3):
            self.dense(f"dense{index}", self.pick([3, 6]))
        else:
            self.conv()
        order = self.pick(["n", "np", "pn", "npn", "p", ""])
        positive = activation == "relu" or shortcut is not None
        for step in order:
            if step == "n":
                self.norm(positive and "p" in order and order.index("p") < order.rindex("n"))
            elif self.x.shape[2] * self.x.shape[3] > 1:
                self.pool("max_pool2d", self.chance(0.2))
        self.add(activation)
        if "p" not in order and self.chance(0.5) and self.x.shape[2] * self.x.shape[3] > 1:
            if self.chance(0.3):
                self.norm(positive)
            self.pool("max_pool2d")
        elif self.chance(0.4) and self.x.shape[2] * self.x.shape[3] > 1:
            self.pool("avg_pool2d")

    # --- Files

    def write(self, folder, fault):
        network = {"name": "random", "input": self.input, "layers": self.layers, "output": "logits"}
        for layer in self.layers:
            if layer["type"] == "conv2d" and layer["pad_value"] == 0:
                del layer["pad_value"]
        (folder / "net.json").write_text(json.dumps(network))
        write_tensors(folder / "net.safetensors",
                      {f"{name}.{key}": value for name, tensors in self.weights.items()
                       for key, value in tensors.items()})
        numpy.save(folder / "images.npy", self.images)
        outputs = {name: value.reshape(len(value), *value.shape[1:]) for name, value in self.values.items()}
        if fault:
            outputs[self.layers[0]["name"]] = outputs[self.layers[0]["name"]] + 1
        write_tensors(folder / "reference.safetensors", outputs)


def write_tensors(file, tensors):
    header, data = {}, b""
    for name, values in tensors.items():
        raw = numpy.ascontiguousarray(values, numpy.float32).tobytes()
        header[name] = {"dtype": "F32", "shape": list(values.shape), "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header).encode()
    file.write_bytes(struct.pack("<Q", len(text)) + text + data)


def check_integers(folder, expected):
    """That the integer logits are numpy's in one scale, but for half a step of rounding."""
    found = numpy.array(json.loads((folder / "plain.json").read_text())["logits"], float).reshape(expected.shape)
    size = (expected * expected).sum()
    scale = (found * expected).sum() / size if size > 0 else 1
    worst = numpy.abs(found - scale * expected).max()
    if scale <= 0 or worst > 0.5 + 1e-3 * numpy.abs(found).max():
        raise AssertionError(f"integer logits are {worst} off at a scale of {scale}: {found[:2]} for {expected[:2]}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tercet", required=True)
    parser.add_argument("--networks", type=int, default=NETWORKS)
    parser.add_argument("--first", type=int, default=0, help="seed of the first network")
    parser.add_argument("--fault", action="store_true", help="plant a wrong layer: the test must fail")
    arguments = parser.parse_args()

    def run(*options):
        done = subprocess.run([arguments.tercet, *map(str, options)], capture_output=True, text=True, timeout=120,
                              check=False)
        if done.returncode != 0:
            raise AssertionError(f"tercet {' '.join(map(str, options))}: exit status {done.returncode}\n"
                                 f"{done.stdout[-2000:]}{done.stderr[-2000:]}")

    secure = 0
    for seed in range(arguments.first, arguments.first + arguments.networks):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            net = Drawn(seed)
            net.write(folder, arguments.fault)
            files = [folder / "net.json", "--images", folder / "images.npy"]
            try:
                run("plain", *files, "--model", folder / "net.safetensors", "--check", folder / "reference.safetensors")
                compiled = folder / "compiled.safetensors"
                run("compile", folder / "net.json", "--model", folder / "net.safetensors", "--out", compiled,
                    "--activation-bits", 16, "--accept-loss")
                run("plain", *files, "--model", compiled, "--json", folder / "plain.json")
                check_integers(folder, net.x.reshape(len(net.x), -1))
                if seed % SECURE_EVERY == 0:
                    for i, suite in enumerate(SUITES):
                        run("run", *files, "--model", compiled, "--transport", "memory", "--suite", suite,
                            "--helper", (i + secure) % 3, "--batch", BATCHES[(i + secure // 3) % 3],
                            *(["--linear", "replicated"] if seed % 8 == 0 else []))
                    secure += 1
            except AssertionError as error:
                if arguments.fault and net.layers[0]["name"] in str(error) and "--check" in str(error):
                    print("the planted fault was found")
                    return
                print(f"seed {seed}: {error}\n{(folder / 'net.json').read_text()}")
                sys.exit(1)
    if arguments.fault:
        sys.exit("the planted fault was not found")
    print(f"{arguments.networks} networks, {secure} of them in {len(SUITES)} suites")


if __name__ == "__main__":
    main()
