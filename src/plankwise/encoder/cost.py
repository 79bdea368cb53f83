"""What a model costs, counted on the model itself."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
from torch import nn
from transformers import PreTrainedModel

from plankwise.encoder.anatomy import layers_of

COMPRESSION_LEVEL = 3
COMPRESSED_AT_ONCE = 64 << 20


def count_parameters(model: PreTrainedModel) -> int:
    """Count parameters; tied ones once."""
    return sum(parameter.numel() for parameter in model.parameters())


def count_nonzero(model: PreTrainedModel) -> int:
    """Count parameters that are not zero; tied ones once."""
    return sum(int(parameter.count_nonzero()) for parameter in model.parameters())


def linear_flops_per_token(model: PreTrainedModel) -> int:
    """Count the floating-point operations of one token in the linear layers of all Transformer layers.

    Two for each weight. Attention itself, embeddings and heads are not in it.
    """
    linears = (module for module in layers_of(model).modules() if isinstance(module, nn.Linear))
    return sum(2 * linear.weight.numel() for linear in linears)


def weights_size_bytes(folder: Path) -> int:
    """Add up the bytes of the weight files in a saved model's folder."""
    return sum(file.stat().st_size for file in folder.glob("*.safetensors"))


def compressed_size_bytes(folder: Path) -> int:
    """Add up what the weight files would take up if they were compressed by zstd; zeros then cost next to nothing."""
    codec = pa.Codec("zstd", compression_level=COMPRESSION_LEVEL)
    total = 0
    for file in folder.glob("*.safetensors"):
        with file.open("rb") as source:
            for part in iter(lambda: source.read(COMPRESSED_AT_ONCE), b""):
                total += len(codec.compress(part))
    return total
