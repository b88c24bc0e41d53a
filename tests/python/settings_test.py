# SPDX-License-Identifier: Apache-2.0
"""The package has the settings of the commands: their names, their defaults, and what they refuse."""
import inspect
import re
import subprocess

import tercet
from package import BIN, NETS, Case, main, pictures, refusal

MODEL = NETS / "mnistnet1.safetensors"
COMPILED = NETS / "mnistnet1.compiled.safetensors"
# Options of the commands that are no settings of a function: files, and what is only printed.
FILES = {"model", "images", "labels", "out", "limit", "json", "csv", "help", "weights", "calibrate-images",
         "calibrate-labels", "deployment"}
# What numpy does itself.
DATA = {"values", "layout", "transpose", "cifar100", "first-label", "label-column", "csv-header"}
NOT_HERE = {"compile": set(), "plan": {"bits", "summary", "accept-loss"},
            "run": {"show", "accept-loss", "queries", "material-out", "material", "material-moved", "shard", "resume"},
            "import": set(), "predict": set()}
FUNCTIONS = {"compile": [tercet.Network.compile], "plan": [tercet.Plan.costs], "run": [tercet.Plan.run],
             "import": [tercet.from_onnx, tercet.from_torch],
             "predict": [tercet.Client.predict, tercet.Client.logits]}


def options(command):
    """{name: default or None} of a command, as its help says."""
    text = subprocess.run([str(BIN / "tercet"), command, "--help"], capture_output=True, text=True, check=True).stdout
    found = {}
    for match in re.finditer(r"^ +(?:-\w,)?--([\w-]+)(.*)$", text, re.M):
        default = re.match(r" \S*=([^\s=]+)", match[2])  # of --link the values have "=" too
        found[match[1]] = default[1] if default else None
    return found


def settings(function):
    return {name.replace("_", "-"): parameter.default for name, parameter in
            inspect.signature(function).parameters.items()
            if name not in ("self", "images", "labels", "module", "example", "model")}


class SettingsTest(Case):
    def test_names_are_those_of_the_commands(self):
        for command, functions in FUNCTIONS.items():
            for function in functions:
                with self.subTest(function.__qualname__):
                    expected = set(options(command)) - FILES - DATA - NOT_HERE[command]
                    if command == "run":
                        expected = expected - {"no-check"} | {"check"}
                    if command == "predict":
                        expected -= {"token-file", "certificate", "key"}
                    self.assertEqual(set(settings(function)), expected)

    def test_defaults_are_those_of_the_commands(self):
        for command, functions in FUNCTIONS.items():
            said = options(command)
            for function in functions:
                for name, default in settings(function).items():
                    if name not in said or said[name] is None or (command, name) == ("run", "transport"):
                        continue
                    with self.subTest(f"{function.__qualname__} {name}"):
                        if isinstance(default, (int, float)) and not isinstance(default, bool):
                            self.assertEqual(float(said[name]), default)
                        else:
                            self.assertEqual(said[name], str(default))

    def test_enough_of_the_defaults_were_compared(self):
        said = {command: options(command) for command in FUNCTIONS}
        self.assertEqual(said["compile"]["max-loss"], "0.1")
        self.assertEqual(said["run"]["batch"], "128")
        self.assertEqual(said["plan"]["link"], "none")
        self.assertEqual(said["import"]["scale"], "255")
        self.assertEqual(said["predict"]["tries"], "8")

    def test_values_are_refused_with_the_same_words(self):
        network = tercet.load(NETS / "mnistnet1.json", MODEL)
        plan = tercet.load(NETS / "mnistnet1.json", COMPILED).compile()
        images = pictures((1, 28, 28), 2)
        compiling = ("compile", NETS / "mnistnet1.json", "--model", MODEL, "--out", self.scratch / "out")
        planning = ("plan", NETS / "mnistnet1.json", "--model", COMPILED)
        running = ("run", NETS / "mnistnet1.json", "--model", COMPILED, "--images", self.file_of(images))
        for line, function, name, value in (
                (compiling, network.compile, "max_bits", 40), (compiling, network.compile, "max_bits", "many"),
                (compiling, network.compile, "max_loss", float("nan")), (compiling, network.compile, "widths", "wide"),
                (compiling, network.compile, "output", ""),
                (planning, plan.costs, "suite", "luk"), (planning, plan.costs, "link", "moon"),
                (planning, plan.costs, "batch", 0), (planning, plan.costs, "batch", [1, 5000]),
                (planning, plan.costs, "helper", 3), (planning, plan.costs, "linear", "curved"),
                (planning, plan.costs, "measured", [MODEL]),
                (running, lambda **s: plan.run(images, **s), "suite", "lut:nothing=1"),
                (running, lambda **s: plan.run(images, **s), "suite", "auto:x=1"),
                (running, lambda **s: plan.run(images, **s), "transport", "pigeon"),
                (running, lambda **s: plan.run(images, **s), "in_flight", 0),
                (running, lambda **s: plan.run(images, **s), "link", "rtt_ms=-1,mbit=2")):
            with self.subTest(f"{name}={value}"):
                given = ",".join(map(str, value)) if isinstance(value, list) else value
                text = refusal(*line, f"--{name.replace('_', '-')}={given}")
                with self.assertRaises(tercet.Error) as caught:
                    function(**{name: value})
                self.assertEqual(str(caught.exception), text)
                self.assertIsInstance(caught.exception, (tercet.ConfigError, tercet.UnsupportedError))

    def test_settings_that_exclude_each_other(self):
        plan = tercet.load(NETS / "mnistnet1.json", COMPILED).compile()
        images = pictures((1, 28, 28), 2)
        text = refusal("run", NETS / "mnistnet1.json", "--model", COMPILED, "--images", self.file_of(images),
                       "--helper-leaves", "--rotate-helper")
        self.assert_refuses(tercet.ConfigError, text, plan.run, images, helper_leaves=True, rotate_helper=True)

    def test_a_name_that_no_setting_has(self):
        plan = tercet.load(NETS / "mnistnet1.json", COMPILED).compile()
        with self.assertRaisesRegex(TypeError, "bach"):
            plan.run(pictures((1, 28, 28), 2), bach=2)
        with self.assertRaisesRegex(TypeError, "bach"):
            plan.measure(pictures((1, 28, 28), 2), bach=2)


if __name__ == "__main__":
    main()
