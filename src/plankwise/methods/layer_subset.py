"""Layer subset: keep some layers, drop the others, fine-tune.

The simplest way to a shallower encoder, and the baseline for all others: Sajjad et al. 2023, "On the Effect of Dropping
Layers of Pre-trained Transformer Models", arXiv 2004.03844.
"""

from __future__ import annotations

from typing import Literal

import torch
from transformers import PreTrainedModel

from plankwise.core.numbers import Layer, Layers
from plankwise.core.recipe import settings
from plankwise.core.seeds import mix_seed
from plankwise.encoder.anatomy import layers_of
from plankwise.encoder.quantized import refuse_quantized
from plankwise.encoder.surgery import Source, rebuild, with_depth
from plankwise.methods.layer_init import Initialization, contiguous_modules, sources_of
from plankwise.methods.method import Compressed, Job, Method, ModelSpec, planned
from plankwise.training.distillation.config import DistillationConfig
from plankwise.training.fit import Training
from plankwise.training.on_task import train_on_task


@settings
class LayerSubset(Method):
    """Settings of layer-subset fine-tuning.

    Attributes:
        layers: how many layers to keep.
        keep: which of them, by rule or by number.
        teacher: what is learned from a larger model, beside the task.
        training: of the whole smaller model.
    """

    method: Literal["layer_subset"] = "layer_subset"
    layers: Layers = 6
    keep: Initialization | list[Layer] = "bottom"
    teacher: DistillationConfig | None = None
    training: Training = Training()

    def plan(self, spec: ModelSpec) -> ModelSpec:
        """Plan the shallower model."""
        refuse_quantized(spec.config)
        config = with_depth(spec.config, self._sources(int(spec.config.num_hidden_layers)))
        return planned(self, spec, config)

    def compress(self, model: PreTrainedModel, job: Job) -> Compressed:
        """Copy the kept layers into a plain, shallower model and fine-tune all of it."""
        torch.manual_seed(mix_seed(job.seed, "layer_subset", "initialization"))
        smaller = rebuild(model, self._sources(len(layers_of(model))))
        log = train_on_task(smaller, job, self.training, "layer subset", teacher=self.teacher, given=model)
        return Compressed(smaller.eval(), job.tokenizer, log)

    def _sources(self, depth: int) -> list[Source]:
        return sources_of(contiguous_modules(depth, self.layers), self.keep)
