"""A quantized model back in fp32: the reference for int8 where the original model is not available."""

from __future__ import annotations

import copy

from torch import nn
from transformers import PreTrainedModel

from plankwise.encoder.configuration import OWN
from plankwise.encoder.quantized import QUANTIZED, QuantizedLinear, quantized_modules


def dequantized(model: PreTrainedModel) -> PreTrainedModel:
    """Return a copy of a quantized model with the values of its int8 matrices in fp32; inputs are not rounded."""
    made = copy.deepcopy(model)
    for name, module in quantized_modules(model).items():
        weight = nn.Parameter(module.weight.float() * module.scale.float()[:, None])
        if isinstance(module, QuantizedLinear):
            linear = nn.Linear(module.in_features, module.out_features, module.bias is not None, device="meta")
            linear.weight = weight
            if module.bias is not None:
                linear.bias = nn.Parameter(module.bias.detach().float())
            made.set_submodule(name, linear)
        else:
            sizes = (module.num_embeddings, module.embedding_dim, module.padding_idx)
            made.set_submodule(name, nn.Embedding(*sizes, _weight=weight))
    own = {key: value for key, value in getattr(made.config, OWN).items() if key != QUANTIZED}
    setattr(made.config, OWN, own)
    return made.eval()
