# SPDX-License-Identifier: Apache-2.0
"""Costs are the table of `tercet plan --csv`, with pandas and without."""
import csv
import subprocess
import sys

import tercet
from package import NETS, Case, main
from package import tercet as command

NO_PANDAS = """
import sys
sys.modules["pandas"] = None  # as if it were not installed
import tercet
plan = tercet.load({json!r}, {model!r}).compile()
rows = plan.costs("lut")
assert isinstance(rows, list) and rows[-1]["layer"] == "total", rows
assert isinstance(rows[-1]["hops"], int) and isinstance(rows[-1]["online_s"], float), rows[-1]
assert rows[-1]["width"] is None, rows[-1]
assert plan.widths[0]["proven"] is True, plan.widths
"""


def load(name):
    return tercet.load(NETS / f"{name}.json", NETS / f"{name}.compiled.safetensors").compile()


class PlanTest(Case):
    def expected(self, name, *options):
        file = self.scratch / "plan.csv"
        command("plan", NETS / f"{name}.json", "--model", NETS / f"{name}.compiled.safetensors", "--csv", file,
                *options)
        with open(file, newline="") as lines:
            return list(csv.DictReader(lines))

    def assert_same(self, table, expected):
        rows = table if isinstance(table, list) else table.to_dict("records")
        self.assertEqual(len(rows), len(expected))
        for row, line in zip(rows, expected):
            self.assertEqual(list(row), list(line))
            for key, text in line.items():
                cell = row[key]
                if text == "":
                    self.assertTrue(cell is None or cell != cell, (key, cell))  # NaN in pandas
                elif isinstance(cell, str):
                    self.assertEqual(cell, text)
                else:
                    self.assertEqual(cell, float(text), key)

    def test_the_table_is_that_of_the_command(self):
        plan = load("mnistnet3")
        self.assert_same(plan.costs(suite="auto", link="wan"),
                         self.expected("mnistnet3", "--suite", "auto", "--link", "wan"))
        self.assert_same(plan.costs(), self.expected("mnistnet3"))
        self.assert_same(plan.costs(["lut", "fss:fuse=yes"], ["lan", "rtt_ms=40,mbit=80"], [1, 16], linear="replicated",
                                    optimise="bytes", helper=2),
                         self.expected("mnistnet3", "--suite", "lut;fss:fuse=yes", "--link", "lan;rtt_ms=40,mbit=80",
                                       "--batch", "1,16", "--linear", "replicated", "--optimise", "bytes", "--helper",
                                       "2"))

    def test_a_suite_that_cannot_do_it_is_a_row(self):
        table = load("mnistnet3-relu").costs(["cbnn", "lut"])
        self.assert_same(table, self.expected("mnistnet3-relu", "--suite", "cbnn,lut"))

    def test_widths(self):
        plan = load("mnistnet1")
        rows = plan.widths if isinstance(plan.widths, list) else plan.widths.to_dict("records")
        said = [line for line in self.expected("mnistnet1", "--suite", "lut") if line["width"]]
        self.assertEqual([(row["layer"], row["bits"]) for row in rows],
                         [(line["layer"], int(line["width"])) for line in said])
        self.assertTrue(all(row["proven"] for row in rows))

    def test_without_pandas(self):
        code = NO_PANDAS.format(json=str(NETS / "mnistnet1.json"), model=str(NETS / "mnistnet1.compiled.safetensors"))
        subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


if __name__ == "__main__":
    main()
