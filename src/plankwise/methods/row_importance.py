"""The importance of each row of a weight matrix for the task: the diagonal of the empirical Fisher, summed by rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from plankwise.data.batching.inputs import Batch, model_inputs
from plankwise.training.objectives.losses import Loss


def row_importance(
    model: PreTrainedModel, modules: Mapping[str, nn.Module], batches: Iterable[Batch], loss: Loss
) -> dict[str, Tensor]:
    """Sum, over examples, the squared gradient of the loss in each row of each module's weight.

    Gradients are those of single examples although these run in batches, as in ghost clipping (Li et al. 2022, arXiv
    2110.05679): the gradient Σ_t g_t·x_tᵀ of an example has in row i the squared norm Σ_ts g_ti·(x_t·x_s)·g_si. A
    window counts as an example.

    Args:
        model: not changed; it runs without dropout.
        modules: linear layers and embeddings of `model`, by name; their output is [inputs, tokens, rows or width].
        batches: on the device of the model.
        loss: a mean over the batch.

    Returns:
        For each module [rows] in fp64, summed on the CPU, where the order of a sum is always the same.
    """
    sums = {}
    for name, module in modules.items():
        assert isinstance(module, nn.Linear | nn.Embedding)
        sums[name] = torch.zeros(module.weight.shape[0], dtype=torch.float64)
    with _activation_gradients_only(model), ExitStack() as stack:
        for name, module in modules.items():
            stack.callback(module.register_forward_hook(partial(_add_at_backward, sums[name])).remove)
        for batch in batches:
            outputs = model(**model_inputs(model, batch))
            # The loss is a mean over texts; of several windows of a text it is one value.
            examples = int(batch["window_of"].max()) + 1 if "window_of" in batch else len(batch["input_ids"])
            (loss(outputs, batch) * examples).backward()  # type: ignore[no-untyped-call]
    return sums


@contextmanager
def _activation_gradients_only(model: PreTrainedModel) -> Iterator[None]:
    """Compute gradients of activations but of no weights, which saves time and memory."""
    wanted, was_training = [value.requires_grad for value in model.parameters()], model.training
    model.requires_grad_(False).eval()
    # With no weight to differentiate, the graph has to begin at the first activations.
    handle = model.get_input_embeddings().register_forward_hook(_begin_graph)
    try:
        yield
    finally:
        handle.remove()
        model.train(was_training)
        for value, want in zip(model.parameters(), wanted, strict=True):
            value.requires_grad_(want)


def _begin_graph(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
    return output.requires_grad_(True).clone()  # an encoder may change it in place, which is forbidden for a leaf


def _add_at_backward(total: Tensor, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    add = _add_embedding if isinstance(module, nn.Embedding) else _add_linear
    output.register_hook(partial(add, total, inputs[0].detach()))  # type: ignore[no-untyped-call]


def _add_linear(total: Tensor, values: Tensor, gradient: Tensor) -> None:
    """Add the rows of one batch: values [examples, tokens, inputs], gradient [examples, tokens, rows]."""
    each = gradient.float()  # in fp32, whatever the precision of the model
    products = values.float() @ values.float().mT
    total += ((products @ each) * each).sum(dim=(0, 1)).double().cpu()


def _add_embedding(total: Tensor, ids: Tensor, gradient: Tensor) -> None:
    """Add the rows of one batch: ids [examples, tokens], gradient [examples, tokens, width]."""
    each = gradient.float()
    same = (ids[:, :, None] == ids[:, None, :]).float()  # a word that occurs twice in a text has one gradient
    # Every occurrence has the word's whole gradient, so its square is divided among the occurrences.
    squares = (same @ each).square().sum(dim=-1) / same.sum(dim=-1)
    total.index_add_(0, ids.flatten().cpu(), squares.flatten().double().cpu())
