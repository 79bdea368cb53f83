"""A quantized model in fp32 again: what int8 is held against where the model before it is not at hand."""

from __future__ import annotations

import copy

from torch import nn
from transformers import PreTrainedModel

from plankwise.encoder.configuration import OWN
from plankwise.encoder.quantized import QUANTIZED, QuantizedLinear, quantized_modules


def dequantized(model: PreTrainedModel) -> PreTrainedModel:
    """Copy a quantized model with the numbers that its int8 matrices stand for, in fp32; inputs are not rounded."""
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
