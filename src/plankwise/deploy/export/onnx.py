"""Export to ONNX: plankwise's own quantizers as QuantizeLinear pairs, or dynamic int8 by ONNX Runtime.

ONNX Runtime fuses the pairs around a product into one int8 kernel, which is as fast as its dynamic one and computes
exactly the integers of the quantizers. Dynamic int8 takes the range of the activations of each batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from plankwise.core.progress import muted
from plankwise.deploy.export.tracing import example, free_sizes, traceable
from plankwise.encoder.quantized import QuantizedLinear

MODEL, QUANTIZED = "onnx/model.onnx", "onnx/model_quantized.onnx"  # where other tools look for them
_FLOAT = "float.onnx"


def to_onnx(model: PreTrainedModel, inputs: Sequence[str], folder: Path, precision: str, *, portable: bool) -> str:
    """Export a model into `folder` and return the name of its file.

    Args:
        model: a classifier in fp32, or one with plankwise's quantizers for precision int8.
        inputs: names of its inputs.
        folder: exists.
        precision: fp32, int8, or int8-dynamic, which is quantized by ONNX Runtime.
        portable: whether weights get 7 bits; only for int8-dynamic.
    """
    name = MODEL if precision == "fp32" else QUANTIZED
    (folder / name).parent.mkdir()
    if precision != "int8-dynamic":
        _export(model, inputs, folder / name)
        return name
    _export(model, inputs, folder / _FLOAT)
    _dynamic(folder / _FLOAT, folder / name, portable)
    (folder / _FLOAT).unlink()
    return name


class Int8Linear(nn.Module):
    """A quantized projection in ONNX's own operators, so that its weights stay int8 in the file."""

    weight: Tensor
    scale: Tensor
    input_scale: Tensor
    input_zero: Tensor
    bias: Tensor

    def __init__(self, source: QuantizedLinear) -> None:
        super().__init__()
        outputs = len(source.weight)
        self.register_buffer("weight", source.weight.t().contiguous())
        self.register_buffer("scale", source.scale.float())
        self.register_buffer("input_scale", source.input_scale.float())
        self.register_buffer("input_zero", source.input_zero.to(torch.uint8))
        self.register_buffer("bias", torch.zeros(outputs) if source.bias is None else source.bias.detach().float())

    def forward(self, states: Tensor) -> Tensor:
        """Project states [..., inputs] to [..., outputs]."""
        symbolic = torch.onnx.ops.symbolic
        inner = (self.input_scale, self.input_zero)
        whole = symbolic("QuantizeLinear", (states, *inner), dtype=torch.uint8, shape=states.shape)
        back = symbolic("DequantizeLinear", (whole, *inner), dtype=torch.float32, shape=states.shape)
        outer = (self.weight, self.scale)  # no zero point: even one of zeros would be subtracted
        weight = symbolic("DequantizeLinear", outer, {"axis": 1}, dtype=torch.float32, shape=self.weight.shape)
        projected: Tensor = torch.matmul(back, weight) + self.bias
        return projected


def _export(model: PreTrainedModel, inputs: Sequence[str], path: Path) -> None:
    with traceable(model, inputs) as classifier, muted("onnxscript", "onnx_ir", "torch.onnx", "transformers"):
        for name, module in list(classifier.named_modules()):
            if isinstance(module, QuantizedLinear):
                parent, _, last = name.rpartition(".")
                setattr(classifier.get_submodule(parent), last, Int8Linear(module))
        program = torch.onnx.export(
            classifier,
            example(inputs),
            dynamo=True,
            dynamic_shapes=free_sizes(model, inputs),
            input_names=list(inputs),
            output_names=["logits"],
            verbose=False,
        )
        assert program is not None
        program.save(str(path))


def _dynamic(source: Path, target: Path, portable: bool) -> None:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with muted(None):  # the library logs advice by the root logger
        quantize_dynamic(str(source), str(target), per_channel=True, reduce_range=portable, weight_type=QuantType.QInt8)
