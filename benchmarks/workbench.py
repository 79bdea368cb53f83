"""What several benchmarks share: models of BERT-base geometry, texts as long as tweets, training steps, peak memory."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification, BertConfig, PreTrainedModel

from plankwise.core.timing import ratio, take_turns
from plankwise.data.batching.inputs import Encoded
from plankwise.encoder.shapes import prune
from plankwise.methods.module_replacing import Replacing
from results import ROOT

SHARED = ROOT.parent / "shared"  # data and checkpoints that are not part of the repository
TOKENIZER = SHARED / "models/german-mini-12x128"
MODELS = {"bert12": (12, False), "bert6": (6, False), "bert12-pruned": (12, True), "bert6-pruned": (6, True)}
MEDIAN, P95, LONGEST, SHORTEST = 35, 80, 128, 4  # tokens of a tweet
SMALL = {"hidden_size": 96, "intermediate_size": 384}  # for --quick, with a sixth of the layers

Step = Callable[[], None]
Seconds = dict[str, list[float]]  # of one step in each round, by variant


def bert_classifier(labels: int = 2, **sizes: int) -> PreTrainedModel:
    """Return a BERT classifier with random weights, the same ones each time; BERT-base where no size is given."""
    torch.manual_seed(0)
    config = BertConfig(num_labels=labels, problem_type="single_label_classification", **sizes)
    model: PreTrainedModel = AutoModelForSequenceClassification.from_config(config)
    return model.eval()


def base_model(name: str, vocabulary: int, small: bool = False) -> PreTrainedModel:
    """Build one of `MODELS`. Pruned ones keep every second head and every fourth neuron of each layer."""
    layers, pruned = MODELS[name]
    layers = layers // 6 if small else layers
    model = bert_classifier(vocab_size=vocabulary, num_hidden_layers=layers, **(SMALL if small else {}))
    if pruned:
        heads, neurons = model.config.num_attention_heads, model.config.intermediate_size
        model = prune(model, [range(0, heads, 2)] * layers, [range(0, neurons, 4)] * layers)
    return model.eval()


def tweet_lengths(count: int) -> list[int]:
    """Return the tokens of tweets in order of arrival: lognormal, median 35, p95 80, cut at 128.

    They are evenly spaced quantiles, shuffled, so that a few texts already have the whole distribution.
    """
    normal = statistics.NormalDist()
    spread = np.log(P95 / MEDIAN) / normal.inv_cdf(0.95)
    lengths = [MEDIAN * np.exp(spread * normal.inv_cdf((number + 0.5) / count)) for number in range(count)]
    shuffled = np.random.default_rng(0).permutation(np.clip(np.rint(lengths), SHORTEST, LONGEST).astype(int))
    numbers: list[int] = shuffled.tolist()
    return numbers


def random_tweets(count: int, vocabulary: int) -> Encoded:
    """Draw token ids for texts of those lengths."""
    lengths = np.array(tweet_lengths(count), dtype=np.int64)
    ids = np.random.default_rng(1).integers(10, vocabulary, lengths.sum(), dtype=np.int32)
    tokens = {"input_ids": ids, "token_type_ids": np.zeros_like(ids)}
    return Encoded(lengths, tokens, np.ones(count, dtype=np.int64), {})


def random_texts(count: int, vocabulary: Iterable[str], special: int) -> list[str]:
    """Write texts of those lengths: random whole words of a vocabulary, each of which is one token.

    Args:
        count: number of texts.
        vocabulary: tokens.
        special: number of tokens that the tokenizer adds to each text.
    """
    words = sorted(word for word in vocabulary if word.isalpha() and len(word) > 1)
    draw = np.random.default_rng(2)
    return [" ".join(draw.choice(words, size=max(1, length - special))) for length in tweet_lengths(count)]


def training_step(
    network: nn.Module,
    inputs: dict[str, Tensor],
    labels: Tensor,
    bf16: bool,
    trained: Sequence[nn.Parameter] | None = None,
) -> Step:
    """Return a step of AdamW on one batch. It trains `trained`, by default all parameters that require gradients."""
    if trained is None:
        trained = [value for value in network.parameters() if value.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-6, fused=True)

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            logits = network(**inputs).logits
        torch.autograd.backward(nn.functional.cross_entropy(logits.float(), labels))
        # Gradients of frozen parameters count as well: the reference implementation clips them.
        nn.utils.clip_grad_norm_([value for value in network.parameters() if value.grad is not None], 1.0)
        optimizer.step()
        network.zero_grad()

    return step


def repeated(step: Step, times: int) -> Step:
    """Return a function that runs a step several times."""

    def run() -> None:
        for _ in range(times):
            step()

    return run


def with_draws(step: Step, replacing: Replacing, draws: int) -> Step:
    """Return a function that runs a Theseus step once for each draw; the draws span the whole schedule."""

    def run() -> None:
        for number in range(draws):
            replacing(number, draws)
            step()

    return run


def seconds_per_step(variants: Mapping[str, tuple[Step, int]], rounds: int) -> Seconds:
    """Time variants in turns.

    Args:
        variants: by name, what a round runs and the number of steps in it.
        rounds: timed rounds; one more goes first, untimed.
    """
    seconds = take_turns({name: run for name, (run, _) in variants.items()}, rounds)
    return {name: [each / variants[name][1] for each in values] for name, values in seconds.items()}


def step_ratio(seconds: Seconds, above: str, below: str) -> float:
    """Return the median over rounds of the time of `above` divided by that of `below`."""
    median: float = ratio(seconds[above], seconds[below])["speedup"]
    return median


def medians(seconds: Seconds) -> dict[str, float]:
    return {name: statistics.median(values) for name, values in seconds.items()}


def high_water_mark() -> int:
    """Return the peak resident size of this process in bytes; Linux only. getrusage would include the parent's."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")))
