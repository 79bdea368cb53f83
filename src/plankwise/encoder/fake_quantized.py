"""A model that computes as if it were quantized, while its weights are fp32 and can be trained.

Rounding has no useful gradient, so its backward pass is the identity (straight-through estimator: Bengio, Léonard,
Courville 2013, arXiv 1308.3432), for inputs only inside their range. The scales of weights follow the weights at every
call; the ranges of inputs are observed once and do not change. Each matrix can be switched, so that one network serves
to observe inputs, to measure what quantizing some matrices costs, and to train.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel

from plankwise.core.errors import MethodError
from plankwise.encoder.anatomy import anatomy_of, layers_prefix
from plankwise.encoder.quantized import (
    INPUT_LIMIT,
    WEIGHT_LIMIT,
    Quantized,
    QuantizedLinear,
    input_range,
    projections_of,
    quantized_modules,
    rounded_rows,
    row_scales,
    table_of,
    weight_limit,
    with_quantized,
)
from plankwise.encoder.shapes import new_model

EMBEDDINGS = "embeddings"  # name of the word embeddings among the groups


class _Rounded(torch.autograd.Function):
    """Weights rounded to int8 steps, [rows, columns], with a straight-through gradient."""

    @staticmethod
    def forward(context: Any, weight: Tensor, limit: int) -> Tensor:
        scale = row_scales(weight, limit)
        return rounded_rows(weight, scale).mul_(scale[:, None])

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0], None


def rounded(weight: Tensor, limit: int = WEIGHT_LIMIT) -> Tensor:
    """Return the weights, [rows, columns], rounded to `limit` steps each way; gradients pass straight through."""
    result: Tensor = _Rounded.apply(weight, limit)  # type: ignore[no-untyped-call]
    return result


class FakeQuantizedLinear(nn.Linear):
    """A linear layer that rounds its weights and inputs while `active`. It shares the parameters of another one.

    Under autocast, rounding is done in fp32, and the product in the type that autocast chooses.

    Attributes:
        limit: largest magnitude of a weight, in steps.
    """

    input_scale: Tensor
    input_zero: Tensor

    def __init__(self, whole: nn.Linear, limit: int = WEIGHT_LIMIT) -> None:
        super().__init__(whole.in_features, whole.out_features, whole.bias is not None, device="meta")
        self.weight, self.bias = whole.weight, whole.bias
        self.register_buffer("input_scale", torch.ones((), device=whole.weight.device))
        self.register_buffer("input_zero", torch.zeros((), dtype=torch.int32, device=whole.weight.device))
        self.limit, self.active = limit, False
        self.train(whole.training)

    def forward(self, values: Tensor) -> Tensor:
        """Project values [..., inputs] to [..., outputs]."""
        if not self.active:
            return super().forward(values)
        seen = torch.fake_quantize_per_tensor_affine(values.float(), self.input_scale, self.input_zero, 0, INPUT_LIMIT)
        return functional.linear(seen, rounded(self.weight, self.limit), self.bias)

    def set_range(self, lowest: float, highest: float) -> None:
        """Set the range within which inputs are rounded."""
        scale, zero = input_range(lowest, highest)
        self.input_scale.fill_(scale)
        self.input_zero.fill_(zero)


class FakeQuantizedEmbedding(nn.Embedding):
    """An embedding that rounds each row while `active`. It shares the parameter of another one."""

    def __init__(self, whole: nn.Embedding) -> None:
        super().__init__(whole.num_embeddings, whole.embedding_dim, whole.padding_idx, device="meta")
        self.weight = whole.weight
        self.active = False
        self.train(whole.training)

    def forward(self, ids: Tensor) -> Tensor:
        """Return the vectors [..., width] of token ids [...]."""
        vectors = super().forward(ids)
        if not self.active:
            return vectors
        return rounded(vectors.reshape(-1, self.embedding_dim)).view(vectors.shape)  # rounds only the rows of these ids


Switch = FakeQuantizedLinear | FakeQuantizedEmbedding


class FakeQuantized:
    """A copy of a model with linear layers and word embeddings that can be switched to int8.

    Args:
        model: not changed.
        portable: whether weights of linear layers get 7 bits, so that sums saturate on no processor.

    Attributes:
        network: the copy, which computes what `model` does until a matrix is switched on.
        portable: as passed.
    """

    def __init__(self, model: PreTrainedModel, portable: bool = True) -> None:
        self.portable = portable
        self.network = copy.deepcopy(model).requires_grad_(True)  # keeps ties between parameters
        prefix, limit = layers_prefix(self.network), weight_limit(portable)
        self._linears = {name: FakeQuantizedLinear(each, limit) for name, each in projections_of(self.network).items()}
        for name, linear in self._linears.items():
            self.network.set_submodule(f"{prefix}{name}", linear)
        place, table = table_of(self.network)
        self._table = FakeQuantizedEmbedding(table)
        self.network.set_submodule(place, self._table)

    def groups(self) -> dict[str, tuple[str, ...]]:
        """Return the groups that are quantized together: for each layer, the projections on one side of one sublayer.

        The word embeddings are a group of their own. Projections are named as in `Quantized.kept`.
        """
        found: dict[str, list[str]] = {EMBEDDINGS: [EMBEDDINGS]}
        sides = _sides(self.network)
        for name in self._linears:
            layer, _, path = name.partition(".")
            side = next((side for start, side in sides if f"{path}.".startswith(f"{start}.")), path)
            found.setdefault(f"{layer}.{side}", []).append(name)
        return {group: tuple(names) for group, names in found.items()}

    @contextmanager
    def observing(self) -> Iterator[None]:
        """Observe the smallest and the largest input of each linear layer, and set them as ranges at the end.

        Raises:
            MethodError: if a linear layer got no input, or values that are not finite.
        """
        seen = {name: (float("inf"), float("-inf")) for name in self._linears}

        def observe(name: str, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            low, high = inputs[0].detach().float().aminmax()
            seen[name] = min(seen[name][0], float(low)), max(seen[name][1], float(high))

        with ExitStack() as stack:
            for name, linear in self._linears.items():
                stack.callback(linear.register_forward_pre_hook(partial(observe, name)).remove)
            yield
        for name, linear in self._linears.items():
            if not all(map(math.isfinite, seen[name])):
                raise MethodError(f"the linear layer '{name}' was given no finite input, so its range is unknown")
            linear.set_range(*seen[name])

    def quantize(self, names: Collection[str]) -> None:
        """Switch these matrices on and all others off."""
        for name, module in self._switches().items():
            module.active = name in names

    def quantized(self) -> Quantized | None:
        """Return what is switched on; `None` if nothing is."""
        kept = tuple(name for name, linear in self._linears.items() if not linear.active)
        if len(kept) == len(self._linears) and not self._table.active:
            return None
        return Quantized(kept, self._table.active, self.portable)

    def names(self) -> list[str]:
        """Return the names of all matrices that can be switched on."""
        return list(self._switches())

    def finished(self) -> PreTrainedModel:
        """Return the quantized model, which computes bit for bit what the network does in fp32."""
        quantized, config = self.quantized(), self.network.config
        with torch.random.fork_rng(devices=[]):  # all random values are overwritten below
            made = new_model(type(self.network), config if quantized is None else with_quantized(config, quantized))
        made = made.to(self.network.device, self.network.dtype)
        state, wanted = self.network.state_dict(), made.state_dict()
        for name, module in quantized_modules(made).items():
            weight = state[f"{name}.weight"]
            linear = isinstance(module, QuantizedLinear)
            scale = row_scales(weight, weight_limit(self.portable)) if linear else row_scales(weight)
            state |= {f"{name}.weight": rounded_rows(weight, scale).to(torch.int8), f"{name}.scale": scale}
        # Strict: a weight that is missing here would stay random.
        made.load_state_dict({name: value for name, value in state.items() if name in wanted})
        return made

    def _switches(self) -> dict[str, Switch]:
        return {EMBEDDINGS: self._table, **self._linears}


def _sides(model: PreTrainedModel) -> list[tuple[str, str]]:
    """Return paths inside a layer, each with the side of the sublayer to which projections under it belong."""
    anatomy = anatomy_of(model.config)
    attention, feed_forward = anatomy.residual_outputs
    return [
        *((each.path, "attention inputs") for each in anatomy.head_inputs),
        *((each.path, "feed-forward inputs") for each in anatomy.neuron_inputs),
        (attention, "attention output"),
        (feed_forward, "feed-forward output"),
    ]
