"""Classification heads of checkpoints: which models are classifiers, and which heads a task can use."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence

import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from plankwise.core.errors import ModelError
from plankwise.encoder.score_head import SCORE, check_scorer, is_scorer

logger = logging.getLogger(__name__)
_CLASSIFIER = "ForSequenceClassification"
PROBLEM_TYPES = {"single_label": "single_label_classification", "multi_label": "multi_label_classification"}
_MULTI = PROBLEM_TYPES["multi_label"]
_SHOWN = 80  # characters of a list of labels


def labels_of(config: PreTrainedConfig) -> tuple[str, ...]:
    """Return the labels of a classifier in the order of its logits; of a scorer the name of its only output."""
    if is_scorer(config):
        return (SCORE,)
    return tuple(str(config.id2label.get(index, f"LABEL_{index}")) for index in range(config.num_labels))


def check_classifier(config: PreTrainedConfig, source: str) -> None:
    """Refuse a model that does not choose among labels, such as one with another head or a scorer.

    Args:
        config: of the model.
        source: folder or Hub id, for messages.

    Raises:
        ModelError: if it is not a classifier, or two of its labels have one name.
    """
    _check_architecture(config, source)
    if is_scorer(config) or (config.num_labels < 2 and config.problem_type != _MULTI):
        answer = "one number" if config.num_labels == 1 else f"{config.num_labels} numbers"
        raise ModelError(
            f"{source} answers with {answer}, as rerankers and regressors do, not with labels; "
            "allowed: classifiers of two labels or more, or of problem_type 'multi_label_classification'"
        )
    twice = next((label for label, count in Counter(labels_of(config)).items() if count > 1), None)
    if twice is not None:
        raise ModelError(f"{source} names two of its labels '{twice[:_SHOWN]}'; allowed: a name of its own for each")


def check_answers(config: PreTrainedConfig, source: str) -> None:
    """Refuse a model that neither chooses among labels nor answers with a score.

    Raises:
        ModelError: saying what it is.
    """
    if not is_scorer(config):
        check_classifier(config, source)
        return
    _check_architecture(config, source)
    check_scorer(config, source)


def _check_architecture(config: PreTrainedConfig, source: str) -> None:
    named = _architecture(config)
    if named is not None and not named.endswith(_CLASSIFIER):
        raise ModelError(f"{source} is a {named}, not a classifier of texts; fine-tune it first, by plankwise run")


def head_order(
    config: PreTrainedConfig,
    source: str,
    labels: Sequence[str],
    kind: str,
    *,
    names: Mapping[str, str] | None = None,
    secret: bool = False,
) -> list[int]:
    """Return which output of a fine-tuned classifier stands for each label of a task; labels are matched by name.

    Args:
        config: of the model.
        source: folder or Hub id, for messages.
        labels: of the task.
        kind: of the task: whether a text has one label or any number of them.
        names: the task's labels by the model's own, such as `{LABEL_0: none}`; others keep their names.
        secret: whether the task's labels must not be shown.

    Raises:
        ModelError: if it is no classifier, or one of another kind, or its labels are not those of the task.
    """
    check_classifier(config, source)
    stored = config.problem_type or PROBLEM_TYPES["single_label"]  # as Transformers' own pipelines read it
    if stored != PROBLEM_TYPES[kind]:
        raise ModelError(
            f"{source} is a classifier of problem_type '{stored}', the task is of '{PROBLEM_TYPES[kind]}'; "
            "allowed: the same in both. If the model was trained for it, correct problem_type in its config.json"
        )
    own, given = labels_of(config), names or {}
    mine, theirs = f"the model has {_listed(own)}", f"the task {'its own' if secret else _listed(labels)}"
    unknown = next((name for name in given if name not in own), None)
    if unknown is not None:
        raise ModelError(f"model.labels names '{unknown}', which is no label of {source}: {mine}")
    stray = next((name for name in given.values() if name not in labels), None)
    if stray is not None:
        raise ModelError(f"model.labels names '{stray}', which is no label of the task: {mine}, {theirs}")
    named = [given.get(label, label) for label in own]
    if sorted(named) == sorted(labels):
        return [named.index(label) for label in labels]
    if len(set(named)) < len(named):
        hint = "model.labels gives one name to two labels; allowed: a name of its own for each"
    elif set(labels) < set(named):
        hint = "name all of the model's labels in task.classes, also those that no row has"
    else:
        hint = "say which label is which, as in --set 'model.labels={LABEL_0: no, LABEL_1: yes}'"
    raise ModelError(f"the labels of {source} are not those of the task: {mine}, {theirs}; {hint}")


def put_in_order(model: PreTrainedModel, order: Sequence[int], labels: Sequence[str]) -> None:
    """Put the outputs of a classifier into the order of a task's labels, in place, and name them so.

    Args:
        model: to change; its weights and its configuration.
        order: index of the output of each label, by `head_order`.
        labels: of the task.
    """
    if list(order) != sorted(order):
        _permute(_last_layer(model)[1], list(order))
    model.config.id2label = dict(enumerate(labels))
    model.config.label2id = {label: index for index, label in enumerate(labels)}


def match_head(model: PreTrainedModel, stored: PreTrainedConfig, source: str, lost: Sequence[str]) -> None:
    """Match a loaded head with the labels of the model by name, in place; initialize it if they differ.

    Args:
        model: loaded from `source`, with the labels of the task in its configuration.
        stored: configuration of the source.
        source: folder or Hub id, for messages.
        lost: names of parameters that the source does not have in this size; these are random already.
    """
    name, layer = _last_layer(model)
    wanted, known, named = labels_of(model.config), labels_of(stored), _architecture(stored)
    chooses = named is None or named.endswith(_CLASSIFIER)
    if f"{name}.weight" in lost:
        if named is not None and chooses:
            logger.warning("%s: its head for %s is not used; the task has %d", source, _listed(known), len(wanted))
        return
    if chooses and sorted(known) == sorted(wanted) and len(set(known)) == len(known):
        order = [known.index(label) for label in wanted]
        if order != sorted(order):
            logger.warning("%s: its head is kept; its labels were put into the task's order", source)
            _permute(layer, order)
        return
    if chooses:
        logger.warning("%s: its head for %s is not used; the task's labels are others", source, _listed(known))
    else:
        logger.warning("%s: its head, of a %s, is not used", source, named)
    fresh = nn.Linear(layer.in_features, layer.out_features, layer.bias is not None)
    model._init_weights(fresh)
    layer.load_state_dict(fresh.state_dict())  # into the same module, so that references to it stay valid


def _architecture(config: PreTrainedConfig) -> str | None:
    named = config.architectures
    return str(named[0]) if isinstance(named, list) and named else None


def _last_layer(model: PreTrainedModel) -> tuple[str, nn.Linear]:
    """Return the last linear layer outside the encoder, which has an output for each label, and its name."""
    inside = set(model.base_model.modules())
    outside = [(str(name), each) for name, each in model.named_modules() if each not in inside]
    return [(name, each) for name, each in outside if isinstance(each, nn.Linear)][-1]


@torch.no_grad()
def _permute(layer: nn.Linear, order: list[int]) -> None:
    layer.weight.copy_(layer.weight[order].clone())
    if layer.bias is not None:
        layer.bias.copy_(layer.bias[order].clone())


def _listed(labels: Sequence[str]) -> str:
    return f"{len(labels)} label{'s' if len(labels) != 1 else ''} ({', '.join(labels)[:_SHOWN]})"
