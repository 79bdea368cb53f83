"""Theseus compression: modules of a predecessor are replaced by smaller successors, at random, until none is left.

Xu, Zhou, Ge, Wei, Zhou 2020, "BERT-of-Theseus: Compressing BERT by Progressive Module Replacing", arXiv 2002.02925. The
predecessor's layers are divided into contiguous modules; each gets one successor layer. At every training step each
module runs either its frozen predecessor layers or its successor, by one draw per module (their equations 2 and 3)
whose probability rises over training (section 3.3). At the end all successors run and are trained alone.

Unlike in the reference implementation the predecessor is truly frozen: it has no gradients and no optimizer state, and
layers before the first drawn successor record no graph.
"""

from __future__ import annotations

import logging
from typing import Any, Literal

import pydantic
import torch
from pydantic_core import ArgsKwargs
from transformers import PreTrainedConfig, PreTrainedModel

from plankwise.core.numbers import Layer, Layers, UpToAll
from plankwise.core.recipe import settings
from plankwise.core.seeds import mix_seed
from plankwise.encoder.anatomy import embeddings_of, layer_types, layers_of
from plankwise.encoder.quantized import refuse_quantized
from plankwise.encoder.surgery import Source, rebuild, with_depth
from plankwise.methods.layer_init import Initialization, contiguous_modules, position_in, sources_of
from plankwise.methods.method import Compressed, Job, Method, ModelSpec, planned
from plankwise.methods.module_replacing import Gate
from plankwise.methods.recovery import (
    ReplacingConfig,
    check_blend,
    check_predecessor,
    replace_modules,
    replacing_network,
)
from plankwise.training.distillation.config import DistillationConfig
from plankwise.training.fit import Training

logger = logging.getLogger(__name__)
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


@settings
class Theseus(Method):
    """Settings of Theseus compression.

    Attributes:
        preset: `paper` sets the choices of Xu et al.; a key that contradicts it is refused.
        predecessor: whose layers are replaced: `input`, the model passed to the method, or `baseline`, the run's
            uncompressed model. Successors always start from the model passed in. With `baseline`, layers that earlier
            steps compressed replace those that they were made of. Without a run there is no baseline.
        modules: how many successor layers, or the predecessor's layers of each module.
        initialization: of the successors, by rule or as one layer of the model passed in for each module.
        schedule: of the replacement rate.
        start: the rate at the first step.
        full_at: share of the steps after which every module is replaced; the other steps train the successors alone.
        mode: `replace` draws one branch per module and step; `blend` runs both and mixes them by the rate, without
            randomness (arXiv 2511.18670).
        train_embeddings: whether embeddings are trained, too.
        train_head: whether the pooler, final norm and task head are trained, too.
        predecessor_dropout: whether dropout is active in the frozen predecessor, as in the reference implementation.
        teacher: what is learned from a larger model, beside the task; a layer in its settings is a module here, and is
            compared in the steps in which its successor runs.
        training: of the successors.
    """

    method: Literal["theseus"] = "theseus"
    preset: Literal["paper"] | None = None
    predecessor: Literal["input", "baseline"] = "input"
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
        """Plan the successor model.

        Raises:
            MethodError: if the modules do not fit the predecessor, or the model does not fit into the baseline.
        """
        refuse_quantized(spec.config)
        predecessor = spec.config
        if self.predecessor == "baseline" and spec.baseline is not None:
            predecessor = spec.baseline
        return planned(self, spec, self._config(spec.config, predecessor))

    def compress(self, model: PreTrainedModel, job: Job) -> Compressed:
        """Train one successor layer for each module and return them as a plain, shallower model."""
        predecessor = model
        if self.predecessor == "baseline" and job.baseline is not None:
            predecessor = job.baseline()[0]
        config = self._config(model.config, predecessor.config)
        if self.teacher is not None and self.teacher.relations:
            logger.warning(
                "theseus: teacher.relations %s: no measurement showed a benefit of relations beside module replacing; "
                "use logits here, or relations in distillation",
                self.teacher.relations,
            )
        torch.manual_seed(mix_seed(job.seed, "theseus", "initialization"))
        successor = rebuild(model, self._sources(model.config, predecessor.config), layer_types(config))
        network, gates = self.assemble(predecessor, successor)
        log = replace_modules(
            network,
            gates,
            successor,
            job,
            training=self.training,
            title="theseus",
            replacing=ReplacingConfig(schedule=self.schedule, start=self.start, full_at=self.full_at, mode=self.mode),
            teacher=self.teacher,
            given=model,
        )
        return Compressed(successor.requires_grad_(True).eval(), job.tokenizer, log)

    def assemble(self, predecessor: PreTrainedModel, successor: PreTrainedModel) -> tuple[PreTrainedModel, list[Gate]]:
        """Build the network that is trained, as `replacing_network` does, and freeze what is not trained."""
        modules = contiguous_modules(len(layers_of(predecessor)), self.modules)
        network, gates = replacing_network(predecessor, successor, modules, keep_dropout=self.predecessor_dropout)
        successor.requires_grad_(self.train_head)
        for part in embeddings_of(successor):
            part.requires_grad_(self.train_embeddings)
        layers_of(successor).requires_grad_(True)
        return network, gates

    def _config(self, config: PreTrainedConfig, predecessor: PreTrainedConfig) -> PreTrainedConfig:
        modules = contiguous_modules(int(predecessor.num_hidden_layers), self.modules)
        check_blend(predecessor, modules, self.mode)
        if predecessor is not config:
            check_predecessor(config, predecessor)
        sources, own, types = self._sources(config, predecessor), layer_types(config), layer_types(predecessor)
        wanted = [own[source[0]] if source else "" for source in sources]
        places = [position_in(module, each, types) for module, each in zip(modules, wanted, strict=True)]
        return with_depth(config, sources, [types[place] for place in places])

    def _sources(self, config: PreTrainedConfig, predecessor: PreTrainedConfig) -> list[Source]:
        """Return the layers of the model passed in that each successor starts from."""
        modules = contiguous_modules(int(predecessor.num_hidden_layers), self.modules)
        if predecessor is not config:  # the same modules, on the layers that are left
            modules = contiguous_modules(int(config.num_hidden_layers), len(modules))
        return sources_of(modules, self.initialization)
