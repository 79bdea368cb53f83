"""Matrices of int8: modules that replace linear layers and word embeddings, and their part of the configuration.

Weights are quantized symmetrically with one scale for each row: an output feature of a linear layer, or a token of an
embedding. Inputs of a linear layer are quantized asymmetrically with one scale for the tensor, over a range that was
observed before. The modules compute in floating point what an int8 runtime computes in integers; an export writes their
numbers.

Processors without VNNI add pairs of products of unsigned inputs and signed weights in 16 bits, which saturate. Two
products of 8-bit numbers may not fit, 2·255·127 = 64770 > 32767; with weights of 7 bits they do, 2·255·63 = 32130.
Portable weights are therefore integers from -63 to 63, with which every processor computes what the modules here
compute. Weights in full range are more exact, but may saturate. Embeddings are looked up and not multiplied, so they
always have the full range.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedConfig, PreTrainedModel

from plankwise.core.errors import MethodError, ModelError
from plankwise.encoder.anatomy import layers_of, layers_prefix
from plankwise.encoder.configuration import OWN
from plankwise.encoder.low_rank import LowRankEmbedding

QUANTIZED = "quantized"
WEIGHT_LIMIT = 127  # steps; int8 without -128, so that the range is symmetric
PORTABLE_LIMIT = 63  # steps; 7 bits
INPUT_LIMIT = 255  # steps; uint8
LAST = "the model is quantized, and int8 weights are neither trained nor cut; quantize last"


@dataclass(frozen=True)
class Quantized:
    """The quantized matrices of a model: linear layers of its Transformer layers, and its word embeddings.

    Attributes:
        kept: linear layers that stay in floating point, by layer number and path, as in `3.output.dense`.
        embeddings: whether the word embeddings are quantized.
        portable: whether the weights of linear layers have 7 bits, so that sums saturate on no processor.
    """

    kept: tuple[str, ...] = ()
    embeddings: bool = True
    portable: bool = True


def quantized_of(config: PreTrainedConfig) -> Quantized | None:
    """Return what is quantized in a model with this configuration; `None` if nothing is.

    Raises:
        ModelError: if the entry in the configuration is malformed.
    """
    stored = (getattr(config, OWN, None) or {}).get(QUANTIZED)
    if stored is None:
        return None
    fault = (
        f"'{OWN}' in the configuration: {QUANTIZED}: needs kept, a list of names, and embeddings and portable, true or "
        f"false; it is {str(stored)[:60]}"
    )
    if not isinstance(stored, dict) or stored.keys() | {"portable"} != {"kept", "embeddings", "portable"}:
        raise ModelError(fault)
    kept, embeddings = stored["kept"], stored["embeddings"]
    portable = stored.get("portable", False)  # models saved before this key existed are in full range
    if not isinstance(kept, list) or not all(isinstance(name, str) for name in kept):
        raise ModelError(fault)
    if type(embeddings) is not bool or type(portable) is not bool:  # 0 and 1 are refused
        raise ModelError(fault)
    return Quantized(tuple(kept), embeddings, portable)


def is_quantized(config: PreTrainedConfig) -> bool:
    """Return whether a model with this configuration has int8 matrices."""
    return quantized_of(config) is not None


def refuse_quantized(config: PreTrainedConfig) -> None:
    """Refuse a quantized model, which can be neither trained nor pruned.

    Raises:
        MethodError: if the model is quantized.
    """
    if is_quantized(config):
        raise MethodError(LAST)


def with_quantized(config: PreTrainedConfig, quantized: Quantized) -> PreTrainedConfig:
    """Return a copy of `config` for a model with these quantized matrices."""
    changed = copy.deepcopy(config)
    stored = {"kept": list(quantized.kept), "embeddings": quantized.embeddings, "portable": quantized.portable}
    setattr(changed, OWN, {**(getattr(config, OWN, None) or {}), QUANTIZED: stored})
    return changed


def weight_limit(portable: bool) -> int:
    """Return the largest magnitude of a linear layer's weight, in steps."""
    return PORTABLE_LIMIT if portable else WEIGHT_LIMIT


def row_scales(weight: Tensor, limit: int = WEIGHT_LIMIT) -> Tensor:
    """Return the scale of each row, [rows], at which its largest magnitude is `limit` steps; 1 for a row of zeros."""
    scale = weight.detach().abs().amax(dim=1) / limit
    # A denormal scale would be flushed to zero by some runtimes, and divided by.
    return torch.where(scale >= torch.finfo(scale.dtype).tiny, scale, torch.ones_like(scale))


def rounded_rows(weight: Tensor, scale: Tensor) -> Tensor:
    """Return each weight, [rows, columns], in steps of its row: integers within the limit, as floats.

    No clamping is needed: with `row_scales`, the largest of a row is the limit up to a rounding error.
    """
    return (weight.detach() / scale[:, None]).round_()


def input_range(lowest: float, highest: float) -> tuple[float, int]:
    """Return the scale and the zero point of inputs in this range, which is extended to contain zero.

    Values in the range are then off by at most half a step. Equal ranges give equal scales, bit for bit.
    """
    low, high = min(lowest, 0.0), max(highest, 0.0)
    scale = (high - low) / INPUT_LIMIT
    if not scale >= torch.finfo(torch.float32).tiny:  # also for NaN
        return 1.0, 0
    return scale, min(max(round(-low / scale), 0), INPUT_LIMIT)


class QuantizedLinear(nn.Module):
    """A linear layer with int8 weights, which rounds its inputs to 256 values.

    Attributes:
        weight: int8, [outputs, inputs].
        scale: fp32, [outputs].
        bias: fp32, [outputs], or none.
        input_scale: fp32, a scalar.
        input_zero: int32, a scalar from 0 to 255, which represents zero.
    """

    weight: Tensor
    scale: Tensor
    bias: Tensor | None
    input_scale: Tensor
    input_zero: Tensor

    def __init__(self, in_features: int, out_features: int, bias: bool = True) -> None:
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        self.register_buffer("weight", torch.zeros(out_features, in_features, dtype=torch.int8))
        self.register_buffer("scale", torch.ones(out_features))
        self.register_buffer("bias", torch.zeros(out_features) if bias else None)
        self.register_buffer("input_scale", torch.ones(()))
        self.register_buffer("input_zero", torch.zeros((), dtype=torch.int32))

    def forward(self, values: Tensor) -> Tensor:
        """Project values [..., inputs] to [..., outputs]."""
        seen = torch.fake_quantize_per_tensor_affine(values, self.input_scale, self.input_zero, 0, INPUT_LIMIT)
        return functional.linear(seen, self.weight.to(values.dtype) * self.scale[:, None], self.bias)

    def extra_repr(self) -> str:
        """Return the sizes for `repr`, as `nn.Linear` does."""
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"


class QuantizedEmbedding(nn.Module):
    """An embedding with int8 rows, each with its scale.

    Attributes:
        weight: int8, [tokens, width].
        scale: fp32, [tokens].
    """

    weight: Tensor
    scale: Tensor

    def __init__(self, num_embeddings: int, embedding_dim: int, padding_idx: int | None = None) -> None:
        super().__init__()
        self.num_embeddings, self.embedding_dim, self.padding_idx = num_embeddings, embedding_dim, padding_idx
        self.register_buffer("weight", torch.zeros(num_embeddings, embedding_dim, dtype=torch.int8))
        self.register_buffer("scale", torch.ones(num_embeddings))

    def forward(self, ids: Tensor) -> Tensor:
        """Return the vectors [..., width] of token ids [...]."""
        return self.weight[ids].to(self.scale.dtype) * self.scale[ids][..., None]

    def extra_repr(self) -> str:
        """Return the sizes for `repr`, as `nn.Embedding` does."""
        return f"{self.num_embeddings}, {self.embedding_dim}, padding_idx={self.padding_idx}"


def projections_of(model: PreTrainedModel) -> dict[str, nn.Linear]:
    """Return the linear layers of all Transformer layers that are not empty, by layer number and path."""
    found = layers_of(model).named_modules()
    return {str(name): each for name, each in found if isinstance(each, nn.Linear) and each.weight.numel()}


def table_of(model: PreTrainedModel) -> tuple[str, nn.Embedding]:
    """Return the name and the module of the word embeddings; of factorized ones, the thin table.

    Raises:
        ModelError: if the head of a masked LM shares it.
    """
    if model.get_output_embeddings() is not None:
        raise ModelError("word embeddings of int8 cannot be shared by the head of a masked LM")
    inputs = model.get_input_embeddings()
    table = inputs.table if isinstance(inputs, LowRankEmbedding) else inputs
    assert isinstance(table, nn.Embedding)
    return next(str(name) for name, module in model.named_modules() if module is table), table


def install(model: PreTrainedModel, quantized: Quantized | None) -> None:
    """Replace matrices of a model by int8 modules of zeros, in place. It must not be quantized yet.

    Raises:
        ModelError: if the model lacks a linear layer that should be kept.
    """
    if quantized is None:
        return
    found, prefix = projections_of(model), layers_prefix(model)
    unknown = [name for name in quantized.kept if name not in found]
    if unknown:
        raise ModelError(f"'{OWN}' in the configuration: {QUANTIZED}: kept: the model has no '{unknown[0][:60]}'")
    if quantized.embeddings:
        name, table = table_of(model)
        new = QuantizedEmbedding(table.num_embeddings, table.embedding_dim, table.padding_idx)
        model.set_submodule(name, new.to(table.weight.device))
    for name, linear in found.items():
        if name not in quantized.kept:
            made = QuantizedLinear(linear.in_features, linear.out_features, linear.bias is not None)
            model.set_submodule(f"{prefix}{name}", made.to(linear.weight.device))


def quantized_modules(model: nn.Module) -> Mapping[str, QuantizedLinear | QuantizedEmbedding]:
    """Return the int8 modules by their names in the model."""
    kinds: Any = (QuantizedLinear, QuantizedEmbedding)
    return {str(name): each for name, each in model.named_modules() if isinstance(each, kinds)}
