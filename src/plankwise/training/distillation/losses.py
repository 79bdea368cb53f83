"""What a student may be asked to have in common with its teacher: logits, hidden states, relations between tokens.

All are means, so that their weights do not depend on batch size, length, width or depth. Tensors are compared in fp32.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from plankwise.data.task import Kind

Form = Literal["kl", "mse"]


def logits_loss(student: Tensor, teacher: Tensor, kind: Kind, temperature: float, form: Form = "kl") -> Tensor:
    """Measure how far the student's logits, [rows, classes], are from the teacher's; the mean over rows.

    `kl` is T²·KL(teacher ‖ student) of the distributions at temperature T (Hinton, Vinyals, Dean 2015, arXiv
    1503.02531): softmax where one class is right, and where each label stands for itself a sigmoid for each, averaged
    over labels. `mse` is the mean squared error of the logits themselves (Kim et al. 2021, arXiv 2105.08919).
    """
    student, teacher = (each.to(torch.promote_types(each.dtype, torch.float32)) for each in (student, teacher))
    if form == "mse":
        return functional.mse_loss(student, teacher)
    student, teacher = student / temperature, teacher / temperature
    if kind == "multi_label":
        # Of each label the pair (yes, no): log σ(x) and log σ(−x).
        student = torch.stack([functional.logsigmoid(student), functional.logsigmoid(-student)], dim=-1)
        teacher = torch.stack([functional.logsigmoid(teacher), functional.logsigmoid(-teacher)], dim=-1)
    return temperature**2 * _divergence(teacher, student).mean()


def hidden_loss(student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    """Give the mean squared error of hidden states, [batch, tokens, width], over the tokens that `mask` keeps."""
    kept = mask.bool()
    return functional.mse_loss(student.float()[kept], teacher.float()[kept])


def cosine_loss(student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    """Give the mean of 1 − cos of hidden states, [batch, tokens, width], over the tokens that `mask` keeps.

    As in DistilBERT (Sanh et al. 2019, arXiv 1910.01108).
    """
    kept = mask.bool()
    return (1 - functional.cosine_similarity(student.float()[kept], teacher.float()[kept], dim=-1)).mean()


def relation_loss(student: Sequence[Tensor], teacher: Sequence[Tensor], mask: Tensor, heads: int) -> Tensor:
    """Measure how far the student's tokens relate to each other in another way than the teacher's (MiniLMv2).

    Queries, keys and values are cut into relation heads; R = softmax(A Aᵀ / √d) of each head says how much each token
    resembles each other one. The loss is KL(teacher ‖ student), summed over queries, keys and values and averaged over
    heads and tokens (Wang et al. 2021, arXiv 2012.15828). Widths may differ.

    Args:
        student: queries, keys, values, [batch, tokens, width] each, of any widths that `heads` divides.
        teacher: the same of the teacher.
        mask: 1 at tokens, 0 at padding, [batch, tokens].
        heads: relation heads.
    """
    pairs = zip(student, teacher, strict=True)
    parts = [_relation_divergence(one, other, mask.bool(), heads) for one, other in pairs]
    return torch.stack(parts).sum()


def _relation_divergence(student: Tensor, teacher: Tensor, mask: Tensor, heads: int) -> Tensor:
    divergence = _divergence(log_relations(teacher, mask, heads), log_relations(student, mask, heads))
    return divergence.transpose(1, 2)[mask].mean()


def log_relations(states: Tensor, mask: Tensor, heads: int) -> Tensor:
    """Give log R, [batch, heads, tokens, tokens], of states, [batch, tokens, width]; none relates to padding."""
    split = states.float().view(*states.shape[:2], heads, -1).transpose(1, 2)
    scores = split @ split.transpose(-1, -2) / split.shape[-1] ** 0.5
    # The lowest number and not −∞: its difference from itself has to be zero.
    lowest = torch.finfo(scores.dtype).min
    return functional.log_softmax(scores.masked_fill(~mask[:, None, None, :], lowest), dim=-1)


def _divergence(teacher: Tensor, student: Tensor) -> Tensor:
    """Give KL(teacher ‖ student) over the last dimension; log-probabilities or logits of such."""
    teacher, student = functional.log_softmax(teacher, dim=-1), functional.log_softmax(student, dim=-1)
    return (teacher.exp() * (teacher - student)).sum(dim=-1)
