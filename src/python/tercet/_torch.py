# SPDX-License-Identifier: Apache-2.0
"""PyTorch modules as ONNX models."""
from __future__ import annotations

import io
from typing import Any

import numpy
import torch

from ._tercet import ConfigError


def export(module: torch.nn.Module, example: Any) -> bytes:
    """The module in evaluation mode as an ONNX model with its weights, batch normalisation by itself."""
    if not isinstance(module, torch.nn.Module):
        raise ConfigError(f"module: found {type(module).__name__}, expected a torch.nn.Module (a state_dict holds no "
                          "architecture)")
    if not isinstance(example, torch.Tensor):
        example = torch.from_numpy(numpy.asarray(example))
    parameter = next(module.parameters(), None)
    example = example.to(dtype=torch.float32) if parameter is None else example.to(parameter)
    training = {part: part.training for part in module.modules()}
    module.eval()
    file = io.BytesIO()
    try:
        # Else batch normalisation is multiplied into the weights before it, which rounds them.
        torch.onnx.export(module, example, file, training=torch.onnx.TrainingMode.PRESERVE, do_constant_folding=False)
    finally:
        for part, was in training.items():
            part.training = was
    return file.getvalue()
