#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Types what a newcomer reads first, in its order, in a copy of the tracked files: README's demo, what the demo
says to try next, the build and tests of CONTRIBUTING, and the commands of nets/README.md.

  first_hour.py SOURCE SCRATCH    builds in SCRATCH, which is made anew

Of the tests only those labelled `unit` are run: this is one test of the others. TERCET_MNIST names the folder with
MNIST's four files (default: data/mnist of SOURCE); where they are not, what needs them is left out, and the test
counts as skipped. README's section on the service is typed by tests/serve/readme_test.py, since servers do not end
by themselves.
"""
import os
import pathlib
import re
import shutil
import sys

from shell import Shell, copy_tree

SKIPPED = 77


def code(page, heading):
    """The lines of the indented code below a heading, continued ones joined."""
    section = re.search(rf"^## {heading}\n(.*?)(?=^## |\Z)", page.read_text(encoding="utf-8"), re.M | re.S)[1]
    lines = "\n".join(line[4:] for line in section.splitlines() if line.startswith("    "))
    return lines.replace("\\\n", " ").splitlines()


def expect(shell, commands, *patterns):
    print(f"\n$ {commands}", flush=True)
    status, said = shell.type(commands)
    missing = [pattern for pattern in patterns if not re.search(pattern, said)]
    if status != 0 or missing:
        sys.exit(f"{commands}: exit status {status}; not said: {missing}")
    return said


def one(lines, start):
    """The only line that starts so."""
    found = [line for line in lines if line.startswith(start)]
    if len(found) != 1:
        sys.exit(f"expected one command that starts with '{start}', found {found}")
    return found[0]


def main():
    source, scratch = (pathlib.Path(argument).resolve() for argument in sys.argv[1:])
    mnist = pathlib.Path(os.environ.get("TERCET_MNIST", source / "data" / "mnist")).resolve()
    copy_tree(source, scratch)
    shell = Shell(scratch)

    said = expect(shell, one(code(scratch / "README.md", "Two commands"), "scripts/demo"), "mnistnet3", "what to try next")
    for command in re.findall(r"^  (export PATH.*|tercet .*)$", said.split("what to try next")[1], re.M):
        expect(shell, command)

    by_hand = one(code(scratch / "CONTRIBUTING.md", "Build and test"), "cmake --preset release")
    if not by_hand.endswith("ctest --preset release"):
        sys.exit(f"CONTRIBUTING's line by hand ends otherwise: {by_hand}")
    expect(shell, by_hand + " -L unit", "100% tests passed")

    if not (mnist / "t10k-images-idx3-ubyte.gz").is_file():
        print(f"no MNIST images in {mnist}: nets/README.md is not typed")
        sys.exit(SKIPPED)
    expect(shell, f"scripts/get-mnist --url file://{mnist}")
    *settings, plain, run, plan = code(scratch / "nets" / "README.md", "Use one")
    for setting in settings:
        expect(shell, setting)
    expect(shell, plain, r"99\.12 %")
    expect(shell, run, "1000")
    expect(shell, plan, "hops")
    compile_line = one(code(scratch / "nets" / "README.md", "Make one"), "tercet compile")
    for name, value in {"NAME": "nets/mnistnet1", "IMAGES": "data/mnist/t10k-images-idx3-ubyte.gz"}.items():
        compile_line = compile_line.replace(name, value)
    expect(shell, compile_line.replace("--out nets/", "--out "), "written")
    shutil.rmtree(scratch)


if __name__ == "__main__":
    main()
