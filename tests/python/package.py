# SPDX-License-Identifier: Apache-2.0
"""What the tests of the Python package share: the programs, the shipped networks, images, and how a test starts.

Each test is a program: NAME_test.py --bin DIRECTORY [unittest's options], with the package on PYTHONPATH.
"""
import json
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

import numpy

ROOT = Path(__file__).resolve().parents[2]
NETS = ROOT / "nets"
SKIPPED = 77
BIN = Path(sys.argv[sys.argv.index("--bin") + 1]).resolve() if "--bin" in sys.argv else Path()


def tercet(*arguments, code=0):
    """What the command says on stderr."""
    done = subprocess.run([str(BIN / "tercet"), *map(str, arguments)], capture_output=True, text=True, timeout=120)
    assert done.returncode == code, (arguments, done.returncode, done.stderr)
    return done.stderr


def refusal(*arguments):
    """Why the command refuses its arguments."""
    text = tercet(*arguments, code=2)
    return text.split("tercet: error: ")[-1].rstrip("\n")


def report(*arguments):
    """The JSON that a command writes."""
    with tempfile.TemporaryDirectory() as name:
        file = Path(name) / "report.json"
        tercet(*arguments, "--json", file)
        return json.loads(file.read_text())


def pictures(shape, count, seed=1):
    return numpy.random.default_rng(seed).integers(0, 256, (count, *shape), numpy.uint8)


class Case(unittest.TestCase):
    def setUp(self):
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.scratch = Path(scratch.name)

    def file_of(self, images, name="images.npy"):
        file = self.scratch / name
        numpy.save(file, images)
        return file

    def assert_refuses(self, kind, text, function, *arguments, **settings):
        """`function` raises just this."""
        with self.assertRaises(kind) as caught:
            function(*arguments, **settings)
        self.assertIs(type(caught.exception), kind)
        self.assertEqual(str(caught.exception), text)


def main():
    if "--bin" in sys.argv:
        at = sys.argv.index("--bin")
        del sys.argv[at:at + 2]
    unittest.main(module="__main__", verbosity=2)


def need(*modules):
    """Ends the test as skipped where one of them is not installed."""
    for module in modules:
        try:
            __import__(module)
        except ImportError:
            print(f"skipped: no module {module}")
            sys.exit(SKIPPED)
