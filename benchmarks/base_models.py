"""Models of BERT-base geometry with random weights, and texts as long as tweets, for the scripts beside this file."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModelForSequenceClassification, BertConfig, PreTrainedModel

from plankwise.data.batching.inputs import Encoded
from plankwise.encoder.shapes import prune

MODELS = {"bert12": (12, False), "bert6": (6, False), "bert12-pruned": (12, True), "bert6-pruned": (6, True)}
MEDIAN, P95, LONGEST, SHORTEST = 35, 80, 128, 4  # tokens of a tweet
TOKENIZER = Path(__file__).parents[1].parent / "shared/models/german-mini-12x128"
SMALL = {"hidden_size": 96, "intermediate_size": 384}  # for trying a script out, with a sixth of the layers


def base_model(name: str, vocabulary: int, small: bool = False) -> PreTrainedModel:
    """Build one of `MODELS`; of a pruned one every second head and every fourth neuron are left in each layer."""
    layers, pruned = MODELS[name]
    torch.manual_seed(0)
    layers = layers // 6 if small else layers
    sizes = {"num_hidden_layers": layers, **(SMALL if small else {})}
    config = BertConfig(vocab_size=vocabulary, num_labels=2, problem_type="single_label_classification", **sizes)
    model: PreTrainedModel = AutoModelForSequenceClassification.from_config(config)
    if pruned:
        heads, neurons = range(0, config.num_attention_heads, 2), range(0, config.intermediate_size, 4)
        model = prune(model, [heads] * layers, [neurons] * layers)
    return model.eval()


def tweet_lengths(count: int) -> list[int]:
    """Give the tokens of tweets in order of arrival: lognormal, median 35, p95 80, cut at 128.

    They are evenly spaced quantiles, shuffled, so that few texts already have the whole distribution.
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
    """Write texts of those lengths: whole words of a vocabulary at random, each of which is one token.

    Args:
        count: how many.
        vocabulary: tokens.
        special: tokens that the tokenizer adds to each text.
    """
    words = sorted(word for word in vocabulary if word.isalpha() and len(word) > 1)
    draw = np.random.default_rng(2)
    return [" ".join(draw.choice(words, size=max(1, length - special))) for length in tweet_lengths(count)]
