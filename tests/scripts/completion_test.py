#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Whatever --help names, shells complete and man pages have: `completion_test.py --bin build/release/bin`."""
import argparse
import functools
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
BIN = None


def run(*command, **more):
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120, **more).stdout


@functools.cache
def script(program, shell):
    return run(BIN / program, "completion", shell)


@functools.cache
def help_of(*command):
    """The commands and the options that `command --help` names; of those with a list of values, the values."""
    text = run(BIN / command[0], *command[1:], "--help")
    section = re.search(r"^Subcommands:\n(.*?)\n\n", text, re.M | re.S)
    commands = re.findall(r"^  (\S+)", section[1], re.M) if section else []
    options, values = [], {}
    for names, listed, few in re.findall(r"^  (-\S+)(?: TEXT:\{(\S+)\}| (\d(?:\|\d)+))?", text, re.M):
        options += names.split(",")
        if listed or few:
            values[names] = re.split(r"[,|]", listed or few)
    return commands, options, values


def all_commands():
    for program in ("tercet", "tercet-party"):
        yield (program,)
        for command in help_of(program)[0]:
            yield (program, command)


class CompletionTest(unittest.TestCase):
    def bash(self, *words):
        """What bash offers in place of the last word."""
        function = "_" + words[0].replace("-", "_")
        ask = f'COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); {function}; printf "%s\\n" "${{COMPREPLY[@]}}"'
        text = run("bash", "--norc", "-c", script(words[0], "bash") + ask, "bash", *words)
        return text.split()

    def fish(self, *words):
        ask = script(words[0], "fish") + "complete -C \"$argv\""
        with tempfile.TemporaryDirectory() as home:
            text = run("fish", "--no-config", "-c", ask, " ".join(words), env={"HOME": home, "PATH": "/usr/bin:/bin"})
        return [line.split("\t")[0] for line in text.splitlines()]

    def test_help_names_what_this_test_looks_for(self):
        self.assertIn("run", help_of("tercet")[0])
        self.assertEqual(help_of("tercet-party")[0], ["serve", "token", "bench", "completion"])
        _, options, values = help_of("tercet", "run")
        self.assertIn("--material-out", options)
        self.assertEqual(values["--transport"], ["tls", "tcp-insecure", "memory"])
        self.assertEqual(values["--helper"], ["0", "1", "2"])

    def test_no_help_has_control_bytes_or_the_example_of_another_command(self):
        for command in all_commands():
            text = run(BIN / command[0], *command[1:], "--help")
            self.assertNotRegex(text, r"[^\n\x20-\x7e]", command)
            if command[1:] not in ((), ("run",)):
                self.assertNotRegex(text, r"\n  tercet run ", command)

    def test_bash_has_every_command_option_and_listed_value(self):
        for command in all_commands():
            commands, options, values = help_of(*command)
            self.assertCountEqual([w for w in self.bash(*command, "-")], options, command)
            if commands:
                self.assertLessEqual(set(commands), set(self.bash(*command, "")))
            for option, listed in values.items():
                self.assertEqual(self.bash(*command, option, ""), listed, (command, option))
        # Names among values of which there are more.
        for command, suite, link in [("run", "--suite", "--link"), ("plan", "--suite", "--link"),
                                     ("bench", "--suites", "--links")]:
            self.assertEqual(self.bash("tercet", command, suite, ""), ["aby3", "cbnn", "fss", "lut", "auto"])
            self.assertEqual(self.bash("tercet", command, link, ""), ["none", "lan", "wan"])
            self.assertEqual(self.bash("tercet", command, link, "w"), ["wan"])

    def test_bash_completes_beginnings(self):
        self.assertEqual(self.bash("tercet", "pl"), ["plan", "plain"])
        self.assertEqual(self.bash("tercet", "run", "net.json", "--transpor"), ["--transport"])
        self.assertEqual(self.bash("tercet", "run", "net.json", "--transport", "t"), ["tls", "tcp-insecure"])
        # Bash takes `=` for a word.
        self.assertEqual(self.bash("tercet", "run", "--transport", "=", "m"), ["memory"])
        self.assertEqual(self.bash("tercet", "run", "--transport", "="), ["tls", "tcp-insecure", "memory"])
        self.assertEqual(self.bash("tercet", "completion", "b"), ["bash"])
        self.assertEqual(self.bash("tercet-party", "--id", "0", "--testb"), ["--testbed"])
        self.assertEqual(self.bash("tercet-party", "to"), ["token"])

    def test_bash_leaves_files_to_itself(self):
        for words in (("tercet", "run", "ne"), ("tercet", "run", "--images", ""), ("tercet-party", "--testbed", "")):
            self.assertEqual(self.bash(*words), [], words)
            self.assertIn("complete -o default", script(words[0], "bash"))

    def test_programs_refuse_shells_that_they_do_not_know(self):
        result = subprocess.run([BIN / "tercet", "completion", "tcsh"], capture_output=True, text=True)
        self.assertEqual(result.returncode, 2)
        self.assertIn("tcsh not in {bash,zsh,fish}", result.stderr)

    @unittest.skipUnless(shutil.which("fish"), "no fish here")
    def test_fish(self):
        for command in all_commands():
            commands, options, _ = help_of(*command)
            offered = self.fish(*command, "-") + self.fish(*command, "--")
            self.assertLessEqual(set(options), set(offered), command)
            if commands:
                self.assertLessEqual(set(commands), set(self.fish(*command, "")))
        self.assertCountEqual(self.fish("tercet", "run", "--transport", "t"), ["tls", "tcp-insecure"])
        self.assertEqual(self.fish("tercet", "completion", "f"), ["fish"])

    @unittest.skipUnless(shutil.which("zsh"), "no zsh here")
    def test_zsh(self):
        for program in ("tercet", "tercet-party"):
            load = "autoload -Uz compinit && compinit -u -D\n" + script(program, "zsh")
            self.assertIn("_bash_complete", run("zsh", "-f", "-c", f"{load}print $_comps[{program}]"))

    @unittest.skipUnless(shutil.which("help2man"), "no help2man here")
    def test_man_pages_have_every_command_and_option(self):
        with tempfile.TemporaryDirectory() as folder:
            run(ROOT / "scripts/man-pages", BIN, pathlib.Path(folder) / "man1")
            for command in all_commands():
                commands, options, _ = help_of(*command)
                page = (pathlib.Path(folder) / "man1" / ("-".join(command) + ".1")).read_text().replace("\\-", "-")
                for word in commands + options:
                    self.assertIn(word, page, command)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--bin", type=pathlib.Path, required=True)
    arguments, others = parser.parse_known_args()
    BIN = arguments.bin.resolve()
    unittest.main(argv=[sys.argv[0], *others])
