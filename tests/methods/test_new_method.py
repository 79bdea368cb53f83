"""What a new method takes: a class as below, its card, a line in the contract test and a line in the registry."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

import pytest
import torch
from transformers import PreTrainedModel

import plankwise
import tiny
from plankwise.core.errors import MethodError, RecipeError
from plankwise.core.numbers import Layers
from plankwise.core.recipe import settings, to_plain, validate
from plankwise.encoder.anatomy import layers_of
from plankwise.encoder.quantized import refuse_quantized
from plankwise.encoder.surgery import rebuild, with_depth
from plankwise.methods.method import Compressed, Job, Method, ModelSpec, StepLog, planned
from plankwise.methods.registry import METHODS, union_of
from plankwise.training.distillation.config import DistillationConfig
from plankwise.training.fit import Training

REPOSITORY = Path(__file__).parents[2]
PACKAGE = REPOSITORY / "src" / "plankwise"


class DroppedLog(StepLog):
    """What dropping the top did."""

    dropped: list[int]


@settings
class DropTop(Method):
    """Settings of a toy method: drop the last layers and train nothing.

    Attributes:
        layers: how many to drop.
    """

    method: Literal["drop_top"] = "drop_top"
    layers: Layers = 1
    teacher: DistillationConfig | None = None
    training: Training | None = None

    def plan(self, spec: ModelSpec) -> ModelSpec:
        """Plan the shallower model."""
        refuse_quantized(spec.config)
        left = int(spec.config.num_hidden_layers) - self.layers
        if left < 1:
            raise MethodError(f"layers {self.layers}: nothing would be left; allowed: less than {left + self.layers}")
        return planned(self, spec, with_depth(spec.config, [(layer,) for layer in range(left)]))

    def compress(self, model: PreTrainedModel, job: Job) -> Compressed:
        """Copy all layers but the last ones."""
        depth = len(layers_of(model))
        left = depth - self.layers
        smaller = rebuild(model, [(layer,) for layer in range(left)])
        return Compressed(smaller.eval(), job.tokenizer, DroppedLog(dropped=list(range(left, depth))))


def test_a_method_of_ones_own_is_read_planned_run_saved_and_loaded(tmp_path: Path) -> None:
    known = union_of((*METHODS, DropTop))
    method: Method = validate({"method": "drop_top", "layers": 2}, known)
    assert method == DropTop(layers=2)
    assert validate(to_plain(method), known) == method
    with pytest.raises(RecipeError, match=r"no '?method'? 'drop_tip'; did you mean 'drop_top'"):
        validate({"method": "drop_tip"}, known)
    model = tiny.model()
    after = method.plan(tiny.spec(model))
    made = method.compress(model, tiny.job(tmp_path / "work"))
    assert len(layers_of(made.model)) == after.config.num_hidden_layers == 2
    assert made.log.model_dump() == {"dropped": [2, 3]}
    plankwise.save(made.model, made.tokenizer, tmp_path / "model")
    again = plankwise.load(tmp_path / "model")
    assert all(map(torch.equal, again.state_dict().values(), made.model.state_dict().values()))
    with pytest.raises(MethodError, match="layers 2: nothing would be left; allowed: less than 2"):
        method.plan(after)


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.__name__)
def test_a_method_is_its_file_its_card_and_one_line_in_the_registry_and_the_contract(method: type[Method]) -> None:
    module = method.__module__.rpartition(".")[2]
    registry = (PACKAGE / "methods" / "registry.py").read_text(encoding="utf-8")
    assert registry.count(f"\nfrom plankwise.methods.{module} import {method.__name__}\n") == 1
    assert registry.count(f"\n    {method.__name__},\n") == 1
    assert len(re.findall(rf"\b{method.__name__}\b", registry)) == 2
    assert (PACKAGE / "methods" / f"{module}.md").is_file()
    contract = (REPOSITORY / "tests" / "methods" / "test_contract.py").read_text(encoding="utf-8")
    assert f"Case({method.__name__}(" in re.sub(r"\s", "", contract)
    imported = re.compile(rf"plankwise\.methods(\.| import ){module}\b")
    importers = {path.name for path in PACKAGE.rglob("*.py") if imported.search(path.read_text(encoding="utf-8"))}
    assert importers == {"registry.py"}  # nothing else in the package depends on a single method
