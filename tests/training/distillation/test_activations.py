"""Recorded activations are those of the model itself, in every architecture."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

import tiny
from plankwise.encoder.anatomy import layers_of, query_key_value_of
from plankwise.training.distillation.activations import ActivationRecorder

KINDS = pytest.mark.parametrize("kind", tiny.ARCHITECTURES)


@KINDS
def test_hidden_states_are_those_that_the_model_reports(kind: str) -> None:
    model = tiny.model(kind, 3, conv_kernel_size=0) if kind == "deberta-v2" else tiny.model(kind, 3)
    hooks = tiny.hooks_of(model)
    recorder = ActivationRecorder(model, list(layers_of(model)), [0, 1], 2)
    with recorder.on(), torch.no_grad():
        # In a copy: Transformers leaves hooks of its own on a model that returned hidden states.
        states = copy.deepcopy(model)(**tiny.batch(), output_hidden_states=True).hidden_states
        model(**tiny.batch())
        for depth in (0, 1):
            torch.testing.assert_close(recorder.hidden(depth), states[depth + 1])
        assert {part.shape[:2] for part in recorder.query_key_value()} == {(4, 12)}
        assert [part.shape[2] for part in recorder.query_key_value()] == recorder.widths()
    assert tiny.hooks_of(model) == hooks


@KINDS
def test_queries_keys_and_values_are_projections_of_the_same_states(kind: str) -> None:
    """Fused projections are cut where they are stacked; of several calls that of the tokens counts."""
    model = tiny.model(kind, 1)
    recorder = ActivationRecorder(model, list(layers_of(model)), [], 0)
    outputs: list[Any] = []
    linear, _, parts = query_key_value_of(model, layers_of(model)[0])[0]
    linear.register_forward_hook(lambda _, inputs, output: outputs.append(output))
    with recorder.on(), torch.no_grad():
        model(**tiny.batch())
        recorded = recorder.query_key_value()
    width = linear.out_features // parts
    torch.testing.assert_close(recorded[0], outputs[0][..., :width])
    if parts == 3:
        torch.testing.assert_close(torch.cat(recorded, dim=-1), outputs[0])
