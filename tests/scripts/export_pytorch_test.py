# SPDX-License-Identifier: Apache-2.0
"""scripts/export-pytorch.py: modules of the usual kinds become networks that compute the same, layer by layer."""
import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MODELS = '''
import torch
from torch import nn
from torch.nn import functional as F

class Block(nn.Module):
    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.path = nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs),
                                  nn.ReLU(), nn.Conv2d(outputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs))
        self.shortcut = nn.Identity() if stride == 1 else nn.Conv2d(inputs, outputs, 1, stride, bias=False)
    def forward(self, x):
        return F.relu(self.path(x) + self.shortcut(x))

class Windows(nn.Module):
    """Whatever differs between axes and sides, and functions in the place of modules."""
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, 4, (3, 2), stride=(1, 2), padding=(1, 0), dilation=(2, 1), groups=2)
        self.pool = nn.MaxPool2d(2, ceil_mode=True)
        self.average = nn.AvgPool2d(3, 2, 1, count_include_pad=False)
        self.fc = nn.Linear(8, 3)
    def forward(self, x):
        x = self.average(self.pool(torch.relu(self.conv(x))))
        return self.fc(x.view(x.size(0), -1))

def mlp():
    return nn.Sequential(nn.Flatten(), nn.Linear(162, 8), nn.ReLU(), nn.Dropout(), nn.Linear(8, 4))

def resnet():
    model = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), Block(4, 4, 1), Block(4, 6, 2),
                          nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4))
    for part in model.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.normal_(part.weight)
            nn.init.normal_(part.running_mean)
    return model

def windows():
    return Windows()

class Again(nn.Module):
    """Modules that run more than once, with weights and without, functions, and a softmax at the end."""
    def __init__(self):
        super().__init__()
        self.stem, self.conv, self.relu = nn.Conv2d(2, 3, 3), nn.Conv2d(3, 3, 3, padding=1), nn.ReLU()
        self.fc = nn.Linear(3, 4)
    def forward(self, x):
        x = self.relu(self.stem(x))
        x = self.relu(self.conv(self.relu(self.conv(x))) + x)
        x = F.adaptive_avg_pool2d(F.avg_pool2d(x, 3, stride=2), 1)
        return F.log_softmax(self.fc(torch.flatten(x, 1)), dim=1)

def again():
    return Again()

class Weighted(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, 2, 1)
    def forward(self, x):
        x = torch.relu(self.conv(x))
        return torch.add(x, self.conv(x), alpha=2).flatten(1)

def weighted():
    return Weighted()

class OverChannels(Weighted):
    def forward(self, x):
        return torch.relu(self.conv(x)).mean((1, 2))

def over_channels():
    return OverChannels()

def hardswish():
    return nn.Sequential(nn.Conv2d(2, 3, 3), nn.Hardswish())

def reflecting():
    return nn.Sequential(nn.Conv2d(2, 3, 3, padding=1, padding_mode="reflect"))

class Branches(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.ReLU(), nn.ReLU()
        self.conv = nn.Conv2d(2, 2, 1)
    def forward(self, x):
        x = self.conv(x)
        return self.first(x) + self.second(x)

def branches():
    return Branches()

class Depends(nn.Module):
    def forward(self, x):
        return x if x.sum() > 0 else -x

def depends():
    return Depends()
'''
REFUSALS = {"hardswish": "found Hardswish, which has no layer in the JSON here",
            "reflecting": "found padding_mode 'reflect'", "branches": "a relu of conv behind first",
            "weighted": "found add", "over_channels": "found mean", "depends": "torch.fx cannot follow the module"}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tercet", required=True)
    tercet = parser.parse_args().tercet
    if subprocess.run([sys.executable, "-c", "import torch"], capture_output=True, check=False).returncode != 0:
        print("no torch: install python3-torch")
        sys.exit(77)

    def export(folder, model, *options):
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        return subprocess.run([sys.executable, ROOT / "scripts" / "export-pytorch.py", f"{folder}/models.py:{model}",
                               "--shape", "2,9,9", "--mean", "0.5", "--std", "0.25", "--limit", "3", "--out",
                               f"{folder}/{model}", *options], capture_output=True, text=True, env=environment,
                              timeout=120, check=False)

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "models.py").write_text(MODELS)
        for model in ("mlp", "resnet", "windows", "again"):
            done = export(folder, model)
            assert done.returncode == 0, done.stderr
            assert "no --state-dict was given" in done.stderr, done.stderr
            checked = subprocess.run(
                [tercet, "plain", folder / f"{model}.json", "--model", folder / f"{model}.safetensors", "--images",
                 folder / f"{model}.images.npy", "--check", folder / f"{model}.reference.safetensors"],
                capture_output=True, text=True, timeout=60, check=False)
            assert checked.returncode == 0, checked.stdout + checked.stderr
            assert "conv" in checked.stdout or model == "mlp", checked.stdout
        for model, text in REFUSALS.items():
            done = export(folder, model)
            assert done.returncode != 0 and text in done.stderr, (model, done.stderr)
            assert not (folder / f"{model}.json").exists() and not (folder / f"{model}.safetensors").exists(), model
        done = export(folder, "hardswish", "--no-json")
        assert done.returncode == 0 and (folder / "hardswish.safetensors").exists(), done.stderr


if __name__ == "__main__":
    main()
