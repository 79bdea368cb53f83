"""Heads of one output: which models answer with a number, and whether that number passes through a sigmoid.

Regressors say `problem_type: regression` and are read as they are. Rerankers of sentence-transformers name the function
in their configuration; one that names none is read through a sigmoid, as sentence-transformers and the pipelines of
Transformers do.
"""

from __future__ import annotations

from typing import Any, Literal

from transformers import PreTrainedConfig

from plankwise.core.errors import ModelError

SCORE = "score"  # the name of the only output
REGRESSION, MULTI_LABEL = "regression", "multi_label_classification"
Activation = Literal["identity", "sigmoid"]
_ACTIVATIONS: dict[str, Activation] = {
    "torch.nn.modules.linear.Identity": "identity",
    "torch.nn.modules.activation.Sigmoid": "sigmoid",
}
_SINCE_4, _BEFORE_4 = ("sentence_transformers", "activation_fn"), "sbert_ce_default_activation_function"


def is_scorer(config: PreTrainedConfig) -> bool:
    """Return whether a model answers with a number, rather than by choosing among labels."""
    if config.problem_type == REGRESSION:
        return True
    return bool(config.num_labels == 1 and config.problem_type != MULTI_LABEL)


def check_scorer(config: PreTrainedConfig, source: str) -> None:
    """Refuse a model that does not answer with one number.

    Args:
        config: of the model.
        source: folder or Hub id, for messages.

    Raises:
        ModelError: if it is a classifier, answers with several numbers, or names a function that is not known.
    """
    if not is_scorer(config):
        raise ModelError(f"{source} chooses among {config.num_labels} labels; allowed: one output, a score")
    if config.num_labels != 1:
        raise ModelError(f"{source} answers with {config.num_labels} numbers; allowed: one, or a classifier of labels")
    activation_of(config, source)


def activation_of(config: PreTrainedConfig, source: str) -> Activation:
    """Return the function between the only logit of a scorer and its score.

    Raises:
        ModelError: if its configuration names one that is not known.
    """
    own, key = getattr(config, _SINCE_4[0], None), _SINCE_4[1]
    named = own.get(key) if isinstance(own, dict) else None
    named = getattr(config, _BEFORE_4, None) if named is None else named
    if named is None:
        return "identity" if config.problem_type == REGRESSION else "sigmoid"
    known = next((each for path, each in _ACTIVATIONS.items() if path.rsplit(".", 1)[1] == _last_part(named)), None)
    if known is None:
        raise ModelError(f"{source}: its scores pass through {str(named)[:80]}; allowed: Identity, Sigmoid of torch.nn")
    return known


def make_regressor(config: PreTrainedConfig) -> None:
    """Describe one output that is a score as it is, in place, for Transformers and sentence-transformers alike."""
    config.num_labels = 1
    config.id2label, config.label2id = {0: SCORE}, {SCORE: 0}
    config.problem_type = REGRESSION
    identity = next(path for path, each in _ACTIVATIONS.items() if each == "identity")
    own = getattr(config, _SINCE_4[0], None)
    setattr(config, _SINCE_4[0], {**(own if isinstance(own, dict) else {}), _SINCE_4[1]: identity})
    if hasattr(config, _BEFORE_4):
        delattr(config, _BEFORE_4)


def _last_part(named: Any) -> str:
    """Return the class of a path such as `torch.nn.modules.linear.Identity`; nothing of a path outside torch.nn."""
    path = str(named).removesuffix("()")
    return path.rsplit(".", 1)[-1] if path.startswith("torch.nn.") else ""
