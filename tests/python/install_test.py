# SPDX-License-Identifier: Apache-2.0
"""The package as it is installed: on PYTHONPATH, with its example, its types, and the program beside it.

install_test.py --prefix PREFIX --package DIRECTORY
"""
import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "three_parties.py"
CODE = """
import sys
from pathlib import Path
import numpy, tercet
package, nets, images = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
assert Path(tercet.__file__).resolve().parent == (package / "tercet").resolve(), tercet.__file__
assert (package / "tercet" / "py.typed").is_file() and (package / "tercet" / "_tercet.pyi").is_file()
plan = tercet.load(nets / "mnistnet1.json", nets / "mnistnet1.compiled.safetensors").compile()
images = numpy.load(images)
expected = plan.plain(images)
assert (plan.run(images, transport="tls") == expected).all()
print(*expected.argmax(axis=1))
"""


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--prefix", type=Path, required=True)
    parser.add_argument("--package", type=Path, required=True)
    arguments = parser.parse_args()
    arguments.prefix, arguments.package = arguments.prefix.resolve(), arguments.package.resolve()
    nets = arguments.prefix / "share" / "tercet" / "nets"
    environment = {"PYTHONPATH": str(arguments.package), "PATH": os.environ["PATH"]}
    with tempfile.TemporaryDirectory() as scratch:
        def run(*command):
            return subprocess.run([sys.executable, *map(str, command)], env=environment, cwd=scratch, check=True,
                                  stdout=subprocess.PIPE, text=True, timeout=120).stdout

        images = Path(scratch) / "images.npy"
        run("-c", "import numpy, sys; numpy.save(sys.argv[1], numpy.random.default_rng(1)"
            ".integers(0, 256, (20, 1, 28, 28), numpy.uint8))", images)
        expected = run("-c", CODE, arguments.package, nets, images)
        assert len(expected.split()) == 20, expected
        said = run(EXAMPLE, nets / "mnistnet1.json", nets / "mnistnet1.compiled.safetensors", images)
        assert said == expected, (said, expected)


if __name__ == "__main__":
    main()
