# SPDX-License-Identifier: Apache-2.0
"""ONNX files become the networks that `tercet import` makes."""
from package import NETS, Case, main, need, pictures, refusal, report
from package import tercet as command

need("onnx")
import json

import numpy
import onnx
from onnx import TensorProto, helper, numpy_helper

import tercet


def model(flatten=True, operator="Relu"):
    """Conv, an activation, Gemm: images 1 x 6 x 6, three classes."""
    draw = numpy.random.default_rng(5)
    weights = {"conv.weight": draw.normal(0, 0.3, (4, 1, 3, 3)), "conv.bias": draw.normal(0, 0.3, 4),
               "fc.weight": draw.normal(0, 0.1, (3, 64)), "fc.bias": draw.normal(0, 0.1, 3)}
    nodes = [helper.make_node("Conv", ["x", "conv.weight", "conv.bias"], ["a"], name="conv"),
             helper.make_node(operator, ["a"], ["b"], name="act"),
             helper.make_node("Flatten", ["b"], ["c"], name="flatten"),
             helper.make_node("Gemm", ["c", "fc.weight", "fc.bias"], ["y"], name="fc", transB=1)]
    graph = helper.make_graph(nodes, "graph", [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 1, 6, 6])],
                              [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 3])],
                              [numpy_helper.from_array(w.astype(numpy.float32), name) for name, w in weights.items()])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)]), weights


def logits_of(weights, x):
    """What the model computes, independently of the library."""
    windows = numpy.lib.stride_tricks.sliding_window_view(x[:, 0], (3, 3), axis=(1, 2))
    maps = numpy.einsum("nijkl,ckl->ncij", windows, weights["conv.weight"][:, 0])
    maps += weights["conv.bias"][None, :, None, None]
    return numpy.maximum(maps, 0).reshape(len(x), -1) @ weights["fc.weight"].T + weights["fc.bias"]


class OnnxTest(Case):
    def save(self, proto):
        file = self.scratch / "small.onnx"
        onnx.save(proto, str(file))
        return file

    def test_is_what_the_command_imports(self):
        file = self.save(model()[0])
        network = tercet.from_onnx(file, mean=0.5, std=0.25, bits=7, name="Small")
        command("import", file, "--out", self.scratch / "net.json", "--mean", "0.5", "--std", "0.25", "--bits", "7",
                "--name", "Small")
        self.assertEqual(json.loads(network.architecture), json.loads((self.scratch / "net.json").read_text()))
        images = pictures((1, 6, 6), 9)
        self.assertEqual(network.plain(images).tolist(),
                         report("plain", self.scratch / "net.json", "--model", self.scratch / "net.safetensors",
                                "--images", self.file_of(images))["logits"])

    def test_computes_what_the_model_computes(self):
        proto, weights = model()
        network = tercet.from_onnx(self.save(proto), mean=0.5, std=0.25)
        images = pictures((1, 6, 6), 50)
        expected = logits_of(weights, (images / 255 - 0.5) / 0.25)
        numpy.testing.assert_allclose(network.float_logits(images), expected, rtol=1e-4, atol=1e-4)
        plan = network.compile(images)
        numpy.testing.assert_array_equal(plan.run(images[:4]), plan.plain(images[:4]))

    def test_is_refused_as_by_the_command(self):
        out = ("--out", self.scratch / "net.json")
        file = self.save(model(operator="Sin")[0])
        self.assert_refuses(tercet.ConfigError, refusal("import", file, *out), tercet.from_onnx, file)
        file = self.save(model()[0])
        for name, value in (("bits", 9), ("scale", 0), ("shape", [1, 5, 7]), ("shape", [1, 2]),
                            ("binarise", ["none"])):
            given = ",".join(map(str, value)) if isinstance(value, list) else value
            text = refusal("import", file, *out, f"--{name}={given}")
            with self.subTest(name):
                self.assert_refuses(tercet.ConfigError, text, tercet.from_onnx, file, **{name: value})
        missing = self.scratch / "none.onnx"
        self.assert_refuses(tercet.ConfigError, refusal("import", missing, *out), tercet.from_onnx, missing)


if __name__ == "__main__":
    main()
