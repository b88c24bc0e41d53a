# SPDX-License-Identifier: Apache-2.0
"""Shipped networks in Python compute what the commands compute."""
import json
import warnings

import numpy

import tercet
from package import NETS, Case, main, pictures, refusal, report
from package import tercet as command


def load(name, compiled=False):
    return tercet.load(NETS / f"{name}.json", NETS / f"{name}{'.compiled' if compiled else ''}.safetensors")


class NetworkTest(Case):
    def test_says_what_it_is(self):
        network = load("mnistnet1")
        self.assertEqual((network.name, network.input_shape, network.classes), ("MnistNet1", (1, 28, 28), 10))
        self.assertEqual(network.architecture, (NETS / "mnistnet1.json").read_text())
        self.assertIn("MnistNet1", repr(network))

    def test_plain_logits_are_those_of_the_command(self):
        for name in ("mnistnet1", "mnistnet4", "lenet", "arrhythmia"):
            network = load(name)
            images = pictures(network.input_shape, 40)
            for weights in (NETS / f"{name}.safetensors", NETS / f"{name}.compiled.safetensors"):
                with self.subTest(weights.name):
                    with warnings.catch_warnings():
                        warnings.simplefilter("ignore", tercet.TercetWarning)
                        logits = tercet.load(NETS / f"{name}.json", weights).plain(images)
                    expected = report("plain", NETS / f"{name}.json", "--model", weights, "--images",
                                      self.file_of(images))["logits"]
                    self.assertEqual(logits.dtype, numpy.int64)
                    self.assertEqual(logits.tolist(), expected)

    def test_files_in_place_of_arrays(self):
        network = load("mnistnet1")
        images = pictures(network.input_shape, 30)
        labels = network.float_logits(images).argmax(1)
        files = self.file_of(images), str(self.file_of(labels, "labels.npy"))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", tercet.TercetWarning)
            plan = network.compile(*files, accept_loss=True)
            self.assertEqual(plan.report, network.compile(images, labels, accept_loss=True).report)
        numpy.testing.assert_array_equal(plan.plain(files[0]), plan.plain(images))
        numpy.testing.assert_array_equal(plan.run(files[0]), plan.plain(images))
        few = self.file_of(labels[:3], "few.npy")
        self.assert_refuses(tercet.ConfigError, f"{few}: 3 labels found, 30 expected, one for each image",
                            network.compile, images, few)
        missing = self.scratch / "missing"
        self.assert_refuses(tercet.ConfigError, f"{missing}: cannot be read: No such file or directory",
                            network.plain, missing)

    def test_float_logits_predict_what_the_command_counts(self):
        network = load("lenet")
        images = pictures(network.input_shape, 300)
        logits = network.float_logits(images)
        self.assertEqual((logits.shape, logits.dtype), ((300, 10), numpy.float32))
        same = int((logits.argmax(1) == network.plain(images).argmax(1)).sum())
        self.assertEqual(same, report("plain", NETS / "lenet.json", "--model", NETS / "lenet.safetensors", "--images",
                                      self.file_of(images))["same_as_float"])

    def test_compiles_to_what_the_command_compiles_to(self):
        network = load("mnistnet1")
        images = pictures(network.input_shape, 200)
        labels = network.float_logits(images).argmax(1).astype(numpy.uint8)
        settings = {"max_noise": 20, "max_bits": 20, "output": "class", "accept_loss": True}
        options = ["--max-noise", 20, "--max-bits", 20, "--output", "class", "--accept-loss"]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", tercet.TercetWarning)
            plan = network.compile(images, labels, **settings)
        plan.save(self.scratch / "python.safetensors")
        command("compile", NETS / "mnistnet1.json", "--model", NETS / "mnistnet1.safetensors", "--images",
                self.file_of(images), "--labels", self.file_of(labels, "labels.npy"), "--out",
                self.scratch / "command.safetensors", *options)
        self.assertEqual((self.scratch / "python.safetensors").read_bytes(),
                         (self.scratch / "command.safetensors").read_bytes())
        self.assertTrue(plan.only_class)
        self.assertEqual(plan.report["images"], 200)
        self.assertEqual(plan.report["float_accuracy"], 100)
        self.assertTrue(plan.report["lines"])

    def test_saves_what_the_commands_read(self):
        network = load("mnistnet1")
        network.save(self.scratch / "net.json", self.scratch / "net.safetensors")
        images = pictures(network.input_shape, 5)
        self.assertEqual(report("plain", self.scratch / "net.json", "--model", self.scratch / "net.safetensors",
                                "--images", self.file_of(images))["logits"], network.plain(images).tolist())
        self.assertEqual((self.scratch / "net.safetensors").stat().st_mode & 0o777, 0o600)

    def test_warns_as_the_command_does(self):
        with self.assertWarnsRegex(tercet.TercetWarning, "the weights are RANDOM"):
            plan = tercet.load(NETS / "mnistnet1.json", "random:3").compile()
        self.assertIn("RANDOM (seed 3)", plan.warnings[0])

    def test_takes_other_arrays_that_say_the_same(self):
        plan = load("mnistnet1", compiled=True).compile()
        images = pictures((1, 28, 28), 6)
        expected = plan.plain(images).tolist()
        self.assertEqual(plan.plain(images[:, 0]).tolist(), expected)  # N x H x W of one channel
        self.assertEqual(plan.plain(images[::-1])[::-1].tolist(), expected)

    def test_floats_are_what_they_are_in_files(self):
        architecture = json.loads((NETS / "mnistnet1.json").read_text())
        model = NETS / "mnistnet1.safetensors"
        for scale in (255, 100):
            architecture["input"]["scale"] = scale
            file = self.scratch / f"{scale}.json"
            file.write_text(json.dumps(architecture))
            pixels = pictures((1, 28, 28), 20)
            images = (pixels / scale).astype(numpy.float32)
            with self.subTest(scale), warnings.catch_warnings():
                warnings.simplefilter("ignore", tercet.TercetWarning)
                logits = tercet.load(file, model).plain(images).tolist()
                self.assertEqual(logits, tercet.load(file, model).plain(pixels).tolist())
                self.assertEqual(logits, report("plain", file, "--model", model, "--images",
                                                self.file_of(images))["logits"])


class RefusalTest(Case):
    def test_arrays_are_refused_as_the_command_refuses_files(self):
        plan = load("mnistnet1", compiled=True).compile()
        for images in (pictures((1, 28, 27), 2), pictures((3, 28, 28), 2), pictures((28,), 28),
                       numpy.zeros((0, 1, 28, 28), numpy.uint8), numpy.zeros((2, 1, 28, 28), numpy.complex64)):
            with self.subTest(f"{images.dtype} {images.shape}"):
                file = self.file_of(images)
                text = refusal("plain", NETS / "mnistnet1.json", "--model", NETS / "mnistnet1.compiled.safetensors",
                               "--images", file).replace(str(file), "images")
                self.assert_refuses(tercet.ConfigError, text, plan.plain, images)

    def test_what_is_no_array_is_refused(self):
        plan = load("mnistnet1", compiled=True).compile()
        self.assert_refuses(tercet.ConfigError, "images: found list, expected an array of numbers", plan.plain,
                            [object()])

    def test_labels_are_refused(self):
        network = load("mnistnet1")
        images = pictures((1, 28, 28), 3)
        self.assert_refuses(tercet.ConfigError, "labels: 2 labels found, 3 expected, one for each image",
                            network.compile, images, numpy.zeros(2, numpy.uint8))
        self.assert_refuses(tercet.ConfigError, "labels: found, but no images", network.compile, None,
                            numpy.zeros(2, numpy.uint8))
        with self.assertRaisesRegex(tercet.ConfigError, "^labels.* 10"):
            network.compile(images, numpy.array([0, 1, 10]))

    def test_files_are_refused_as_by_the_command(self):
        model = NETS / "mnistnet1.safetensors"
        for architecture, weights in ((NETS / "none.json", model), (NETS / "lenet.json", model),
                                      (NETS / "mnistnet1.json", NETS / "none.safetensors"),
                                      (NETS / "mnistnet1.json", "random:x"),
                                      (NETS / "lenet.json", NETS / "mnistnet1.compiled.safetensors")):
            with self.subTest(f"{architecture} {weights}"):
                text = refusal("plain", architecture, "--model", weights, "--images",
                               self.file_of(pictures((1, 28, 28), 1)))
                self.assert_refuses(tercet.ConfigError, text, tercet.load, architecture, weights)

    def test_a_compiled_network_is_not_compiled_again(self):
        network = load("mnistnet1", compiled=True)
        text = f"--model: {NETS / 'mnistnet1.compiled.safetensors'} is compiled already; float weights expected"
        self.assert_refuses(tercet.ConfigError, text, network.compile, max_bits=20)
        self.assert_refuses(tercet.ConfigError, text, network.compile, pictures((1, 28, 28), 3))
        self.assert_refuses(tercet.ConfigError, text, network.float_logits, pictures((1, 28, 28), 3))

    def test_errors_have_one_base(self):
        for kind in (tercet.ConfigError, tercet.UnsupportedError, tercet.ProtocolError, tercet.NetworkError,
                     tercet.ServiceError):
            self.assertTrue(issubclass(kind, tercet.Error))
        self.assertEqual(repr(tercet.ConfigError), "<class 'tercet.ConfigError'>")


if __name__ == "__main__":
    main()
