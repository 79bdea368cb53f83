"""Export to torch: a program that runs without Transformers and plankwise, whatever the sizes of the layers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import PreTrainedModel

from plankwise.core.progress import muted
from plankwise.deploy.export.tracing import example, free_sizes, traceable
from plankwise.deploy.runtimes import FLOAT_TYPES

MODEL = "model.pt2"


def to_torch(model: PreTrainedModel, inputs: Sequence[str], folder: Path, precision: str) -> str:
    """Export a model with its weights cast to fp32, bf16 or fp16 into `folder` and return the name of its file."""
    with traceable(model, inputs) as classifier, muted("transformers"):
        cast = classifier.to(FLOAT_TYPES[precision])
        sizes = free_sizes(model, inputs)
        program = torch.export.export(cast, example(inputs), dynamic_shapes=sizes, strict=False)
        torch.export.save(program, str(folder / MODEL))
    return MODEL
