# SPDX-License-Identifier: Apache-2.0
"""scripts/compare-frameworks: what other frameworks print comes into the table of `tercet bench`. Their programs are
stood in for by scripts that print in their formats."""
import argparse
import json
import pathlib
import subprocess
import sys
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "scripts/compare-frameworks"

COMPILER = """
import sys
assert sys.argv[1:6] == ["-M", "-R", "64", "-Z", "3"], sys.argv
assert sys.argv[6].endswith("tercet.mpc") and sys.argv[7].endswith("dense.json")
print("Writing to Programs/Bytecode/tercet-x-LTZ(12)_13-1.bc")
print("Writing to Programs/Schedules/tercet-x.sch")
"""
# The time of run 0, which warms up, is another one.
PARTY = """#!/bin/sh
[ "$2 $4 $5" = "-pn -h localhost" ] && [ "$6" = tercet-x ] || exit 9
[ ! -e fails ] || { echo "what(): no peer"; exit 1; }
[ "$1" = 0 ] || exit 0
echo >> runs; n=$(wc -l < runs)
echo "Using statistical security parameter 40"
echo "first logit $(cat logit)"
echo "The following benchmarks are including preprocessing (offline phase)."
echo "Time = 9.5 seconds "
if [ $n = 1 ]; then echo "Time1 = 77 seconds (1 MB)"; else echo "Time1 = 0.0$n seconds (0.8 MB, 40 rounds)"; fi
echo "Data sent = 0.5 MB in ~40 rounds (party 0 only; use '-v' for more details)"
echo "Global data sent = 1.5 MB (all parties)"
"""
HPMPC = """====== Run 1/2 (Iteration 1/1) ======
Running: PARTY=all FUNCTION_IDENTIFIER=74 DATTYPE=32 PROTOCOL=5 NUM_INPUTS=4
P0, PID0: Time measured to perform preprocessing clock: 5.000000s
P0, PID0: Time measured to perform preprocessing chrono: 0.400000s
P1, PID0: Time measured to perform preprocessing chrono: 0.800000s
P0, PID0: Time measured to perform computation chrono: 1.600000s
P1, PID0: Time measured to perform computation chrono: 1.200000s
P2, PID0: Time measured to perform computation chrono: 1.000000s
P0, PRE, PID0: Sending to other players:1.5MB, 0.5MB
P0, PRE, PID0: Receiving from other players:64MB, 64MB
P0, ONLINE, PID0: Sending to other players:2MB, 0MB
P0, ONLINE PID0: Receiving from other players:64MB, 64MB
P1, ONLINE, PID0: Sending to other players:1e+00MB, 1MB
P2, ONLINE, PID0: Sending to other players:1MB, 1MB
====== Run 2/2 (Iteration 1/1) ======
P0, PID0: Time measured to perform computation chrono: 2.000000s
P0, ONLINE, PID0: Sending to other players:4MB, 0MB
P1, ONLINE, PID0: Sending to other players:1MB, 1MB
P2, ONLINE, PID0: Sending to other players:1MB, 1MB
"""


class CompareFrameworks(unittest.TestCase):
    def setUp(self):
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.folder = pathlib.Path(scratch.name)
        (self.folder / "dense.json").write_text(json.dumps({
            "name": "Dense", "input": {"shape": [1, 8, 8], "scale": 255, "bits": 4}, "output": "logits", "layers": [
                {"name": "fc1", "type": "linear", "out_features": 12}, {"name": "bn1", "type": "batch_norm"},
                {"name": "act1", "type": "sign"}, {"name": "fc2", "type": "linear", "out_features": 4},
                {"name": "bn2", "type": "batch_norm"}]}))
        self.config = self.folder / "bench.json"
        self.config.write_text(json.dumps({
            "networks": [{"network": "./dense.json", "model": "random"}], "suites": ["lut"], "batches": [1],
            "transport": "memory", "repetitions": 1, "queries": 2,
            "published": [{"framework": "Paper", "network": "Dense", "lan_s": 3}]}))
        self.checkout = self.folder / "spdz"
        (self.checkout / "Player-Data").mkdir(parents=True)
        for party in range(3):
            for kind in ("pem", "key"):
                (self.checkout / f"Player-Data/P{party}.{kind}").touch()
        (self.checkout / "compile.py").write_text(COMPILER)
        (self.checkout / "replicated-ring-party.x").write_text(PARTY)
        (self.checkout / "replicated-ring-party.x").chmod(0o755)
        (self.checkout / "logit").write_text("13")
        self.out = self.folder / "others/others.json"
        self.out.parent.mkdir()

    def run_script(self, *words):
        result = subprocess.run([sys.executable, SCRIPT, *map(str, words), "--config", self.config, "--out", self.out],
                                capture_output=True, text=True)
        return result.returncode, result.stderr

    def published(self, framework):
        return next(entry for entry in json.loads(self.out.read_text())["published"] if entry["framework"] == framework)

    def test_mp_spdz_in_the_table_of_a_bench_that_is_done(self):
        bench = [BIN / "tercet", "bench", "--out", self.folder / "results", "--no-charts"]
        subprocess.run([*bench, "--config", self.config], check=True, capture_output=True)
        status, err = self.run_script("mp-spdz", self.checkout, "--repetitions", "3")
        self.assertEqual(status, 0, err)
        figures = self.published("MP-SPDZ")
        self.assertAlmostEqual(figures["total_s"], 0.03)
        self.assertAlmostEqual(figures["mb"], 1.5)
        self.assertIn("3 runs on link none, all phases 0.02 to 0.04 s", figures["note"])
        subprocess.run([*bench, "--config", self.out, "--resume"], check=True, capture_output=True)
        table = (self.folder / "results/results.md").read_text()
        self.assertRegex(table, r"\| Dense \| MP-SPDZ \|[ |]* 0\.03 \| 1\.5 \|")
        self.assertIn("| Dense | Paper | 3 |", table)

    def test_links_are_added_one_by_one_and_batches_stand_apart(self):
        self.assertEqual(self.run_script("mp-spdz", self.checkout, "--repetitions", "1")[0], 0)
        self.config = self.out
        self.assertEqual(self.run_script("mp-spdz", self.checkout, "--repetitions", "1", "--link", "wan",
                                         "--batches", "1", "2")[0], 0)
        self.assertAlmostEqual(self.published("MP-SPDZ")["total_s"], 0.02)
        self.assertIn("wan_s", self.published("MP-SPDZ"))
        self.assertAlmostEqual(self.published("MP-SPDZ, batch 2")["mb"], 0.75)
        self.assertNotIn("total_s", self.published("MP-SPDZ, batch 2"))

    def test_hpmpc(self):
        log = self.folder / "run.log"
        log.write_text(HPMPC)
        status, err = self.run_script("hpmpc", log, "--network", "Dense", "--images", "4")
        self.assertEqual(status, 0, err)
        figures = self.published("HPMPC, batch 4")
        self.assertAlmostEqual(figures["online_s"], (0.4 + 0.5) / 2)  # the slowest party's, an image
        self.assertAlmostEqual(figures["total_s"], (0.6 + 0.5) / 2)
        self.assertAlmostEqual(figures["mb"], 2)
        log.write_text(HPMPC.replace("P2, ONLINE", "P2: lost"))
        self.out.unlink()
        self.assertEqual(self.run_script("hpmpc", log, "--network", "Dense", "--images", "4")[0], 0)
        self.assertNotIn("mb", self.published("HPMPC, batch 4"))

    def refuse(self, problem, *words):
        status, err = self.run_script(*words)
        self.assertNotEqual(status, 0)
        self.assertIn(problem, err)
        self.assertFalse(self.out.exists())

    def test_what_does_not_work_is_named(self):
        log = self.folder / "run.log"
        log.write_text("make: *** error\n")
        self.refuse('no line "Time measured to perform computation chrono"', "hpmpc", log, "--network", "Dense", "--images", "1")
        self.refuse("--network: Other found, expected one of Dense", "hpmpc", log, "--network", "Other", "--images", "1")
        self.refuse("0 found, a whole number from 1 on expected", "hpmpc", log, "--network", "Dense", "--images", "0")
        (self.checkout / "logit").write_text("12")
        self.refuse("Dense gives 12, 13 expected", "mp-spdz", self.checkout)
        (self.checkout / "fails").touch()
        self.refuse("ended with status 1: what(): no peer", "mp-spdz", self.checkout)
        (self.checkout / "compile.py").write_text("raise SystemExit('no such layer')")
        self.refuse("Dense does not compile: status 1, no such layer", "mp-spdz", self.checkout)
        (self.checkout / "Player-Data/P2.key").unlink()
        self.refuse("P2.key is missing; Scripts/setup-ssl.sh 3 makes it", "mp-spdz", self.checkout)
        (self.checkout / "replicated-ring-party.x").unlink()
        self.refuse("replicated-ring-party.x is missing; MP-SPDZ's README says how it is built", "mp-spdz", self.checkout)
        self.config.write_text("{}")
        self.refuse("no run file of tercet bench", "mp-spdz", self.checkout)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--bin", type=pathlib.Path, required=True)
    arguments, others = parser.parse_known_args()
    BIN = arguments.bin.resolve()
    unittest.main(argv=[sys.argv[0], *others])
