# SPDX-License-Identifier: Apache-2.0
"""pyproject.toml says what the build has: its options, its versions, its component. (Whether pip makes a wheel of it takes
scikit-build-core, which Debian 12 does not have.)

project_test.py --source DIRECTORY
"""
import argparse
import re
import sys
from pathlib import Path

try:
    import tomllib
except ImportError:
    print("skipped: Python 3.11 or newer is needed")
    sys.exit(77)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--source", type=Path, required=True)
    source = parser.parse_args().source
    project = tomllib.loads((source / "pyproject.toml").read_text())
    top, package = [(source / name).read_text() for name in ("CMakeLists.txt", "src/python/CMakeLists.txt")]
    settings = project["tool"]["scikit-build"]

    known = set(re.findall(r"^\s*option\((\w+)", top + package, re.M)) | set(re.findall(r"set\((\w+) .* CACHE ", top + package))
    defined = set(settings["cmake"]["define"])
    assert defined and defined <= known, defined - known
    assert project["project"]["version"] == re.search(r"project\(tercet VERSION ([\d.]+)", top)[1]
    assert settings["cmake"]["version"] == ">=" + re.search(r"cmake_minimum_required\(VERSION ([\d.]+)\)", top)[1]
    for component in settings["install"]["components"]:
        assert f"COMPONENT {component}" in package, component
    # The programs that the package starts come with it.
    assert re.search(r"tercet_cli tercet_party_cli .*SKBUILD_SCRIPTS_DIR", package)


if __name__ == "__main__":
    main()
