"""The cost of a model, measured on the model itself."""

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

COMPRESSION_LEVEL = 3  # of zstd, its default
CHUNK_BYTES = 64 << 20


def count_parameters(model: PreTrainedModel) -> int:
    """Return the number of parameters, tied ones once. An int8 weight counts as one; scales do not count."""
    return sum(each.numel() for each in _weights(model))


def count_nonzero(model: PreTrainedModel) -> int:
    """Return the number of parameters that are not zero, tied ones once; an int8 weight is zero if its step is 0."""
    return sum(int(each.count_nonzero()) for each in _weights(model))


def count_bytes(model: PreTrainedModel) -> int:
    """Return the bytes of all parameters in memory, including the scales of int8 matrices."""
    # int8 matrices and their scales are buffers, so that no optimizer takes them for parameters.
    own = [each for module in quantized_modules(model).values() for each in module.buffers()]
    return sum(each.numel() * each.element_size() for each in (*model.parameters(), *own))


def _weights(model: PreTrainedModel) -> Iterator[Tensor]:
    """Yield parameters and, as int8 matrices are buffers, their weights and biases."""
    yield from model.parameters()
    for module in quantized_modules(model).values():
        yield module.weight
        if isinstance(module, QuantizedLinear) and module.bias is not None:
            yield module.bias


def linear_flops_per_token(model: PreTrainedModel) -> int:
    """Return the floating-point operations of one token in the linear layers of all Transformer layers.

    Each weight counts twice (multiply and add), whatever its precision. Attention scores, embeddings and the task's
    head are not included.
    """
    linears = (module for module in layers_of(model).modules() if isinstance(module, (nn.Linear, QuantizedLinear)))
    return sum(2 * linear.weight.numel() for linear in linears)


def attention_flops(config: PreTrainedConfig) -> int:
    """Return the floating-point operations with which one token attends to one other, over all heads of all layers.

    Two for each product of queries with keys and of weights with values. Local windows and relative positions are not
    considered: every token counts as attending to every other by content alone.
    """
    queries = int(config.num_attention_heads) // head_units(config)
    heads = sum(queries * len(shape.heads) for shape in shapes_of(config))
    return 4 * heads * head_size(config)


def weights_size_bytes(folder: Path) -> int:
    """Return the bytes of the weight files in the folder of a saved model."""
    return sum(file.stat().st_size for file in folder.glob("*.safetensors"))


def compressed_size_bytes(folder: Path) -> int:
    """Return the bytes of the weight files after compression by zstd, which makes zeros nearly free."""
    codec = pa.Codec("zstd", compression_level=COMPRESSION_LEVEL)
    total = 0
    for file in folder.glob("*.safetensors"):
        with file.open("rb") as source:
            for part in iter(lambda: source.read(CHUNK_BYTES), b""):
                total += len(codec.compress(part))
    return total
