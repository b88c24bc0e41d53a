#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Exports a PyTorch module for Tercet: its weights, and what every layer of it computes.

    scripts/export-pytorch.py mymodel.py:make_model --state-dict trained.pt --images images.npy \\
        --scale 255 --mean 0.1307 --std 0.3081 --bits 8 --out build/mynet

makes the module by calling make_model() of mymodel.py, loads the state_dict (where given) and writes

    build/mynet.json                   the architecture: NET.json of `tercet`
    build/mynet.safetensors            the state_dict: what --model of `tercet` takes
    build/mynet.images.npy             the images used, uint8, N x C x H x W
    build/mynet.reference.safetensors  each layer's output for them: what `tercet plain --check` takes

so that  tercet plain build/mynet.json --model build/mynet.safetensors --images build/mynet.images.npy
--check build/mynet.reference.safetensors  compares the two programs layer by layer. --scale, --mean,
--std and --bits become those of "input" in the JSON. Without --images a few random ones of --shape are
used. As a library: export(module, images, out, ...) and architecture(module, images, name, ...).

The file that names the module is executed, and only weights are read from --state-dict. Needs torch,
which brings numpy; the package safetensors is not needed.
"""
import argparse
import importlib.util
import json
import os
import struct
import sys
from pathlib import Path

import numpy
import torch
import torch.fx
from torch.fx.passes.shape_prop import ShapeProp

ELSE = "export the module to ONNX and use `tercet import`, or write the JSON by hand (--no-json)"
DTYPES = {torch.float32: "F32", torch.float64: "F64", torch.float16: "F16", torch.bfloat16: "BF16",
          torch.int8: "I8", torch.int16: "I16", torch.int32: "I32", torch.int64: "I64"}


def save_safetensors(tensors, file):
    """Writes {name: tensor}: the header's length, the header (JSON), the values one after the other."""
    header, values, end = {}, [], 0
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        if tensor.dtype not in DTYPES:
            raise SystemExit(f"{file} tensor {name}: found {tensor.dtype}, expected one of "
                             f"{', '.join(DTYPES.values())}")
        # numpy has no bfloat16, so the bits travel as integers of the same size.
        bits = tensor.view(torch.int16) if tensor.dtype == torch.bfloat16 else tensor
        data = bits.numpy().tobytes()
        header[name] = {"dtype": DTYPES[tensor.dtype], "shape": list(tensor.shape),
                        "data_offsets": [end, end + len(data)]}
        values.append(data)
        end += len(data)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    Path(file).write_bytes(struct.pack("<Q", len(text)) + text + b"".join(values))


def network_input(images, scale=255.0, mean=0.0, std=1.0, bits=8):
    """The numbers that Tercet computes with for bytes: rounded to `bits` bits, then normalised."""
    steps = 2**bits - 1
    rounded = (images.astype(numpy.int64) * 2 * steps + 255) // 510
    real = (rounded * (255.0 / steps) / scale - mean) / std
    return torch.from_numpy(real.astype(numpy.float32))


def run_name(name, run):
    """Of a module that runs more than once: the second run's has _2 behind it and so on."""
    return name if run == 1 else f"{name}_{run}"


def layer_outputs(module, inputs, names=None, runs=None):
    """{name: output} of every module without children, in evaluation mode.

    A name is the module's in the state_dict, or names[that], for each run of it; `runs` gets how often each ran.
    "output" is what the whole module gives.
    """
    outputs, hooks = {}, []
    runs = {} if runs is None else runs

    def record(name):
        def hook(_module, _inputs, output):
            if isinstance(output, torch.Tensor):
                runs[name] = runs.get(name, 0) + 1
                outputs[run_name(name, runs[name])] = output.detach().clone()
        return hook

    for name, part in module.named_modules():
        if name and not list(part.children()):
            hooks.append(part.register_forward_hook(record((names or {}).get(name, name))))
    was_training = module.training
    module.eval()
    try:
        with torch.no_grad():
            outputs["output"] = module(inputs)
    finally:
        module.train(was_training)
        for hook in hooks:
            hook.remove()
    return outputs


class Architecture:
    """A module's layers in the order in which they run, as torch.fx finds them, for the network's JSON.

    Each is called as its module; what has no module (torch.relu(x), x.flatten(1), x + y) as fx calls it. What the
    JSON cannot say, or this script does not know, is refused by its place.
    """

    def __init__(self, module, example):
        try:
            traced = torch.fx.symbolic_trace(module)
        except Exception as error:
            raise SystemExit(f"torch.fx cannot follow the module: {error}; {ELSE}") from error
        ShapeProp(traced).propagate(example)
        self.modules = dict(module.named_modules())
        self.layers, self.gives, self.last, self.runs = [], {}, "input", {}
        for node in traced.graph.nodes:
            if node.op == "placeholder":
                self.gives[node] = "input"
            elif node.op == "output":
                if self.gives.get(node.args[0]) != self.last:
                    raise SystemExit(f"the module's output is not what {self.last} gives, expected one tensor; {ELSE}")
            elif node.op == "call_module":
                self.call_module(node, self.modules[node.target])
            else:
                self.call(node)

    def refuse(self, node, found):
        raise SystemExit(f"{node.name}: found {found}, which has no layer in the JSON here; {ELSE}")

    def add(self, node, kind, name=None, source=None, **keys):
        source = self.gives.get(source or node.args[0])
        if source != self.last:
            if kind != "conv2d" or source is None:
                self.refuse(node, f"a {kind} of {source} behind {self.last} (only convolutions and sums may take what "
                            "an earlier layer gives)")
            keys["from"] = source
        if (name or node.name) in self.gives.values():
            self.refuse(node, f"a second layer called {name or node.name}")
        self.last = self.gives[node] = name or node.name
        self.layers.append({"name": self.last, "type": kind, **keys})

    def window(self, node, kernel, stride, padding, ceils=False):
        if isinstance(padding, str):
            self.refuse(node, f"padding {padding!r}")
        keys = {"kernel": both(kernel), "stride": both(kernel if stride is None else stride)}
        if both(padding) != 0:
            keys["padding"] = both(padding)
        if ceils:
            shape, out = (one.meta["tensor_meta"].shape[2:] for one in (node.args[0], node))
            (h, w), (sh, sw), (ph, pw) = (2 * [x] if isinstance(x, int) else x for x in
                                          (keys["kernel"], keys["stride"], both(padding)))
            bottom = max(ph, (out[0] - 1) * sh + h - shape[0] - ph)
            right = max(pw, (out[1] - 1) * sw + w - shape[1] - pw)
            sides = [ph, pw, bottom, right]
            if sides[2:] != sides[:2]:
                keys["padding"] = sides
        return keys

    def average(self, node, name, kernel, stride, padding, ceils, counts):
        keys = self.window(node, kernel, stride, padding, ceils)
        if ceils and both(padding) != 0 and counts and keys.get("padding", 0) != both(padding):
            self.refuse(node, "ceil_mode with count_include_pad and padding")
        if "padding" in keys and (ceils or not counts):
            keys["count_include_pad"] = False
        self.add(node, "avg_pool2d", name, **keys)

    def whole_map(self, node, name):
        self.add(node, "avg_pool2d", name, kernel=both(list(node.args[0].meta["tensor_meta"].shape[2:])))

    def call_module(self, node, part):
        self.runs[node.target] = self.runs.get(node.target, 0) + 1
        name, nn = run_name(node.target, self.runs[node.target]), torch.nn
        if isinstance(part, nn.Conv2d):
            if part.padding_mode != "zeros":
                self.refuse(node, f"padding_mode {part.padding_mode!r}")
            keys = self.window(node, part.kernel_size, part.stride, part.padding)
            if both(part.dilation) != 1:
                keys["dilation"] = both(part.dilation)
            if part.groups != 1:
                keys["groups"] = part.groups
            self.add(node, "conv2d", name, out_channels=part.out_channels, **keys, **no_bias(part))
        elif isinstance(part, nn.Linear):
            self.add(node, "linear", name, out_features=part.out_features, **no_bias(part))
        elif isinstance(part, (nn.BatchNorm1d, nn.BatchNorm2d)) and part.affine and part.track_running_stats:
            self.add(node, "batch_norm", name, eps=part.eps)
        elif isinstance(part, nn.MaxPool2d) and both(part.dilation) == 1:
            self.add(node, "max_pool2d", name,
                     **self.window(node, part.kernel_size, part.stride, part.padding, part.ceil_mode))
        elif isinstance(part, nn.AvgPool2d) and part.divisor_override is None:
            self.average(node, name, part.kernel_size, part.stride, part.padding, part.ceil_mode,
                         part.count_include_pad)
        elif isinstance(part, nn.AdaptiveAvgPool2d) and both(part.output_size) == 1:
            self.whole_map(node, name)
        elif isinstance(part, nn.ReLU):
            self.add(node, "relu", name)
        elif isinstance(part, nn.Hardtanh):  # and ReLU6
            self.add(node, "clip", name, low=part.min_val, high=part.max_val)
        elif isinstance(part, nn.Flatten) and node.meta["tensor_meta"].shape[1:].numel() == \
                node.meta["tensor_meta"].shape[1]:
            self.add(node, "flatten", name)
        elif isinstance(part, (nn.Identity, nn.Dropout, nn.Dropout2d)) or \
                (isinstance(part, (nn.Softmax, nn.LogSoftmax)) and self.is_last(node, part.dim)):
            self.gives[node] = self.gives.get(node.args[0])
        else:
            self.refuse(node, type(part).__name__)

    def is_last(self, node, axis):
        """Whether the network ends in a softmax, or its logarithm, of each image's logits, which keeps their order."""
        return axis in (1, -1) and len(node.meta["tensor_meta"].shape) == 2 and \
            all(user.op == "output" for user in node.users)

    @staticmethod
    def argument(node, place, name, otherwise=None):
        return node.args[place] if len(node.args) > place else node.kwargs.get(name, otherwise)

    def call(self, node):
        """A function, or a method of a tensor."""
        what = node.target if isinstance(node.target, str) else node.target.__name__
        shape = node.meta["tensor_meta"].shape if "tensor_meta" in node.meta else ()
        source = node.args[0].meta.get("tensor_meta") if node.args and isinstance(node.args[0], torch.fx.Node) else None
        is_flat = source is not None and len(shape) == 2 and shape[0] == source.shape[0]
        if what in ("size", "getattr", "getitem"):
            return  # of a shape that a view takes
        if what in ("relu", "sign"):
            self.add(node, what)
        elif what in ("flatten", "view", "reshape") and is_flat:
            self.add(node, "flatten")
        elif what in ("add", "iadd") and all(one in self.gives for one in node.args) and not node.kwargs and \
                node.args[0].meta["tensor_meta"].shape == node.args[1].meta["tensor_meta"].shape:
            ends = [self.gives[one] for one in node.args]
            other = ends[0] if ends[1] == self.last else ends[1]
            self.add(node, "add", source=node.args[1] if ends[1] == self.last else node.args[0], **{"from": other})
        elif what == "mean" and len(source.shape) == 4 and self.argument(node, 1, "dim") is not None and \
                sorted(axis % 4 for axis in both_of(self.argument(node, 1, "dim"))) == [2, 3]:
            self.whole_map(node, None)
        elif what == "adaptive_avg_pool2d" and both(self.argument(node, 1, "output_size")) == 1:
            self.whole_map(node, None)
        elif what == "avg_pool2d" and self.argument(node, 6, "divisor_override") is None:
            kernel = self.argument(node, 1, "kernel_size")
            self.average(node, None, kernel, self.argument(node, 2, "stride"), self.argument(node, 3, "padding", 0),
                         self.argument(node, 4, "ceil_mode", False), self.argument(node, 5, "count_include_pad", True))
        elif what in ("max_pool2d", "boolean_dispatch"):
            pool = [self.argument(node, i + 1, key, default) for i, (key, default) in
                    enumerate([("kernel_size", None), ("stride", None), ("padding", 0), ("dilation", 1),
                               ("ceil_mode", False)])]
            if both(pool[3]) != 1:
                self.refuse(node, "a dilated pool")
            self.add(node, "max_pool2d", **self.window(node, pool[0], pool[1], pool[2], pool[4]))
        elif what == "dropout" or (what in ("softmax", "log_softmax") and
                                   self.is_last(node, self.argument(node, 1, "dim"))):
            self.gives[node] = self.gives.get(node.args[0])
        else:
            self.refuse(node, what)


def both_of(value):
    return list(value) if isinstance(value, (tuple, list)) else [value, value]


def both(value):
    """One number, or two where rows and columns differ."""
    value = both_of(value)
    return value[0] if value[0] == value[1] else value


def no_bias(part):
    return {"bias": False} if part.bias is None else {}


def layer_names(module, names=None):
    """{module's name: layer's name} for those that differ: as given, and "_0" for "0", which no layer may be called."""
    begins_well = {name: name[0].isalpha() or name[0] == "_" for name, _ in module.named_modules() if name}
    return {**{name: "_" + name for name, well in begins_well.items() if not well}, **(names or {})}


def architecture(module, images, name, names=None, scale=255.0, mean=0.0, std=1.0, bits=8):
    """The text of the network's JSON for a module that takes such images."""
    module.eval()
    built = Architecture(module, network_input(images, scale, mean, std, bits))
    layers, names = built.layers, layer_names(module, names)
    names.update({run_name(old, run): run_name(new, run) for old, new in list(names.items())
                  for run in range(2, built.runs.get(old, 1) + 1)})
    for layer in layers:
        layer["name"] = names.get(layer["name"], layer["name"])
        if "from" in layer:
            layer["from"] = names.get(layer["from"], layer["from"])
    head = {"shape": list(images.shape[1:]), "scale": scale, "mean": mean, "std": std, "bits": bits}
    lines = ",\n    ".join(json.dumps(layer) for layer in layers)
    return (f'{{\n  "name": {json.dumps(name)},\n  "input": {json.dumps(head)},\n  "layers": [\n    {lines}\n  ],\n'
            '  "output": "logits"\n}\n')


def export(module, images, out, names=None, scale=255.0, mean=0.0, std=1.0, bits=8):
    """Writes weights, images and outputs to `out` for uint8 images N x C x H x W.

    `names` maps a module's name to the layer's in NET.json where they differ, for weights and outputs.
    """
    images = numpy.ascontiguousarray(images)
    if images.dtype != numpy.uint8 or images.ndim != 4 or len(images) == 0:
        raise SystemExit(f"images: found {images.dtype} of shape {list(images.shape)}, expected uint8 "
                         "N x C x H x W")
    weights, names = {}, layer_names(module, names)
    for key, tensor in module.state_dict().items():
        layer, _, kind = key.rpartition(".")
        weights[f"{names.get(layer, layer)}.{kind}"] = tensor
    runs = {}
    outputs = layer_outputs(module, network_input(images, scale, mean, std, bits), names, runs)
    for key, tensor in list(weights.items()):
        layer, _, kind = key.rpartition(".")
        for run in range(2, runs.get(layer, 1) + 1):
            weights[f"{run_name(layer, run)}.{kind}"] = tensor
    Path(out).parent.mkdir(parents=True, exist_ok=True)
    save_safetensors(weights, f"{out}.safetensors")
    numpy.save(f"{out}.images.npy", images)
    save_safetensors(outputs, f"{out}.reference.safetensors")
    return outputs


def load_module(text):
    file, separator, factory = text.rpartition(":")
    if not separator:
        raise SystemExit(f"{text}: expected FILE.py:FUNCTION")
    spec = importlib.util.spec_from_file_location(Path(file).stem, file)
    if spec is None or not Path(file).is_file():
        raise SystemExit(f"{file}: no such Python file")
    source = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = source
    spec.loader.exec_module(source)
    if not hasattr(source, factory):
        raise SystemExit(f"{file}: has no {factory}")
    return getattr(source, factory)()


def load_state_dict(file):
    try:
        return torch.load(file, map_location="cpu", weights_only=True)
    except TypeError as error:
        # Without weights_only a file runs whatever code it likes.
        raise SystemExit(f"{file}: this torch ({torch.__version__}) cannot load weights alone; "
                         "load the file in FUNCTION") from error


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("module", help="FILE.py:FUNCTION that makes the module")
    parser.add_argument("--state-dict", help="weights to load (torch.save of a state_dict)")
    parser.add_argument("--images", help=".npy, uint8, N x C x H x W")
    parser.add_argument("--shape", default="1,28,28", help="C,H,W of random images (default %(default)s)")
    parser.add_argument("--limit", type=int, default=8, help="images used (default %(default)s)")
    parser.add_argument("--scale", type=float, default=255.0)
    parser.add_argument("--mean", type=float, default=0.0)
    parser.add_argument("--std", type=float, default=1.0)
    parser.add_argument("--bits", type=int, default=8, choices=range(1, 9), metavar="1..8")
    parser.add_argument("--rename", action="append", default=[], metavar="MODULE=LAYER",
                        help="name in the JSON of a module that is to be called otherwise there")
    parser.add_argument("--no-json", action="store_true", help="write no JSON, as you have one")
    parser.add_argument("--out", required=True, help="what the files' names begin with")
    arguments = parser.parse_args()

    os.umask(0o077)  # weights and images are for their owner alone
    names = dict(pair.partition("=")[::2] for pair in arguments.rename)
    module = load_module(arguments.module)
    if arguments.state_dict:
        module.load_state_dict(load_state_dict(arguments.state_dict))
    if arguments.images:
        images = numpy.load(arguments.images, allow_pickle=False)[:arguments.limit]
        if images.ndim == 3:
            images = images[:, None]
    else:
        shape = [int(side) for side in arguments.shape.split(",")]
        images = numpy.random.default_rng(1).integers(0, 256, [arguments.limit, *shape], numpy.uint8)
    as_input = (arguments.scale, arguments.mean, arguments.std, arguments.bits)
    text = None if arguments.no_json else architecture(module, images, Path(arguments.out).name, names, *as_input)
    outputs = export(module, images, arguments.out, names, *as_input)
    if text is not None:
        Path(f"{arguments.out}.json").write_text(text)
    if not arguments.state_dict:
        print(f"{arguments.module}: no --state-dict was given: unless the function loads weights itself, they are "
              "random ones that nobody has trained", file=sys.stderr)
    for name, output in outputs.items():
        print(f"{name}: {list(output.shape)}")


if __name__ == "__main__":
    main()
