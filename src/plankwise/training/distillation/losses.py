"""Losses between a student and its teacher: logits, hidden states, relations between tokens.

Every loss is a mean, so its weight does not depend on batch size, length, width or depth. Tensors are compared in fp32.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

Form = Literal["kl", "mse"]
LogitsLoss = Callable[[Tensor, Tensor, float, Form], Tensor]  # (student, teacher, temperature, form) -> scalar


def softmax_logits_loss(student: Tensor, teacher: Tensor, temperature: float, form: Form = "kl") -> Tensor:
    """Compute the difference of logits where exactly one class is right; the mean over rows.

    Args:
        student: [rows, classes].
        teacher: [rows, classes].
        temperature: T, of `kl` alone.
        form: `kl` is T²·KL(teacher ‖ student) of softmax distributions at temperature T (Hinton, Vinyals, Dean 2015,
            arXiv 1503.02531, section 2); `mse` is the mean squared error of the logits (Kim et al. 2021, arXiv
            2105.08919).
    """
    student, teacher = _wide(student), _wide(teacher)
    if form == "mse":
        return functional.mse_loss(student, teacher)
    # T² because the gradients of softened targets shrink by 1/T²: the weights then mean the same at every T.
    return temperature**2 * _kl(teacher / temperature, student / temperature).mean()


def sigmoid_logits_loss(student: Tensor, teacher: Tensor, temperature: float, form: Form = "kl") -> Tensor:
    """Compute the difference of logits where each label is decided by itself; the mean over rows and labels.

    Args:
        student: [rows, labels].
        teacher: [rows, labels].
        temperature: T, of `kl` alone.
        form: `kl` is T²·KL(teacher ‖ student) of the Bernoulli distribution σ(logit / T) of each label; `mse` is the
            mean squared error of the logits.
    """
    student, teacher = _wide(student), _wide(teacher)
    if form == "mse":
        return functional.mse_loss(student, teacher)
    return temperature**2 * _kl(_yes_no(teacher / temperature), _yes_no(student / temperature)).mean()


def hidden_loss(student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    """Compute the mean squared error of hidden states over the tokens that `mask` keeps.

    L_hidn of TinyBERT (Jiao et al. 2020, arXiv 1909.10351); the student's states are projected by W_h already.

    Args:
        student: [batch, tokens, width].
        teacher: [batch, tokens, width].
        mask: 1 at tokens, 0 at padding, [batch, tokens].
    """
    kept = mask.bool()
    return functional.mse_loss(student.float()[kept], teacher.float()[kept])


def cosine_loss(student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    """Compute the mean of 1 − cos of hidden states over the tokens that `mask` keeps.

    L_cos of DistilBERT (Sanh et al. 2019, arXiv 1910.01108, section 2).

    Args:
        student: [batch, tokens, width].
        teacher: [batch, tokens, width].
        mask: 1 at tokens, 0 at padding, [batch, tokens].
    """
    kept = mask.bool()
    return (1 - functional.cosine_similarity(student.float()[kept], teacher.float()[kept], dim=-1)).mean()


def relation_loss(student: Sequence[Tensor], teacher: Sequence[Tensor], mask: Tensor, heads: int) -> Tensor:
    """Compute the difference in self-attention relations (MiniLMv2; Wang et al. 2021, arXiv 2012.15828, section 3).

    KL(teacher ‖ student) of the relations R = softmax(A Aᵀ / √d) of each head, averaged over heads and tokens and
    summed over queries, keys and values with equal weights. Widths may differ.

    Args:
        student: queries, keys, values, [batch, tokens, width] each, of any widths that `heads` divides.
        teacher: the same of the teacher.
        mask: 1 at tokens, 0 at padding, [batch, tokens].
        heads: relation heads.
    """
    kept = mask.bool()
    parts = []
    for mine, theirs in zip(student, teacher, strict=True):
        divergence = _kl(log_relations(theirs, kept, heads), log_relations(mine, kept, heads))  # [batch, heads, tokens]
        parts.append(divergence.transpose(1, 2)[kept].mean())
    return torch.stack(parts).sum()


def log_relations(states: Tensor, mask: Tensor, heads: int) -> Tensor:
    """Compute log R, [batch, heads, tokens, tokens], of states, [batch, tokens, width]; padding gets no weight."""
    split = states.float().view(*states.shape[:2], heads, -1).transpose(1, 2)
    scores = split @ split.transpose(-1, -2) / split.shape[-1] ** 0.5
    # The lowest number and not −∞: its difference from itself has to be zero, not NaN.
    lowest = torch.finfo(scores.dtype).min
    return functional.log_softmax(scores.masked_fill(~mask[:, None, None, :], lowest), dim=-1)


def _wide(logits: Tensor) -> Tensor:
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def _yes_no(logits: Tensor) -> Tensor:
    """Return log σ(x) and log σ(−x) of each label, [rows, labels, 2]: both stay finite for large logits."""
    return torch.stack([functional.logsigmoid(logits), functional.logsigmoid(-logits)], dim=-1)


def _kl(teacher: Tensor, student: Tensor) -> Tensor:
    """Compute KL(teacher ‖ student) over the last dimension of logits or log-probabilities."""
    teacher, student = functional.log_softmax(teacher, dim=-1), functional.log_softmax(student, dim=-1)
    return (teacher.exp() * (teacher - student)).sum(dim=-1)
