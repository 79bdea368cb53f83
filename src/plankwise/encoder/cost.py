"""What a model costs, counted on the model itself."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

from plankwise.encoder.anatomy import layers_of
from plankwise.encoder.configuration import head_size, head_units
from plankwise.encoder.quantized import QuantizedLinear, quantized_modules
from plankwise.encoder.shapes import shapes_of

COMPRESSION_LEVEL = 3
COMPRESSED_AT_ONCE = 64 << 20


def count_parameters(model: PreTrainedModel) -> int:
    """Count parameters; tied ones once. A weight of int8 counts as one like any other; scales are no parameters."""
    return sum(each.numel() for each in _weights(model))


def count_nonzero(model: PreTrainedModel) -> int:
    """Count parameters that are not zero; tied ones once. A weight of int8 is zero if it is less than half a step."""
    return sum(int(each.count_nonzero()) for each in _weights(model))


def count_bytes(model: PreTrainedModel) -> int:
    """Count the bytes that parameters take up in memory, with the scales of those that are of int8."""
    own = [each for module in quantized_modules(model).values() for each in module.buffers()]
    return sum(each.numel() * each.element_size() for each in (*model.parameters(), *own))


def _weights(model: PreTrainedModel) -> Iterator[Tensor]:
    yield from model.parameters()
    for module in quantized_modules(model).values():
        yield module.weight
        if isinstance(module, QuantizedLinear) and module.bias is not None:
            yield module.bias


def linear_flops_per_token(model: PreTrainedModel) -> int:
    """Count the floating-point operations of one token in the linear layers of all Transformer layers.

    Two for each weight, whatever its precision. Attention itself, embeddings and heads are not in it.
    """
    linears = (module for module in layers_of(model).modules() if isinstance(module, (nn.Linear, QuantizedLinear)))
    return sum(2 * linear.weight.numel() for linear in linears)


def attention_flops(config: PreTrainedConfig) -> int:
    """Count the floating-point operations by which one token attends to one other, over all heads of all layers.

    Two for each product in queries by keys and in weights by values. Windows of local attention and terms for relative
    positions are not considered: every token counts as attending to every other by its content alone.
    """
    queries = int(config.num_attention_heads) // head_units(config)
    heads = sum(queries * len(shape.heads) for shape in shapes_of(config))
    return 4 * heads * head_size(config)


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
