"""The methods that `methods.py` compares, as the steps of a recipe; each starts from the same 12-layer baseline.

All training takes the same number of steps with the same batches. Only the learning rate differs: models that keep
their 12 layers (pruning, unstructured) recover at a lower one than shallower students.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

LAYERS = 3  # six layers lose next to nothing on these tasks, so that no method could show an advantage
TARGETS = (1.5, 2.0, 3.0, 5.0)
SPARSITIES = (0.5, 0.8, 0.9)
STUDENT_RATE, RECOVERY_RATE = 1.5e-4, 1.0e-4
Steps = list[dict[str, Any]]


@dataclass(frozen=True)
class Budget:
    """The training budget of every variant.

    Attributes:
        epochs: passes over the training split.
        student_rate: peak learning rate of shallower students.
        recovery_rate: peak learning rate of models that keep their depth.
    """

    epochs: float = 3.0
    student_rate: float = STUDENT_RATE
    recovery_rate: float = RECOVERY_RATE

    def training(self, rate: float) -> dict[str, Any]:
        """Return training settings with this peak learning rate."""
        return {"epochs": self.epochs, "batch_size": 32, "learning_rate": rate, "evaluations_per_epoch": 2}


def teacher(**weights: float) -> dict[str, float]:
    """Return the weights of a distillation from the baseline; losses that are not named are off."""
    off = {"task": 0.0, "logits": 0.0, "hidden": 0.0, "relations": 0.0, "cosine": 0.0}
    return {**off, "temperature": 2.0, **weights}


LOGITS = teacher(task=0.5, logits=0.5)
RELATIONS = teacher(task=0.5, relations=0.5)


def variants(budget: Budget) -> dict[str, Steps]:
    """Return the steps of every variant, by name."""
    return {**_students(budget), **_pruned(budget), **_sparse(budget), "vocabulary": [_VOCABULARY]}


_VOCABULARY: dict[str, Any] = {"method": "vocabulary", "minimum_count": 1}


def _students(budget: Budget) -> dict[str, Steps]:
    training = budget.training(budget.student_rate)
    theseus = {"method": "theseus", "modules": LAYERS, "initialization": "bottom", "train_embeddings": True}
    subset = {"method": "layer_subset", "layers": LAYERS, "keep": "bottom"}
    distilled = {"method": "distillation", "student": {"layers": LAYERS, "keep": "bottom"}}
    return {
        "layer-subset": [{**subset, "training": training}],
        "distillation-logits": [{**distilled, "teacher": LOGITS, "training": training}],
        "distillation-relations": [{**distilled, "teacher": RELATIONS, "training": training}],
        "theseus": [{**theseus, "training": training}],
        "theseus-relations": [{**theseus, "teacher": RELATIONS, "training": training}],
    }


def _pruned(budget: Budget) -> dict[str, Steps]:
    """Prune to each target: cut only, with least-squares reconstruction, and with training after that."""
    common = {"method": "pruning", "measure": "flops", "importance": "fisher", "labels": False, "examples": 1000}
    training = budget.training(budget.recovery_rate)
    found: dict[str, Steps] = {}
    for target in TARGETS:
        step = {**common, "target": target}
        found[f"pruning-{target:g}x-cut"] = [{**step, "reconstruction": False, "training": None}]
        found[f"pruning-{target:g}x-repaired"] = [{**step, "reconstruction": True, "training": None}]
        found[f"pruning-{target:g}x-recovered"] = [
            {**step, "reconstruction": True, "teacher": LOGITS, "training": training}
        ]
    return found


def _sparse(budget: Budget) -> dict[str, Steps]:
    common = {"method": "unstructured", "importance": "magnitude", "schedule": "cubic"}
    training = budget.training(budget.recovery_rate)
    return {
        f"unstructured-{round(100 * sparsity)}": [{**common, "sparsity": sparsity, "training": training}]
        for sparsity in SPARSITIES
    }
