# SPDX-License-Identifier: Apache-2.0
"""The notebook of docs/ runs from its first cell to its last, as plain Python and, where it is installed, by Jupyter."""
import json
import os
import sys
import tempfile

from package import ROOT, Case, main, need

need("torch", "onnx")
NOTEBOOK = ROOT / "docs" / "python.ipynb"


class NotebookTest(Case):
    def test_cells_one_after_the_other(self):
        cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
        code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
        self.assertGreater(len(code), 5)
        names = {"__name__": "__main__"}
        with tempfile.TemporaryDirectory() as scratch:
            os.chdir(scratch)
            try:
                for number, text in enumerate(code, 1):
                    exec(compile(text, f"cell {number}", "exec"), names)
            finally:
                os.chdir(ROOT)
        self.assertTrue((names["logits"] == names["plan"].plain(names["test_images"])).all())

    def test_by_jupyter(self):
        try:
            import ipykernel  # noqa: F401
            import nbclient
            import nbformat
        except ImportError as error:
            self.skipTest(str(error))
        with tempfile.TemporaryDirectory() as scratch:
            os.environ["IPYTHONDIR"] = os.environ["JUPYTER_CONFIG_DIR"] = scratch
            notebook = nbformat.read(NOTEBOOK, as_version=4)
            # The kernel is the interpreter of this test, whatever others are installed.
            os.environ["JUPYTER_PATH"] = scratch
            os.makedirs(f"{scratch}/kernels/tercet")
            with open(f"{scratch}/kernels/tercet/kernel.json", "w", encoding="utf-8") as file:
                json.dump({"argv": [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"],
                           "display_name": "tercet", "language": "python"}, file)
            client = nbclient.NotebookClient(notebook, kernel_name="tercet", timeout=240,
                                             resources={"metadata": {"path": scratch}})
            client.execute()

    def test_holds_no_outputs(self):
        for cell in json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]:
            self.assertFalse(cell.get("outputs"), "outputs stay out of the repository")


if __name__ == "__main__":
    main()
