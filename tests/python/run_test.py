# SPDX-License-Identifier: Apache-2.0
"""Runs of three parties give the plain logits, as threads and as processes, and can be interrupted."""
import signal
import subprocess
import sys
import threading
import time
import unittest
import warnings
from pathlib import Path

import numpy

import tercet
from package import NETS, Case, main, pictures, report

RUN_LONG = """
import sys
sys.path.insert(0, {tests!r})
import tercet
from package import NETS, pictures
plan = tercet.load(NETS / "mnistnet3.json", NETS / "mnistnet3.compiled.safetensors").compile()
images = pictures((1, 28, 28), 400)
print("ready", flush=True)
try:
    plan.run(images, batch=1, link="rtt_ms=200,mbit=1", transport={transport!r}, check=False)
except KeyboardInterrupt:
    print("interrupted", flush=True)
    assert plan.run(images[:2]).tolist() == plan.plain(images[:2]).tolist()  # and works on
    print("works on", flush=True)
"""

def load(name):
    return tercet.load(NETS / f"{name}.json", NETS / f"{name}.compiled.safetensors").compile()

class RunTest(Case):
    def test_every_suite_gives_the_plain_logits(self):
        for name in ("mnistnet1", "mnistnet3-relu", "lenet"):
            plan = load(name)
            images = pictures(plan.network.input_shape, 5)
            expected = plan.plain(images)
            for suite in ("lut", "fss", "aby3", "auto"):
                with self.subTest(f"{name} {suite}"):
                    logits = plan.run(images, suite=suite, batch=3)
                    self.assertEqual(logits.dtype, numpy.int64)
                    numpy.testing.assert_array_equal(logits, expected)

    def test_settings_reach_the_parties(self):
        plan = load("mnistnet1")
        images = pictures((1, 28, 28), 7)
        expected = plan.plain(images)
        for settings in ({"helper": 2}, {"receiver": 0}, {"rotate_helper": True}, {"helper_leaves": True}, {"ahead": 2},
                         {"in_flight": 3}, {"linear": "replicated"}, {"link": "lan"}):
            with self.subTest(str(settings)):
                measured = plan.measure(images, batch=2, **settings)
                self.assertEqual(measured["logits"], expected.tolist())
                self.assertTrue(measured["matches_plain"])
                self.assertTrue(measured["matches_plan"])
        self.assertEqual(plan.measure(images, linear="replicated")["linear"], "replicated")
        self.assertEqual(plan.measure(images, suite="fss")["suite"], "fss")

    def test_measures_what_the_command_measures(self):
        plan = load("mnistnet1")
        images = pictures((1, 28, 28), 6)
        expected = report("run", NETS / "mnistnet1.json", "--model", NETS / "mnistnet1.compiled.safetensors",
                          "--images", self.file_of(images), "--batch", 4, "--suite", "fss")
        for transport in ("memory", "tls"):
            with self.subTest(transport):
                measured = plan.measure(images, suite="fss", batch=4, transport=transport)
                for key in ("network", "suite", "batch", "images", "classes", "equal", "matches_plan", "hops", "bytes",
                            "predictions", "logits", "warnings"):
                    self.assertEqual(measured[key], expected[key], key)
                self.assertEqual(measured["transport"], transport)

    def test_processes_give_the_plain_logits(self):
        plan = load("mnistnet1")
        images = pictures((1, 28, 28), 5)
        numpy.testing.assert_array_equal(plan.run(images, transport="tls"), plan.plain(images))

    def test_what_is_not_private_warns(self):
        plan = load("mnistnet1")
        images = pictures((1, 28, 28), 2)
        with self.assertWarnsRegex(tercet.TercetWarning, "cbnn"):
            plan.run(images, suite="cbnn")
        with self.assertWarnsRegex(tercet.TercetWarning, "nothing is encrypted"):
            plan.run(images, transport="tcp-insecure")
        with self.assertWarnsRegex(tercet.TercetWarning, "the model is PUBLIC"):
            plan.run(images, public_weights=True)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            plan.run(images)

    def test_a_layer_that_a_suite_cannot_do_is_named(self):
        plan = load("mnistnet3-relu")
        images = pictures((1, 28, 28), 2)
        for transport in ("memory", "tls"):
            with self.subTest(transport), self.assertRaisesRegex(tercet.Error, "cbnn"):
                plan.run(images, suite="cbnn", transport=transport)

    def test_other_threads_go_on_meanwhile(self):
        plan = load("mnistnet1")
        images = pictures((1, 28, 28), 3)
        steps, done = [], threading.Event()

        def count():
            while not done.is_set():
                steps.append(time.monotonic())
                time.sleep(0.001)

        counter = threading.Thread(target=count)
        counter.start()
        start = time.monotonic()
        plan.run(images, batch=1, link="rtt_ms=40,mbit=100")
        end = time.monotonic()
        done.set()
        counter.join()
        self.assertGreater(sum(start < step < end for step in steps), 10)

    def test_runs_at_once_do_not_disturb_each_other(self):
        plan = load("mnistnet1")
        batches = [pictures((1, 28, 28), 4, seed) for seed in range(4)]
        results = [None] * 4

        def run(i):
            results[i] = plan.run(batches[i])

        threads = [threading.Thread(target=run, args=(i,)) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for images, logits in zip(batches, results):
            numpy.testing.assert_array_equal(logits, plan.plain(images))

class InterruptTest(unittest.TestCase):
    def interrupt(self, transport):
        code = RUN_LONG.format(tests=str(Path(__file__).parent), transport=transport)
        process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True,
                                   start_new_session=True)
        try:
            self.assertEqual(process.stdout.readline(), "ready\n")
            with self.assertRaises(subprocess.TimeoutExpired):
                process.wait(timeout=1)  # the run takes minutes
            process.send_signal(signal.SIGINT)  # to this process alone, as a debugger or a notebook may do
            said, _ = process.communicate(timeout=60)
            self.assertEqual(said, "interrupted\nworks on\n")
            self.assertEqual(process.returncode, 0)
        finally:
            process.kill()
            process.wait()

    def test_threads(self):
        self.interrupt("memory")

    def test_processes(self):
        self.interrupt("tls")

if __name__ == "__main__":
    main()
