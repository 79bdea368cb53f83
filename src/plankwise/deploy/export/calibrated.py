"""Static int8 of an fp32 model, by plankwise's own quantizers: the ranges of inputs come from a few texts.

ONNX Runtime's dynamic int8 takes the ranges of each batch, so that an answer depends on the other texts of its batch.
Fixed ranges do not have this effect.
"""

from __future__ import annotations

from collections.abc import Sequence

from transformers import PreTrainedModel

from plankwise.data.batching.inputs import Inputs
from plankwise.deploy.export.parity import reference
from plankwise.encoder.fake_quantized import FakeQuantized


def calibrated(model: PreTrainedModel, batches: Sequence[Inputs], portable: bool) -> PreTrainedModel:
    """Quantize all linear layers and the word embeddings of a copy of the model, as method `quantization` does.

    Args:
        model: a classifier in fp32; not changed.
        batches: inputs; the smallest and largest values that they cause are the ranges.
        portable: whether weights get 7 bits.

    Raises:
        MethodError: if an input of a linear layer is not finite.
    """
    rounding = FakeQuantized(model, portable)  # works on a copy
    rounding.network.eval()
    with rounding.observing():
        for batch in batches:
            reference(rounding.network, batch)
    rounding.quantize(rounding.names())
    return rounding.finished().eval()
