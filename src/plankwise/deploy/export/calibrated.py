"""Static int8 of a model in fp32, by plankwise's own quantizers: ranges of inputs are read off a few texts.

ONNX Runtime's own dynamic int8 takes the range of each batch, so that an answer depends on the texts beside it. Ranges
that are fixed beforehand do not move.
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
        model: a classifier in fp32; left as it is.
        batches: inputs that give the ranges, the least and the largest values.
        portable: whether weights get 7 bits.

    Raises:
        MethodError: if a linear layer sees a number that is not finite.
    """
    rounding = FakeQuantized(model, portable)
    rounding.network.eval()
    with rounding.observing():
        for batch in batches:
            reference(rounding.network, batch)
    rounding.quantize(rounding.names())
    return rounding.finished().eval()
