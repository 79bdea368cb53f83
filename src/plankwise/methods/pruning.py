"""Structured pruning: the least important heads and neurons are cut out, and the rest is fitted to the original.

Three steps, none of which needs a label or trains: importance from the gradients of gates (Kwon et al. 2022, arXiv
2204.09656), selection under a budget of operations, parameters or *measured* time (Kurtic et al. 2023, ZipLM, arXiv
2302.04089), and a least-squares reconstruction of the output projections, layer by layer (Park et al. 2024, arXiv
2308.03449). Training afterwards is optional, with the task's loss and, if set, a teacher's.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import pydantic
import torch
from transformers import PreTrainedModel

from plankwise.core.cache import cache_folder
from plankwise.core.distributed import agree
from plankwise.core.errors import MethodError
from plankwise.core.numbers import BatchSize, Bounds, Count, Factor, Rows, Width
from plankwise.core.progress import bar
from plankwise.core.recipe import settings
from plankwise.core.seeds import mix_seed
from plankwise.encoder.anatomy import layers_of
from plankwise.encoder.low_rank import has_low_rank
from plankwise.encoder.quantized import refuse_quantized
from plankwise.encoder.shapes import prune
from plankwise.encoder.surgery import frozen_twin
from plankwise.methods.cost_table import CostTable, flops_costs, parameter_costs
from plankwise.methods.importance import Importance, gate_importance, magnitude_importance
from plankwise.methods.importance_cache import cached_importance, importance_key
from plankwise.methods.latency import check_latency, latency_costs
from plankwise.methods.layer_sizes import LatencyPrecision, LatencyRuntime, LatencyTarget
from plankwise.methods.method import Compressed, Job, Method, ModelSpec, StepLog, planned
from plankwise.methods.reconstruction import reconstruct
from plankwise.methods.recovery import ReplacingConfig, check_replacing, recover
from plankwise.methods.selection import Selection, cut_evenly, cut_summary, select, select_uniform
from plankwise.training.distillation.config import DistillationConfig, check_taught
from plankwise.training.fit import Training

RECONSTRUCTION_TOKENS = 65_536  # whose hidden states of one layer are held in memory, of both models
MEASURES = {"flops": flops_costs, "parameters": parameter_costs}


class PruningLog(StepLog):
    """What structured pruning did.

    Attributes:
        pruning: operations before and after, and each layer's heads and neurons.
        repaired: for each sublayer, from the first, the share of the squared error that reconstruction removed.
    """

    pruning: Mapping[str, Any]
    repaired: list[float] | None = None


@settings(renamed={"repair": "reconstruction"})
class Pruning(Method):
    """Settings of structured pruning.

    Attributes:
        target: how many times the measured cost becomes smaller.
        measure: of the cost: operations of the linear layers of all Transformer layers, parameters of the whole model,
            or the time of a batch on this machine, by a table that is measured once.
        latency_shape: texts in a call, and tokens in each, that the table of times is measured for.
        latency_runtime: what the table is measured in: torch eager, or the runtime that the result will be exported to,
            with as many calls at once as there are cores.
        latency_precision: of the exported layers that are timed; int8 where the result will be quantized.
        importance: how units are ranked; `magnitude` uses weights alone.
        labels: whether gradients are computed at the task's labels, not at the model's own predictions.
        shape: `free` gives each layer its own sizes; `uniform` gives all layers the same numbers of heads and of
            neurons; `plain` the same number of neurons and all heads, which a plain configuration can express.
        neuron_step: each layer keeps a multiple of this many neurons, or all of them.
        examples: training texts, or blocks of a corpus, that importance and reconstruction use at most.
        reconstruction: whether output projections are fitted to the unpruned model.
        ridge: strength of the fit's pull towards the weights as they were cut, as a share of the inputs' mean square.
        teacher: what training afterwards learns from, besides the task.
        training: afterwards; none by default.
        replacing: how training goes, by module replacing: at each step some layers run as they were, frozen, and others
            pruned, until all are. By default the pruned model trains alone.
    """

    method: Literal["pruning"] = "pruning"
    target: Factor = 2.0
    measure: Literal["flops", "parameters", "latency"] = "flops"
    latency_shape: tuple[BatchSize, Count] = (8, 128)
    latency_runtime: LatencyRuntime = "torch"
    latency_precision: LatencyPrecision = "fp32"
    importance: Literal["fisher", "taylor", "magnitude"] = "fisher"
    labels: bool = False
    shape: Literal["free", "uniform", "plain"] = "free"
    neuron_step: Width = 8
    examples: Rows = 2000
    reconstruction: bool = True
    ridge: Annotated[float, Bounds(0, 1_000_000, "nothing would be fitted", above=True)] = 1e-3
    teacher: DistillationConfig | None = None
    training: Training | None = None
    replacing: ReplacingConfig | None = None

    @pydantic.model_validator(mode="after")
    def _teacher_needs_training(self) -> Pruning:
        check_taught(self.teacher, self.training)
        check_replacing(self.replacing, self.training)
        return self

    @pydantic.model_validator(mode="after")
    def _latency_is_measured(self) -> Pruning:
        if self.latency_precision != "fp32" and self.latency_runtime == "torch":
            raise ValueError(
                f"latency_precision {self.latency_precision} is that of an export, and latency_runtime is torch; "
                "allowed: latency_runtime openvino or onnx"
            )
        if self.latency_runtime != "torch" and self.measure != "latency":
            raise ValueError(
                f"latency_runtime {self.latency_runtime} is for measure: latency; measure is {self.measure}"
            )
        return self

    @property
    def latency_target(self) -> LatencyTarget:
        """What times are measured in."""
        return LatencyTarget(self.latency_runtime, self.latency_precision)

    def plan(self, spec: ModelSpec) -> ModelSpec:
        """Plan a model that is cut evenly; only the importance decides how much each layer loses.

        Raises:
            MethodError: if the model's feed-forward layers are low-rank, or times cannot be measured for it.
        """
        refuse_quantized(spec.config)
        if has_low_rank(spec.config, "feed_forward"):
            raise MethodError("pruning cannot cut low-rank layers; put low_rank after pruning")
        if self.measure == "latency":
            check_latency(spec.config, self.latency_target, self.latency_shape[1])
        return planned(self, spec, cut_evenly(spec.config, 1 / self.target, whole_heads=self.shape == "plain"))

    def examples_used(self, available: int) -> int:
        """Return how many texts, or blocks of a corpus, importance and reconstruction use."""
        return min(available, self.examples)

    def compress(self, model: PreTrainedModel, job: Job) -> Compressed:
        """Rank heads and neurons, select, cut, reconstruct, and train if the settings say so."""
        begun, seconds, log = time.perf_counter(), dict[str, float](), StepLog()
        importance, examples, measured_before = self._importance(model, job)
        seconds["importance"] = time.perf_counter() - begun if measured_before is None else measured_before
        begun = time.perf_counter()
        selection = self._select(model, job, importance)
        seconds["selection"] = time.perf_counter() - begun
        smaller = prune(model, selection.heads, selection.neurons)
        repaired = None
        if self.reconstruction:
            begun = time.perf_counter()
            repaired, used = self._reconstruct(smaller, model, job)
            examples = examples or used
            seconds["repair"] = time.perf_counter() - begun
        if self.training is not None:
            log = recover(
                smaller, model, job, self.training, title="recovery", teacher=self.teacher, replacing=self.replacing
            )
        own = {"seconds": seconds, "examples": examples}
        whole = PruningLog(**{**dict(log), **own}, repaired=repaired, pruning=cut_summary(model, smaller))
        return Compressed(smaller.eval(), job.tokenizer, whole)

    def _select(self, model: PreTrainedModel, job: Job, importance: Importance) -> Selection:
        heads, neurons = importance
        costs = self._costs(model, job)
        budget = costs.full() / self.target
        if self.shape == "free":
            selection = select(heads, neurons, costs, budget, neuron_step=self.neuron_step)
        else:
            all_heads = self.shape == "plain"
            selection = select_uniform(
                heads, neurons, costs, budget, neuron_step=self.neuron_step, whole_heads=all_heads
            )
        # Sums of floats may differ in the last bit between processes, and with them a close selection.
        agree(repr(selection), "the heads and neurons that stay")
        return selection

    def _importance(self, model: PreTrainedModel, job: Job) -> tuple[Importance, int | None, float | None]:
        """Measure the units' importance, or take it as it was measured before for another target.

        Returns:
            The importance, on how many examples it was measured, and in how many seconds where it is kept on disk.
        """
        if self.importance == "magnitude":
            return magnitude_importance(model), None, None
        kind, seed = self.importance, mix_seed(job.seed, "own labels")
        generator = torch.Generator(model.device).manual_seed(seed)
        loss = None if self.labels else job.objective.own_label_loss(generator)
        # A twin shares the weights but none of their gradients: only the gates are differentiated.
        network = frozen_twin(model).eval()
        cache = cache_folder() / "importance" if job.cache is None else job.cache / "importance"
        with (
            job.objective.sample(network, job, self.examples, loss=loss) as sample,
            bar("importance", sample.examples, job.progress) as shown,
        ):
            drawn = "the task's labels" if self.labels else seed
            key = importance_key(network, sample, kind, repr(job.objective), drawn)
            found = cached_importance(cache / key, lambda: gate_importance(network, sample, kind, shown))
            return found.importance, sample.examples, found.seconds

    def _costs(self, model: PreTrainedModel, job: Job) -> CostTable:
        if self.measure == "latency":
            batch_size, tokens = self.latency_shape
            return latency_costs(
                model, batch_size=batch_size, tokens=tokens, target=self.latency_target, progress=job.progress
            )
        return MEASURES[self.measure](model)

    def _reconstruct(self, smaller: PreTrainedModel, model: PreTrainedModel, job: Job) -> tuple[list[float], int]:
        """Fit the output projections; return the shares of the error that went, and on how many examples."""
        with (
            job.objective.sample(model, job, self.examples, tokens=RECONSTRUCTION_TOKENS) as sample,
            bar("reconstruction", len(layers_of(model)), job.progress) as shown,
        ):
            gains = reconstruct(smaller, model, list(sample.batches()), ridge=self.ridge, on_layer=shown)
            return gains, sample.examples
