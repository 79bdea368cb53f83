"""Recovery: a compressed model is trained, as it is or by replacing the modules of the model that it was made of.

Module replacing (Xu et al. 2020, arXiv 2002.02925) asks nothing of a successor but the width of its input and output.
It may be one layer for several, as in Theseus compression, or a layer that was pruned, factorized or rounded: at each
step some layers run as they were before, frozen, and the others as they were compressed.
"""

from __future__ import annotations

import copy
from typing import Literal

from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from plankwise.core.distributed import agree
from plankwise.core.errors import MethodError
from plankwise.core.numbers import UpToAll
from plankwise.core.recipe import settings
from plankwise.core.schedules import SCHEDULES
from plankwise.core.step_log import StepLog
from plankwise.encoder.anatomy import KEYS_OF_ALL_LAYERS, has_convolution, layer_types, layers_of, set_layers
from plankwise.encoder.configuration import head_size
from plankwise.encoder.surgery import frozen_twin, share_outside_layers
from plankwise.methods.layer_init import Modules, position_in
from plankwise.methods.module_replacing import Gate, Replacing, Slot
from plankwise.training.distillation.config import DistillationConfig
from plankwise.training.fit import Training
from plankwise.training.objectives.objective import Job
from plankwise.training.on_task import train_on_task

Mode = Literal["replace", "blend"]


@settings
class ReplacingConfig:
    """Settings of a training in which compressed layers replace the layers that they were made of.

    Attributes:
        schedule: of the replacement rate.
        start: the rate at the first step.
        full_at: share of the steps after which every layer is replaced; the other steps train the result alone.
        mode: `replace` draws one branch per layer and step; `blend` runs both and mixes them by the rate, without
            randomness (arXiv 2511.18670).
    """

    schedule: Literal["linear", "constant", "cosine"] = "linear"
    start: UpToAll = 0.3
    full_at: UpToAll = 0.7
    mode: Mode = "replace"


def check_replacing(replacing: ReplacingConfig | None, training: Training | None) -> None:
    """Check, as a validator of settings, that replacing comes with a training.

    Raises:
        ValueError: naming what is allowed.
    """
    if replacing is not None and training is None:
        raise ValueError("replacing is a way of training; add training, or leave replacing out")


def recover(
    smaller: PreTrainedModel,
    model: PreTrainedModel,
    job: Job,
    training: Training,
    *,
    title: str,
    teacher: DistillationConfig | None,
    replacing: ReplacingConfig | None,
) -> StepLog:
    """Train all of `smaller` in place, by module replacing if `replacing` is set, and return what was done.

    Args:
        smaller: with as many layers as `model`.
        model: that `smaller` was made of; it is not changed.
        job: what is trained on.
        training: settings.
        title: of the progress bar.
        teacher: what is learned besides the task.
        replacing: settings; without them `smaller` trains alone.
    """
    if replacing is None:
        return train_on_task(smaller, job, training, title, teacher=teacher, given=model)
    network, gates = replacing_network(model, smaller, [[index] for index in range(len(layers_of(model)))])
    return replace_modules(
        network, gates, smaller, job, training=training, title=title, replacing=replacing, teacher=teacher, given=model
    )


def check_predecessor(config: PreTrainedConfig, predecessor: PreTrainedConfig) -> None:
    """Refuse, for layers of a model, to replace those of a predecessor that they do not fit.

    Args:
        config: of the model with the successors.
        predecessor: of the model whose layers are replaced.

    Raises:
        MethodError: naming what differs.
    """
    pairs = [(name, getattr(predecessor, name, None), getattr(config, name, None)) for name in KEYS_OF_ALL_LAYERS]
    pairs.append(("width of a head", head_size(predecessor), head_size(config)))
    for name, theirs, own in pairs:
        if theirs != own:
            raise MethodError(
                f"predecessor 'baseline': its {name} is {theirs}, and that of the model so far is {own}; allowed: input"
            )


def check_blend(config: PreTrainedConfig, modules: Modules, mode: Mode) -> None:
    """Refuse to blend a module that has something other than layers inside it.

    Raises:
        MethodError: naming what is allowed.
    """
    if mode == "blend" and len(modules[0]) > 1 and has_convolution(config):
        raise MethodError("mode 'blend' cannot work on this DeBERTa-v2: it convolves after layer 0; allowed: replace")


def replacing_network(
    predecessor: PreTrainedModel, successor: PreTrainedModel, modules: Modules, *, keep_dropout: bool = False
) -> tuple[PreTrainedModel, list[Gate]]:
    """Build the network that is trained, and the gate of each of its modules.

    It has the layers of `predecessor`, frozen, in their slots, the layers of `successor` beside them, and everything
    outside the layers of `successor`. What is trained in it is trained in `successor`. Every predecessor layer keeps
    its slot, so that the encoder's own loop, and what it does between layers, runs unchanged. The successor of a module
    is in one of its slots; once it runs, the other slots pass their input on.

    Args:
        predecessor: not changed; its layers may have any sizes inside, and share their memory with the network.
        successor: of the same width, with one layer for each module.
        modules: layers of `predecessor`.
        keep_dropout: whether the predecessor's dropout is active in training.
    """
    network, types = frozen_twin(predecessor), layer_types(predecessor.config)
    slots, gates = [], []
    for module, wanted, layer in zip(modules, layer_types(successor.config), layers_of(successor), strict=True):
        gate, position = Gate(), position_in(module, wanted, types)
        gates.append(gate)
        for index in module:
            slot = Slot(
                layers_of(network)[index],
                gate,
                predecessor.config,
                successor=layer if index == position else None,
                is_first=index == module[0],
                is_last=index == module[-1],
                keep_dropout=keep_dropout,
            )
            slots.append(slot)
    set_layers(network, nn.ModuleList(slots))
    share_outside_layers(successor, network)
    # The encoder's loop goes by the predecessor's configuration, head and teacher by that of what is around the layers.
    network.config = copy.deepcopy(successor.config)
    network.config.num_hidden_layers = len(slots)
    if getattr(network.config, "layer_types", None):
        network.config.layer_types = types
    return network, gates


def replace_modules(
    network: PreTrainedModel,
    gates: list[Gate],
    successor: PreTrainedModel,
    job: Job,
    *,
    training: Training,
    title: str,
    replacing: ReplacingConfig,
    teacher: DistillationConfig | None,
    given: PreTrainedModel,
) -> StepLog:
    """Train `successor` in place, inside the network that `replacing_network` made of it, and return what was done.

    A teacher's losses compare the successor's layers alone, each in the steps in which it runs. The layers of the
    predecessor are frozen and often the teacher's own: compared as well, they would pass a gradient on to earlier
    successors and learn nothing themselves.

    Args:
        network: to train.
        gates: of its modules.
        successor: one layer for each gate; what of it has gradients is trained.
        job: what is trained on.
        training: settings.
        title: of the progress bar.
        replacing: settings.
        teacher: what is learned besides the task.
        given: the model passed to the method, for a teacher that is this one.
    """
    rate = SCHEDULES[replacing.schedule](replacing.start, replacing.full_at)
    draws = Replacing(rate, gates, job.seed, replacing.mode)
    log = train_on_task(
        network,
        job,
        training,
        title,
        on_step=draws,
        # Only weights of the second phase may be selected: while predecessors run, successors are not trained alone.
        select_from=replacing.full_at,
        teacher=teacher,
        given=given,
        layers=list(layers_of(successor)),
    )
    assert log.training is not None
    done = log.training.steps, log.training.planned_steps
    digest = draws.digest_until(*done)
    agree(digest, "the draws of module replacing")
    drawn = {"redraws": draws.redraws_until(*done), "draws_sha256": digest, "replacement": draws.curve(*done)}
    return log.model_copy(update=drawn)
