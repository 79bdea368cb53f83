"""Theseus compression: modules of a predecessor are replaced by smaller successors, at random, until none is left.

Xu, Zhou, Ge, Wei, Zhou 2020, "BERT-of-Theseus: Compressing BERT by Progressive Module Replacing", arXiv 2002.02925. The
predecessor's layers are divided into contiguous modules; each gets one successor layer. At every training step each
module runs either its frozen predecessor layers or its successor, by one draw per module (their equations 2 and 3)
whose probability rises over training (section 3.3). At the end all successors run and are trained alone.

Unlike in the reference implementation the predecessor is truly frozen: it has no gradients and no optimizer state, and
layers before the first drawn successor record no graph.
"""

from __future__ import annotations

from typing import Any, Literal

import pydantic
import torch
from pydantic_core import ArgsKwargs
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from plankwise.core.distributed import agree
from plankwise.core.errors import MethodError
from plankwise.core.numbers import Layer, Layers, UpToAll
from plankwise.core.recipe import settings
from plankwise.core.schedules import SCHEDULES
from plankwise.core.seeds import mix_seed
from plankwise.encoder.anatomy import (
    embeddings_of,
    has_convolution,
    layer_types,
    layers_of,
    set_layers,
)
from plankwise.encoder.quantized import refuse_quantized
from plankwise.encoder.surgery import copy_outside_layers, frozen_twin, rebuild, thaw, with_depth
from plankwise.methods.layer_init import Initialization, contiguous_modules, position_in, sources_of
from plankwise.methods.method import Compressed, Job, Method, ModelSpec, StepLog, planned
from plankwise.methods.module_replacing import Gate, Replacing, Slot
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
    """What Theseus compression did; `draws_sha256` is equal for two runs that drew the same modules at each step."""

    draws_sha256: str


@settings
class Theseus(Method):
    """Settings of Theseus compression.

    Attributes:
        preset: `paper` sets the choices of Xu et al.; a key that contradicts it is refused.
        modules: how many successor layers, or the predecessor's layers of each module.
        initialization: of the successors, by rule or as one predecessor layer for each module.
        schedule: of the replacement rate.
        start: the rate at the first step.
        full_at: share of the steps after which every module is replaced; the other steps train the successors alone.
        mode: `replace` draws one branch per module and step; `blend` runs both and mixes them by the rate, without
            randomness (arXiv 2511.18670).
        train_embeddings: whether embeddings are trained, too.
        train_head: whether the pooler, final norm and task head are trained, too.
        predecessor_dropout: whether dropout is active in the frozen predecessor, as in the reference implementation.
        teacher: what is learned from a larger model, beside the task; a layer in its settings is a module here.
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
        # Only weights of the second phase may be selected: while predecessors run, successors are not trained alone.
        log = train_on_task(
            network,
            job,
            self.training,
            "theseus",
            on_step=replacing,
            select_from=self.full_at,
            teacher=self.teacher,
            given=model,
            depths=_recorded_depths(network, successor),
        )
        agree(replacing.digest(), "the draws of Theseus")
        copy_outside_layers(network, successor)  # embeddings and head, which may have been trained in `network`
        assert log.training is not None
        redraws = replacing.redraws_until(log.training.steps, log.training.planned_steps)
        whole = TheseusLog(**{**dict(log), "redraws": redraws}, draws_sha256=replacing.digest())
        return Compressed(successor.requires_grad_(True).eval(), job.tokenizer, whole)

    def _config(self, config: PreTrainedConfig) -> PreTrainedConfig:
        modules = contiguous_modules(int(config.num_hidden_layers), self.modules)
        sources, own = sources_of(modules, self.initialization), layer_types(config)
        types = [own[position_in(module, source, own)] for module, source in zip(modules, sources, strict=True)]
        return with_depth(config, sources, types)

    def assemble(self, model: PreTrainedModel, successor: PreTrainedModel) -> tuple[PreTrainedModel, list[Gate]]:
        """Build the network that is trained: a frozen twin of `model` with the layers of `successor` in its slots.

        Every predecessor layer keeps its slot, so that the encoder's own loop, and what it does between layers, runs
        unchanged. The successor of a module is in one of its slots; once it runs, the other slots pass their input on.
        """
        if self.mode == "blend" and has_convolution(model):
            raise MethodError("mode 'blend' cannot work on this DeBERTa-v2: it convolves after layer 0; use 'replace'")
        modules = contiguous_modules(len(layers_of(model)), self.modules)
        sources, types = sources_of(modules, self.initialization), layer_types(model.config)
        network = frozen_twin(model)
        slots, gates = [], []
        for module, source, layer in zip(modules, sources, layers_of(successor), strict=True):
            gate, position = Gate(), position_in(module, source, types)
            gates.append(gate)
            for index in module:
                slot = Slot(
                    layers_of(network)[index],
                    gate,
                    model.config,
                    successor=layer if index == position else None,
                    is_first=index == module[0],
                    is_last=index == module[-1],
                    keep_dropout=self.predecessor_dropout,
                )
                slots.append(slot)
        set_layers(network, nn.ModuleList(slots))
        # The layers' parameters are set already: predecessors frozen, successors trainable.
        embeddings = {id(value) for part in embeddings_of(network) for value in part.parameters()}
        layers = {id(value) for value in layers_of(network).parameters()}
        outside = [value for value in network.parameters() if id(value) not in layers]
        thaw(value for value in outside if (self.train_embeddings if id(value) in embeddings else self.train_head))
        return network, gates


def _recorded_depths(network: PreTrainedModel, successor: PreTrainedModel) -> list[Depth]:
    """Return where a teacher's loss records each module: after its last slot, in the last layer of either branch."""
    ends = [slot for slot in layers_of(network) if isinstance(slot, Slot) and slot.is_last]
    return [Depth(end, (end.predecessor, layer)) for end, layer in zip(ends, layers_of(successor), strict=True)]
