"""Theseus compression: replace a predecessor's modules by smaller successors, at random, until none is left.

Xu, Zhou, Ge, Wei, Zhou 2020, "BERT-of-Theseus: Compressing BERT by Progressive Module Replacing", arXiv 2002.02925. The
predecessor's layers are cut into contiguous modules; each gets one successor layer. At every training step each module
runs either its frozen predecessor layers or its successor, by one draw per module whose probability rises over
training; at the end all successors run and go on training alone. The objective is the job's own.

Unlike the reference implementation the predecessor is frozen for real: it gets no gradients and no optimizer state, and
the layers in front of the first successor that was drawn record no graph at all.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any, Literal

import numpy as np
import pydantic
import torch
from pydantic_core import ArgsKwargs
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

from plankwise.core.distributed import agree
from plankwise.core.errors import MethodError
from plankwise.core.numbers import Layer, Layers, UpToAll
from plankwise.core.recipe import settings
from plankwise.core.schedules import SCHEDULES, Schedule
from plankwise.core.seeds import mix_seed
from plankwise.encoder.anatomy import (
    as_layer_output,
    embeddings_of,
    has_convolution,
    hidden_of,
    layer_types,
    layers_of,
    set_layers,
)
from plankwise.encoder.quantized import refuse_quantized
from plankwise.encoder.surgery import copy_outside_layers, frozen_twin, rebuild, thaw, with_depth
from plankwise.methods.layer_init import Initialization, contiguous_modules, sources_of, standing_at
from plankwise.methods.method import Compressed, Job, Method, ModelSpec, StepLog, planned
from plankwise.training.distillation.activations import Depth
from plankwise.training.distillation.config import DistillationConfig
from plankwise.training.fit import Training
from plankwise.training.on_task import train_on_task

PRESETS: dict[str, dict[str, Any]] = {
    "paper": {
        "initialization": "bottom",
        "schedule": "linear",
        "start": 0.3,
        "mode": "replace",
        "train_embeddings": False,
        "train_head": False,
        "predecessor_dropout": True,
    }
}


class TheseusLog(StepLog):
    """What Theseus compression did; `draws_sha256` tells whether two runs drew the same modules at each step."""

    draws_sha256: str


@settings
class Theseus(Method):
    """Settings of Theseus compression.

    Attributes:
        preset: `paper` sets the choices of Xu et al.; a key that contradicts it is refused.
        modules: how many successor layers, or the predecessor's layers of each module.
        initialization: where successors start from, by rule or as one predecessor layer for each module.
        schedule: how the replacement rate rises.
        start: the rate at the first step.
        full_at: share of the steps after which every module is replaced; the rest trains the successors alone.
        mode: `replace` draws one branch per module and step; `blend` runs both and mixes them by the rate
            (deterministic, arXiv 2511.18670).
        train_embeddings: whether embeddings learn along.
        train_head: whether the pooler, final norm and task head learn along.
        predecessor_dropout: keep dropout active in the frozen predecessor, as the reference does.
        teacher: what is learned from a larger model beside the task; a layer of its settings is a module here.
        training: of the successors.
    """

    method: Literal["theseus"] = "theseus"
    preset: Literal["paper"] | None = None
    modules: Layers | list[list[Layer]] = 6
    initialization: Initialization | list[Layer] = "first_of_module"
    schedule: Literal["linear", "constant", "cosine"] = "linear"
    start: UpToAll = 0.2
    full_at: UpToAll = 0.85
    mode: Literal["replace", "blend"] = "replace"
    train_embeddings: bool = False
    train_head: bool = True
    predecessor_dropout: bool = False
    teacher: DistillationConfig | None = None
    training: Training = Training()

    @pydantic.model_validator(mode="before")
    @classmethod
    def _apply_preset(cls, given: Any) -> Any:
        keys = dict(given.kwargs or {}) if isinstance(given, ArgsKwargs) else given
        if not isinstance(keys, dict) or not isinstance(keys.get("preset"), str):
            return given
        return {**PRESETS.get(keys["preset"], {}), **keys}

    @pydantic.model_validator(mode="after")
    def _agree_with_preset(self) -> Theseus:
        for key, value in PRESETS.get(self.preset or "", {}).items():
            if getattr(self, key) != value:
                raise ValueError(
                    f"{key} {getattr(self, key)!r} contradicts the preset '{self.preset}', which has {value!r}"
                )
        if self.preset is not None and self.teacher is not None:
            raise ValueError(f"a teacher contradicts the preset '{self.preset}', which learns from the task alone")
        return self

    def plan(self, spec: ModelSpec) -> ModelSpec:
        """Plan the successor model."""
        refuse_quantized(spec.config)
        return planned(self, spec, self._config(spec.config))

    def compress(self, model: PreTrainedModel, job: Job) -> Compressed:
        """Train one successor layer for each module and return them as a plain, shallower model."""
        config = self._config(model.config)
        modules = contiguous_modules(len(layers_of(model)), self.modules)
        torch.manual_seed(mix_seed(job.seed, "theseus", "initialization"))
        successor = rebuild(model, sources_of(modules, self.initialization), layer_types(config))
        network, gates = self.assemble(model, successor)
        replacing = Replacing(SCHEDULES[self.schedule](self.start, self.full_at), gates, job.seed, self.mode)
        # What counts is the model after both phases: one chosen while predecessors still ran was never trained alone.
        log = train_on_task(
            network,
            job,
            self.training,
            "theseus",
            on_step=replacing,
            select_from=self.full_at,
            teacher=self.teacher,
            given=model,
            depths=_depths(network, successor),
        )
        agree(replacing.digest(), "the draws of Theseus")
        copy_outside_layers(network, successor)
        assert log.training is not None
        redraws = replacing.redraws_until(log.training.steps, log.training.planned_steps)
        whole = TheseusLog(**{**dict(log), "redraws": redraws}, draws_sha256=replacing.digest())
        return Compressed(successor.requires_grad_(True).eval(), job.tokenizer, whole)

    def _config(self, config: PreTrainedConfig) -> PreTrainedConfig:
        modules = contiguous_modules(int(config.num_hidden_layers), self.modules)
        sources, own = sources_of(modules, self.initialization), layer_types(config)
        types = [own[standing_at(module, source, own)] for module, source in zip(modules, sources, strict=True)]
        return with_depth(config, sources, types)

    def assemble(self, model: PreTrainedModel, successor: PreTrainedModel) -> tuple[PreTrainedModel, list[Gate]]:
        """Build the network that trains: a frozen twin of `model` whose layers give way to those of `successor`.

        Every predecessor layer keeps its slot, so that the encoder's own loop, with whatever it does between layers,
        runs unchanged; the successor of a module stands in one of its slots and the others pass through.
        """
        if self.mode == "blend" and has_convolution(model):
            raise MethodError("mode 'blend' cannot work on this DeBERTa-v2: it convolves behind layer 0; use 'replace'")
        modules = contiguous_modules(len(layers_of(model)), self.modules)
        sources, types = sources_of(modules, self.initialization), layer_types(model.config)
        network = frozen_twin(model)
        slots, gates = [], []
        for module, source, layer in zip(modules, sources, layers_of(successor), strict=True):
            gate, stand = Gate(), standing_at(module, source, types)
            gates.append(gate)
            for index in module:
                place = Slot(layers_of(network)[index], gate, model.config, index == module[0], index == module[-1])
                place.keep_dropout = self.predecessor_dropout
                if index == stand:
                    place.successor = layer
                slots.append(place)
        set_layers(network, nn.ModuleList(slots))
        embeddings = {id(value) for part in embeddings_of(network) for value in part.parameters()}
        layers = {id(value) for value in layers_of(network).parameters()}
        outside = [value for value in network.parameters() if id(value) not in layers]
        thaw(value for value in outside if (self.train_embeddings if id(value) in embeddings else self.train_head))
        return network, gates


def _depths(network: PreTrainedModel, successor: PreTrainedModel) -> list[Depth]:
    """Say where each module is heard: behind its last slot, and inside the last layer of the branch that ran."""
    ends = [slot for slot in layers_of(network) if isinstance(slot, Slot) and slot.closes]
    return [Depth(end, (end.predecessor, layer)) for end, layer in zip(ends, layers_of(successor), strict=True)]


class Gate:
    """Which branch a module runs in training: 0 the predecessor, 1 the successor, between them a blend of both."""

    share = 0.0
    entry: Tensor
    replacement: Tensor


class Slot(nn.Module):
    """The place of one predecessor layer. It is called and answers like the layer; in evaluation it is replaced."""

    def __init__(self, predecessor: nn.Module, gate: Gate, config: PreTrainedConfig, opens: bool, closes: bool) -> None:
        super().__init__()
        self.predecessor, self.successor = predecessor, None
        self.gate, self._config, self._opens, self.closes = gate, config, opens, closes
        self.keep_dropout = False

    successor: nn.Module | None

    def __getattr__(self, name: str) -> Any:
        """Answer for the layer where the encoder asks something of it, such as ModernBERT its attention type."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("predecessor"), name)

    def train(self, mode: bool = True) -> Slot:
        """Switch modes; the frozen predecessor stays in evaluation, without dropout, unless asked."""
        super().train(mode)
        if not self.keep_dropout:
            self.predecessor.eval()
        return self

    def forward(self, hidden: Tensor, *args: Any, **kwargs: Any) -> Any:
        """Map hidden states, [batch, tokens, width], by the branch that the gate says."""
        share = self.gate.share if self.training else 1.0
        if share == 1.0:
            if self.successor is not None:
                return self.successor(hidden, *args, **kwargs)
            return as_layer_output(self._config, hidden)
        if share == 0.0:
            return self.predecessor(hidden, *args, **kwargs)
        return self._blend(share, hidden, *args, **kwargs)

    def _blend(self, share: float, hidden: Tensor, *args: Any, **kwargs: Any) -> Any:
        """Run both branches side by side and mix them at the module's last slot: (1 − α)·predecessor + α·successor."""
        if self._opens:
            self.gate.entry = hidden
        if self.successor is not None:
            self.gate.replacement = hidden_of(self.successor(self.gate.entry, *args, **kwargs))
        output = self.predecessor(hidden, *args, **kwargs)
        if not self.closes:
            return output
        mixed = (1.0 - share) * hidden_of(output) + share * self.gate.replacement
        del self.gate.entry, self.gate.replacement
        return as_layer_output(self._config, mixed)


class Replacing:
    """Sets the gates before each step. Draws are a function of (seed, step): equal on every rank and after a resume."""

    def __init__(self, schedule: Schedule, gates: list[Gate], seed: int, mode: Literal["replace", "blend"]) -> None:
        self._schedule, self._gates, self._mode = schedule, gates, mode
        self._seed = mix_seed(seed, "theseus", "draws")
        self._digest = hashlib.sha256()

    def __call__(self, step: int, total: int) -> None:
        """Set every gate for this step."""
        rate = self._schedule(step / total)
        shares = [rate] * len(self._gates) if self._mode == "blend" else self.draw(step, rate)[0]
        for gate, share in zip(self._gates, shares, strict=True):
            gate.share = share
        self._digest.update(json.dumps([step, shares]).encode())

    def draw(self, step: int, rate: float) -> tuple[list[float], int]:
        """Draw each module's branch, 1.0 for the successor, and count how often all drew the predecessor.

        Such a draw would train nothing, so it is drawn again, from the same stream.
        """
        generator = np.random.default_rng([self._seed, step])
        redraws = 0
        while not (chosen := generator.random(len(self._gates)) < rate).any():
            redraws += 1
        return chosen.astype(float).tolist(), redraws

    def redraws_until(self, steps: int, total: int) -> int:
        """Count the redraws of the first `steps` steps, whether this process ran them or one before it."""
        if self._mode == "blend":
            return 0
        return sum(self.draw(step, self._schedule(step / total))[1] for step in range(steps))

    def digest(self) -> str:
        """Hash what this process has drawn so far."""
        return self._digest.hexdigest()
