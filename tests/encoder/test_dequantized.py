from __future__ import annotations

from pathlib import Path

import pytest
import torch

import tiny
from plankwise.encoder.checkpoint import load_trained, save
from plankwise.encoder.dequantized import dequantized
from plankwise.encoder.fake_quantized import FakeQuantized
from plankwise.encoder.quantized import is_quantized, quantized_modules


@pytest.mark.parametrize("kind", ["bert", "modernbert"])
def test_the_copy_has_the_numbers_of_int8_and_reloads(kind: str, tmp_path: Path) -> None:
    model = tiny.model(kind, layers=2)
    rounding = FakeQuantized(model)
    with torch.no_grad(), rounding.observing():
        rounding.network(**tiny.batch())
    rounding.quantize(rounding.names())
    small = rounding.finished().eval()
    save(dequantized(small), tiny.tokenizer(), tmp_path / "float")
    found = load_trained(str(tmp_path / "float"))
    assert not is_quantized(found.config)
    assert is_quantized(small.config)
    assert quantized_modules(small)
    for name, module in quantized_modules(small).items():
        again, before = found.get_submodule(name).weight, model.get_submodule(name).weight
        torch.testing.assert_close(again, module.weight.float() * module.scale[:, None], rtol=0, atol=0)
        assert ((again - before).abs() <= 0.51 * module.scale[:, None]).all()
    with torch.inference_mode():
        difference = (found(**tiny.batch()).logits - model(**tiny.batch()).logits).abs().max()
    assert 0 < difference < 0.1
