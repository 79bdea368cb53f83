"""Layers that lost all heads or all neurons, for runtimes that refuse matrices of size zero.

Such a layer gets one neuron, or one attention feature, with weights of zero, so that it computes the same.
"""

from __future__ import annotations

import torch
from torch import nn
from transformers import PreTrainedModel

from plankwise.encoder.anatomy import anatomy_of, layers_of
from plankwise.encoder.shapes import NoHeads


def fill_empty(model: PreTrainedModel) -> None:
    """Widen every layer of `model` to at least one attention feature and one neuron, in place."""
    anatomy = anatomy_of(model.config)
    for layer in layers_of(model):
        for projection in anatomy.neuron_inputs:
            linear = layer.get_submodule(projection.path)
            if isinstance(linear, nn.Linear) and linear.out_features == 0:
                _widen(linear, linear.in_features, projection.blocks)
        for module in list(layer.modules()):
            if isinstance(module, NoHeads):
                module.width = 1
            if isinstance(module, nn.Linear) and module.in_features == 0:
                _widen(module, 1, module.out_features)


def _widen(linear: nn.Linear, inputs: int, outputs: int) -> None:
    """Replace an empty matrix by zeros of this size; an existing bias stays."""
    weight = torch.zeros(outputs, inputs, dtype=linear.weight.dtype, device=linear.weight.device)
    if linear.bias is not None and linear.out_features != outputs:
        linear.bias = nn.Parameter(weight.new_zeros(outputs), requires_grad=False)
    linear.weight = nn.Parameter(weight, requires_grad=False)
    linear.in_features, linear.out_features = inputs, outputs
