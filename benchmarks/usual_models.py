#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Usual small models: trained in PyTorch, exported to ONNX, imported, compiled and run securely.

    benchmarks/usual_models.py --mnist data/mnist --cifar data/cifar10 --out build/models

trains what is not in --out yet (minutes on two cores), and prints the table of docs/importing.md: whether a
model imports, by how much the float network's logits differ from PyTorch's at most (as a part of the largest), whether
the secure logits equal the plain integer network's, and the accuracy of both. Training and test images are subsets, the
first of each file, so the accuracies are not those of models that were trained to their end. Needs torch, onnx, numpy.
"""
import argparse
import gzip
import json
import lzma
import os
import struct
import subprocess
import sys
import time
from pathlib import Path

import numpy
import onnx
import onnx.numpy_helper
import torch
from torch import nn
from torch.nn import functional as F

CIFAR_RECORD = 3073


def read(folder, names):
    """The bytes of the first of these files, or of one of its packed forms, that the folder has."""
    for name in names:
        for suffix, opener in (("", open), (".gz", gzip.open), (".xz", lzma.open)):
            file = Path(folder) / (name + suffix)
            if file.is_file():
                with opener(file, "rb") as stream:
                    return stream.read()
    raise SystemExit(f"{folder}: has none of {', '.join(names)} (also .gz or .xz)")


def mnist(folder, part):
    images = read(folder, [f"{part}-images-idx3-ubyte"])
    labels = read(folder, [f"{part}-labels-idx1-ubyte"])
    pixels = numpy.frombuffer(images, numpy.uint8, offset=16).reshape(-1, 1, 28, 28)
    return pixels, numpy.frombuffer(labels, numpy.uint8, offset=8)


def cifar(folder, part):
    files = ["test_batch.bin"] if part == "t10k" else [f"data_batch_{i}.bin" for i in (1, 2, 3)]
    data = numpy.frombuffer(b"".join(read(folder, [name]) for name in files), numpy.uint8)
    records = data.reshape(-1, CIFAR_RECORD)
    return records[:, 1:].reshape(-1, 3, 32, 32), records[:, 0]


# --- The models


class SignOf(torch.autograd.Function):
    """Sign with Sign(0) = 1; gradients pass where |x| <= 1. It is exported as the operator Sign."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return torch.where(x >= 0, 1.0, -1.0)

    @staticmethod
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        return gradient * (x.abs() <= 1)

    @staticmethod
    def symbolic(g, x):
        return g.op("Sign", x)


class TwoBits(torch.autograd.Function):
    """0, 1, 2 or 3: how many of 0.5, 1.5 and 2.5 are at most x."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return torch.clamp(torch.floor(x + 0.5), 0, 3)

    @staticmethod
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        return gradient * ((x >= 0) & (x <= 3))

    @staticmethod
    def symbolic(g, x):
        return g.op("tercet.mark::TwoBits", x)


class Sign(nn.Module):
    def forward(self, x):
        return SignOf.apply(x)


class Quantised(nn.Module):
    def forward(self, x):
        return TwoBits.apply(x)


class SignConv(nn.Conv2d):
    """A convolution with the signs of its weights and, as Larq's pad_values, any number around the map."""

    def __init__(self, *arguments, around=0, value=0, **options):
        super().__init__(*arguments, bias=False, **options)
        self.around, self.value = around, value

    def forward(self, x):
        if self.around:
            x = F.pad(x, [self.around] * 4, value=self.value)
        return F.conv2d(x, SignOf.apply(self.weight), stride=self.stride)


class SignLinear(nn.Linear):
    def __init__(self, *arguments):
        super().__init__(*arguments, bias=False)

    def forward(self, x):
        return F.linear(x, SignOf.apply(self.weight))


def conv_norm(inputs, outputs, stride=1, kernel=3, groups=1):
    return [nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
            nn.BatchNorm2d(outputs)]


class Block(nn.Module):
    """A basic block of ResNets."""

    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.path = nn.Sequential(*conv_norm(inputs, outputs, stride), nn.ReLU(), *conv_norm(outputs, outputs))
        same = stride == 1 and inputs == outputs
        self.shortcut = nn.Identity() if same else nn.Sequential(*conv_norm(inputs, outputs, stride, 1))

    def forward(self, x):
        return F.relu(self.path(x) + self.shortcut(x))


def resnet(width, blocks):
    layers, channels = [*conv_norm(3, width), nn.ReLU()], width
    for stage, count in enumerate(blocks):
        for block in range(count):
            outputs = width << stage
            layers.append(Block(channels, outputs, 2 if stage and block == 0 else 1))
            channels = outputs
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 10))


def mlp():
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 256), nn.ReLU(), nn.Linear(256, 128), nn.ReLU(),
                         nn.Linear(128, 10))


def lenet():
    return nn.Sequential(nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 16, 5), nn.ReLU(),
                         nn.MaxPool2d(2), nn.Flatten(), nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84),
                         nn.ReLU(), nn.Linear(84, 10))


def vgg():
    layers, channels = [], 3
    for width in (32, 32, 0, 64, 64, 0, 128, 0):
        layers += [*conv_norm(channels, width), nn.ReLU()] if width else [nn.MaxPool2d(2)]
        channels = width or channels
    return nn.Sequential(*layers, nn.Flatten(), nn.Dropout(), nn.Linear(2048, 10))


def mobilenet():
    layers, channels = [*conv_norm(3, 16), nn.ReLU6()], 16
    for width, stride in ((32, 2), (32, 1), (64, 2), (64, 1), (128, 2)):
        layers += [*conv_norm(channels, channels, stride, groups=channels), nn.ReLU6(),
                   *conv_norm(channels, width, kernel=1), nn.ReLU6()]
        channels = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 10))


def larq():
    """In Larq's order, with its pad_values=1, and with the whole batch normalisation."""
    return nn.Sequential(SignConv(1, 16, 3, around=1, value=0), nn.MaxPool2d(2), nn.BatchNorm2d(16), Sign(),
                         SignConv(16, 32, 3, around=1, value=1), nn.MaxPool2d(2), nn.BatchNorm2d(32), Sign(),
                         SignConv(32, 32, 3, around=1, value=1), nn.BatchNorm2d(32), Sign(), nn.Flatten(),
                         SignLinear(1568, 10), nn.BatchNorm1d(10))


def finn():
    """Weights of one bit, activations of two: thresholds, as FINN streamlines Brevitas' models."""
    return nn.Sequential(SignConv(1, 12, 3), nn.BatchNorm2d(12), Quantised(), nn.MaxPool2d(2),
                         SignConv(12, 24, 3), nn.BatchNorm2d(24), Quantised(), nn.MaxPool2d(2), nn.Flatten(),
                         SignLinear(600, 10), nn.BatchNorm1d(10))


# Of deep networks of ReLU the proven bounds outgrow 32 bits.
MEASURED = ["--widths", "measured"]
# name: (in words, maker, data set, epochs, options of `tercet compile`)
MODELS = {
    "mlp": ("MLP, 784-256-128-10", mlp, "mnist", 3, []),
    "lenet": ("LeNet-5 with ReLU and max-pool", lenet, "mnist", 3, []),
    "vgg": ("small VGG, 5 convolutions", vgg, "cifar", 4, MEASURED),
    "resnet8": ("ResNet-8, 16 to 64 channels", lambda: resnet(16, [1, 1, 1]), "cifar", 4, MEASURED),
    "resnet18": ("ResNet-18 for 32 x 32, 8 to 64 channels", lambda: resnet(8, [2, 2, 2, 2]), "cifar", 4, MEASURED),
    "mobilenet": ("MobileNet-like, separable with ReLU6", mobilenet, "cifar", 4, []),
    "larq": ("BNN in Larq's order, padded with 1", larq, "mnist", 3, []),
    "finn": ("BNN as of FINN, thresholds of 2 bits", finn, "mnist", 3, []),
}


def normalised(pixels):
    return (torch.from_numpy(pixels.astype(numpy.float32)) / 255 - 0.5) / 0.25


def train(model, images, labels, epochs):
    optimiser = torch.optim.Adam(model.parameters(), 2e-3)
    batch, steps = 64, epochs * (len(images) // 64)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 4e-3, steps)
    order = torch.Generator().manual_seed(1)
    for epoch in range(epochs):
        model.train()
        for chosen in torch.randperm(len(images), generator=order).split(batch)[:len(images) // batch]:
            x = normalised(images[chosen.numpy()])
            loss = F.cross_entropy(model(x), torch.from_numpy(labels[chosen.numpy()].astype(numpy.int64)))
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            with torch.no_grad():
                for layer in model.modules():
                    if isinstance(layer, (SignConv, SignLinear)):
                        layer.weight.clamp_(-1, 1)
        print(f"  epoch {epoch + 1} of {epochs}, loss {loss.item():.3f}", file=sys.stderr, flush=True)
    model.eval()


def logits_of(model, images):
    with torch.no_grad():
        return torch.cat([model(normalised(part)) for part in numpy.array_split(images, max(1, len(images) // 256))])


def thresholds_of_finn(file):
    """Writes the nodes that stand for two bits as FINN does: MultiThreshold of [channels, 3]."""
    model = onnx.load(file)
    channels = {tensor.name: tensor.dims for tensor in model.graph.initializer}
    last = 0
    for node in model.graph.node:
        if node.op_type in ("Conv", "BatchNormalization"):
            for name in node.input:
                if name in channels and len(channels[name]) in (1, 4):
                    last = channels[name][0]
        if node.op_type == "TwoBits":
            node.op_type, node.domain = "MultiThreshold", "qonnx.custom_op.general"
            name = node.output[0] + "_thresholds"
            values = numpy.tile(numpy.float32([0.5, 1.5, 2.5]), (last, 1))
            model.graph.initializer.append(onnx.numpy_helper.from_array(values, name))
            node.input.append(name)
    onnx.save(model, file)


def make(name, arguments):
    """Trains and exports a model, if that was not done yet."""
    file = arguments.out / f"{name}.onnx"
    if file.is_file():
        return
    text, maker, data, epochs, _ = MODELS[name]
    print(f"{name}: training", file=sys.stderr, flush=True)
    load, folder = (mnist, arguments.mnist) if data == "mnist" else (cifar, arguments.cifar)
    torch.manual_seed(1)
    model = maker()
    images, labels = (array[:arguments.train_images] for array in load(folder, "train"))
    begin = time.monotonic()
    train(model, images, labels, epochs)
    test_images, test_labels = (array[:arguments.images] for array in load(folder, "t10k"))
    test_logits = logits_of(model, test_images).numpy()
    print(f"  {time.monotonic() - begin:.0f} s, {100 * (test_logits.argmax(1) == test_labels).mean():.2f} %",
          file=sys.stderr, flush=True)
    for what, pixels, classes in (("test", test_images, test_labels), ("calibration", images[:1000], labels[:1000])):
        numpy.save(arguments.out / f"{name}.{what}.npy", pixels)
        file = arguments.out / f"{name}.{what}.labels"
        file.write_bytes(struct.pack(">II", 0x801, len(classes)) + classes.tobytes())
    numpy.save(arguments.out / f"{name}.logits.npy", test_logits)
    partial = arguments.out / f"{name}.partial.onnx"
    torch.onnx.export(model, normalised(test_images[:1]), str(partial), opset_version=13,
                      custom_opsets={"tercet.mark": 1}, input_names=["images"], dynamic_axes={"images": {0: "N"}})
    if name == "finn":
        thresholds_of_finn(partial)
    partial.rename(file)


class Failed(Exception):
    pass


def run(*command):
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Failed((done.stderr or done.stdout).strip().splitlines()[-1])
    return done.stdout


def percent(report):
    return f"{100 * report['correct'] / report['images']:.2f}"


def measure(name, arguments):
    """A row of the table."""
    text, _, data, _, options = MODELS[name]
    base = arguments.out / name
    net, floats, compiled = (base.with_suffix(end) for end in (".json", ".safetensors", ".compiled.safetensors"))
    test = ["--images", f"{base}.test.npy", "--labels", f"{base}.test.labels"]
    row = [text, "MNIST" if data == "mnist" else "CIFAR-10"]
    try:
        run(arguments.tercet, "import", base.with_suffix(".onnx"), "--out", net, "--weights", floats, "--scale", 255,
            "--mean", 0.5, "--std", 0.25)
        row.append("yes")
        logits = numpy.load(f"{base}.logits.npy")
        last = json.loads(net.read_text())["layers"][-1]["name"]
        write_reference(f"{base}.reference.safetensors", last, logits)
        checked = subprocess.run([arguments.tercet, "plain", net, "--model", floats, "--images", f"{base}.test.npy",
                                  "--check", f"{base}.reference.safetensors"],
                                 capture_output=True, text=True, check=False,
                                 env={**os.environ, "LC_ALL": "C.UTF-8"})
        row.append(difference(checked.stdout, last))
        run(arguments.tercet, "compile", net, "--model", floats, "--out", compiled, "--images",
            f"{base}.calibration.npy", "--labels", f"{base}.calibration.labels", *options)
        run(arguments.tercet, "run", net, "--model", compiled, *test, "--batch", 50, "--suite", arguments.suite,
            "--transport", "memory", "--json", f"{base}.run.json")
        report = json.loads(Path(f"{base}.run.json").read_text())
        labels = numpy.frombuffer(Path(f"{base}.test.labels").read_bytes(), numpy.uint8, offset=8)
        row += ["measured" if options else "proven", "yes", f"{100 * (logits.argmax(1) == labels).mean():.2f}", percent(report)]
    except Failed as error:
        row += [str(error)] + ["-"] * (7 - len(row))
    return row


def write_reference(file, layer, values):
    raw = values.astype(numpy.float32).tobytes()
    header = json.dumps({layer: {"dtype": "F32", "shape": list(values.shape), "data_offsets": [0, len(raw)]}}).encode()
    Path(file).write_bytes(struct.pack("<Q", len(header)) + header + raw)


def difference(text, layer):
    """The largest as a part of the layer's largest value, and how many are over 1e-4 of it, as --check prints them."""
    row = next(row for row in (line.split("│") for line in text.splitlines()) if row[0].strip() == layer)
    relative, values, beyond = (column.strip() for column in row[3:6])
    return relative + ("" if beyond == "0" else f", {beyond} of {values} logits over 1e-4")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mnist", required=True, help="folder of MNIST's four files")
    parser.add_argument("--cifar", required=True, help="folder of CIFAR-10's records (.bin)")
    parser.add_argument("--tercet", default="build/release/bin/tercet")
    parser.add_argument("--out", type=Path, required=True, help="folder for models and results")
    parser.add_argument("--suite", default="lut")
    parser.add_argument("--train-images", type=int, default=20000)
    parser.add_argument("--images", type=int, default=1000, help="test images (default %(default)s)")
    parser.add_argument("models", nargs="*", default=list(MODELS), help=f"of {', '.join(MODELS)} (default: all)")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    print("| model | data | imports | float: largest difference | widths | secure = plain | accuracy, float (%) | "
          "secure (%) |")
    print("|---|---|---|---|---|---|---|---|")
    for name in arguments.models:
        make(name, arguments)
        print(f"| {' | '.join(measure(name, arguments))} |", flush=True)


if __name__ == "__main__":
    main()
