#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""scripts/plot draws what the programs write. Exit status 77 (skipped) where no Python here has matplotlib."""
import csv
import json
import pathlib
import subprocess
import sys
import tempfile
import unittest
import xml.etree.ElementTree as xml

ROOT = pathlib.Path(__file__).resolve().parents[2]
TABLE = ROOT / "benchmarks/results/sok1.csv"
LOG = ROOT / "nets/logs/cifarnet2.log.json"


def has_matplotlib(python):
    try:
        return subprocess.run([python, "-c", "import matplotlib"], capture_output=True).returncode == 0
    except OSError:
        return False


PYTHON = next((p for p in (sys.executable, "/usr/bin/python3") if has_matplotlib(p)), None)


class PlotTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)

    def plot(self, *arguments):
        return subprocess.run([PYTHON, ROOT / "scripts/plot", *arguments], capture_output=True, text=True)

    def written(self, name, text):
        (self.folder / name).write_text(text)
        return self.folder / name

    def texts(self, name):
        return [e.text for e in xml.parse(self.folder / name).iter("{http://www.w3.org/2000/svg}text")]

    def test_tables_become_bars_of_each_batch_size(self):
        result = self.plot(TABLE, "--out", self.folder)
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertEqual(result.stdout.split(), [str(self.folder / f"sok1-batch{b}.svg") for b in (1, 2048)])
        for name, title in (("sok1-batch1.svg", "Online time of an image, batch 1"),
                            ("sok1-batch2048.svg", "Offline and online time of an image, batch 2048")):
            for text in (title, "time (ms)", "SoK-image", "lan", "lut", "aby3", "auto"):
                self.assertIn(text, self.texts(name))

    def test_json_of_a_table_gives_the_same_picture_as_its_csv(self):
        rows = [{**row, "batch": int(row["batch"])} for row in csv.DictReader(TABLE.open())]
        for row in rows:
            for key in ("online_ms", "total_ms"):
                row[key] = {"min": 0, "median": float(row[key]), "max": 1e9}
        other = self.folder / "json"
        other.mkdir()
        self.plot(TABLE, "--out", self.folder)
        result = self.plot(self.written("sok1.json", json.dumps(rows)), "--out", other)
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertEqual((other / "sok1-batch1.svg").read_text(), (self.folder / "sok1-batch1.svg").read_text())

    def test_results_of_bench_become_all_charts(self):
        def row(network, suite, link, ms, accuracy, runs=1):
            spread = {"min": ms, "median": ms, "max": ms}
            return {"network": network, "suite": suite, "link": link, "batch": 1, "schedule": "in-turn", "hops": 8,
                    "offline_kb": 3.5, "online_kb": 2.5, "online_ms": spread, "total_ms": spread, "accuracy": accuracy,
                    "runs": [{}] * runs}
        rows = [row("A", "lut", "wan", 300, 98.5), row("A", "fss", "wan", 200, 98.5), row("B", "lut", "wan", 10, None),
                row("Failed", "lut", "wan", 0, None, runs=0)]
        result = self.plot(self.written("results.json", json.dumps({"rows": rows})))
        self.assertEqual(result.returncode, 0, result.stderr)
        names = ["results-batch1", "results-bytes-batch1", "results-hops-batch1", "results-accuracy-batch1"]
        self.assertEqual(result.stdout.split(), [str(self.folder / f"{name}.svg") for name in names])
        for name, texts in zip(names, (["time (ms)", "B"], ["kB", "B"], ["hops", "B"], ["accuracy (%)", "kB", "A"])):
            for text in texts + ["lut", "fss"]:
                self.assertIn(text, self.texts(f"{name}.svg"))
            self.assertNotIn("Failed", self.texts(f"{name}.svg"))

    def test_logs_become_curves_beside_them(self):
        log = self.written("some.log.json", LOG.read_text())
        result = self.plot(log)
        self.assertEqual(result.returncode, 0, result.stderr)
        for text in ("cifarnet2", "loss", "accuracy (%)", "training", "held out", "epoch"):
            self.assertIn(text, self.texts("some.log.svg"))

    def test_errors_name_file_and_problem(self):
        for name, text, problem in (
                ("syntax.json", "{", "Expecting property name"),
                ("other.json", '{"layers": []}', "'epochs' is missing"),
                ("early.json", '{"options": {"out": "x"}, "epochs": []}', "no epoch in it yet"),
                ("other.csv", "a,b\n1,2\n", "'batch' is missing"),
                ("empty.csv", "network,batch\n", "no row in it"),
                ("number.csv", "network,suite,link,batch,online_ms\nn,s,l,1,fast\n", "'fast'")):
            with self.subTest(name):
                result = self.plot(self.written(name, text))
                self.assertEqual(result.returncode, 1)
                self.assertIn(f"scripts/plot: {self.folder / name}: ", result.stderr)
                self.assertIn(problem, result.stderr)
                self.assertNotIn("Traceback", result.stderr)
        self.assertIn("No such file", self.plot(self.folder / "absent.csv").stderr)
        self.assertEqual(self.plot(TABLE, "--out", TABLE).returncode, 2)


if __name__ == "__main__":
    if PYTHON is None:
        print("skipped: no Python with matplotlib")
        sys.exit(77)
    unittest.main()
