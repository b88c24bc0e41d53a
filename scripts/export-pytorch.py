#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Exports a PyTorch module for Tercet: its weights, and what every layer of it computes.

    scripts/export-pytorch.py mymodel.py:make_model --state-dict trained.pt --images images.npy \\
        --scale 255 --mean 0.1307 --std 0.3081 --bits 8 --out build/mynet

makes the module by calling make_model() of mymodel.py, loads the state_dict (where given) and writes

    build/mynet.safetensors            the state_dict: what --model of `tercet` takes
    build/mynet.images.npy             the images used, uint8, N x C x H x W
    build/mynet.reference.safetensors  each layer's output for them: what `tercet plain --check` takes

so that  tercet plain NET.json --model build/mynet.safetensors --images build/mynet.images.npy
--check build/mynet.reference.safetensors  compares the two programs layer by layer. --scale, --mean,
--std and --bits are those of "input" in NET.json. Without --images a few random ones of --shape are
used. As a library: export(module, images, out, ...).

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


def layer_outputs(module, inputs, names=None):
    """{name: output} of every module without children, in evaluation mode.

    A name is the module's in the state_dict, or names[that]; where a module runs more than once, the
    second run's has _2 behind it and so on. "output" is what the whole module gives.
    """
    outputs, runs, hooks = {}, {}, []

    def record(name):
        def hook(_module, _inputs, output):
            if isinstance(output, torch.Tensor):
                runs[name] = runs.get(name, 0) + 1
                outputs[name if runs[name] == 1 else f"{name}_{runs[name]}"] = output.detach().clone()
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


def export(module, images, out, names=None, scale=255.0, mean=0.0, std=1.0, bits=8):
    """Writes the three files of `out` for uint8 images N x C x H x W.

    `names` maps a module's name to the layer's in NET.json where they differ, for weights and outputs.
    """
    images = numpy.ascontiguousarray(images)
    if images.dtype != numpy.uint8 or images.ndim != 4 or len(images) == 0:
        raise SystemExit(f"images: found {images.dtype} of shape {list(images.shape)}, expected uint8 "
                         "N x C x H x W")
    weights = {}
    for key, tensor in module.state_dict().items():
        layer, _, kind = key.rpartition(".")
        weights[f"{(names or {}).get(layer, layer)}.{kind}"] = tensor
    outputs = layer_outputs(module, network_input(images, scale, mean, std, bits), names)
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
                        help="name in NET.json of a module that is called otherwise there")
    parser.add_argument("--out", required=True, help="what the three files' names begin with")
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
    outputs = export(module, images, arguments.out, names, arguments.scale, arguments.mean,
                     arguments.std, arguments.bits)
    for name, output in outputs.items():
        print(f"{name}: {list(output.shape)}")


if __name__ == "__main__":
    main()
