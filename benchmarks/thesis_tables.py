"""The claims of the thesis plankwise grew out of, each with our figure from results/ and a verdict.

S. Jäger, "Compressing BERT – An Evaluation and Combination of Methods". A claim with a number holds where our whole
interval reaches it, does not hold where none of the interval does, and is undecided in between.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headline import fastest
from plankwise.core.intervals import format_interval
from plankwise.evaluation.effects import shown_estimate
from results import RESULTS
from score_tables import interval

HOLDS, FAILS, OPEN = "holds", "does not hold", "undecided"
DOMAINS = {  # results of `plankwise domain`, and what each is of
    "domain_e5": "e5-small",
    "domain_minilm": "minilm-l6",
    "domain_lm": "german-mini, 12 × 128",
    "domain_lm_clinical": "12 × 128, from scratch",
}
STUDIES = {"study_theseus_e5": "e5-small", "study_theseus": "german-mini, 12 × 128"}
COMBINATIONS = {"combinations_e5_small": "e5-small", "combinations_minilm_l6": "minilm-l6"}
MOST_MOVED = 3  # an error class moved by three of a hundred at most
PARAMETERS = 1.665  # rounds to 1.67
UNCOMPRESSED = ("original", "OpenVINO fp32")
Bounds = tuple[float, float]


@dataclass(frozen=True)
class Ours:
    """One figure of ours: what it was measured on, how it is shown, and the verdict on the claim."""

    where: str
    shown: str
    verdict: str


@dataclass(frozen=True)
class Claim:
    """A claim, the thesis' figure, and where our figures come from."""

    text: str
    figure: str
    ours: Callable[[Path], Iterator[Ours]]


def judged(bounds: Bounds, at_least: float) -> str:
    """Return the verdict on a claim that something is at least this large."""
    low, high = bounds
    return HOLDS if low >= at_least else FAILS if high < at_least else OPEN


def domain_tasks(root: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Find each variant that compressed a language model, on each task."""
    for name, what in DOMAINS.items():
        for task, row in fastest(name, root).get("tasks", {}).items():
            for variant, found in row["variants"].items():
                if variant in fastest(name, root)["language_models"]:
                    yield f"{what}, {task}, {variant}", found


def retained(root: Path) -> Iterator[Ours]:
    for where, found in domain_tasks(root):
        if (kept := found["retained"]) is not None:
            yield Ours(where, interval(kept), judged((kept["low"], kept["high"]), 0.975))


def faster(key: str, at_least: float) -> Callable[[Path], Iterator[Ours]]:
    def find(root: Path) -> Iterator[Ours]:
        for where, found in domain_tasks(root):
            each = found[key]
            shown = f"{each['median']:.2f}× [{each['low']:.2f}, {each['high']:.2f}] over seeds"
            yield Ours(where, shown, judged((each["low"], each["high"]), at_least))

    return find


def step_cost(root: Path) -> Iterator[Ours]:
    sizes = {"bert_base": "BERT-base", "mini": "12 × 128"}
    for name, what in sizes.items():
        cost = fastest("domain_step", root).get(name, {}).get("compression_over_plain")
        if cost is not None:
            yield Ours(f"{what}, a step", f"{cost:.2f} of one of plain training", HOLDS if cost < 1 else FAILS)


def fewer_parameters(root: Path) -> Iterator[Ours]:
    for name, what in DOMAINS.items():
        for variant, model in fastest(name, root).get("language_models", {}).items():
            ratio = model["parameters"]["large"] / model["parameters"]["small"]
            yield Ours(f"{what}, {variant}", f"{ratio:.2f}×", HOLDS if ratio >= PARAMETERS else FAILS)


def finding(number: int) -> Callable[[Path], Iterator[Ours]]:
    """Find the verdict on one hyperparameter, by cross-entropy where a study has it, as it is less noisy."""

    def find(root: Path) -> Iterator[Ours]:
        for name, what in STUDIES.items():
            study = fastest(name, root)
            for key, unit in (("findings_by_loss", "cross-entropy"), ("findings", "macro-F1")):
                if study.get(key):
                    each = study[key][number]
                    contrasts = "; ".join(shown_estimate(part["estimate"]) for part in each["parts"])
                    more = max((count for count in each.get("more_trials", ()) if count), default=0)
                    verdict = each["verdict"] + (f", about {more} more trials would decide" if more else "")
                    yield Ours(f"{what}, {unit}", contrasts, verdict)

    return find


def errors_move_little(root: Path) -> Iterator[Ours]:
    review = fastest("error_analysis", root)
    if not review:
        return
    moved = max(review["classes"], key=lambda each: abs(each["change"]))
    new = sum(each["new"] for each in review["classes"])
    shown = f"{moved['change']:+g} at most ({moved['error_class']}), {new} new classes"
    holds = abs(moved["change"]) <= MOST_MOVED and not new
    yield Ours(review["title"], shown, HOLDS if holds else FAILS)


def always_loses(root: Path) -> Iterator[Ours]:
    """Count the ways of compressing whose whole interval is above or below what the original scores."""
    for name, what in COMBINATIONS.items():
        ways = fastest(name, root).get("ways", {})
        kept = {way: each["retained"] for way, each in ways.items() if way not in UNCOMPRESSED}
        if not kept:
            continue
        above, below = [way for way, each in kept.items() if each["low"] > 1], [*filter(_loses(kept), kept)]
        gains = f"{len(above)} gain ({', '.join(above)})" if above else "none gains"
        shown = f"of {len(kept)} ways {len(below)} lose, {gains}; the others cannot be told apart from the original"
        yield Ours(what, shown, FAILS if above else OPEN if len(below) < len(kept) else HOLDS)


def _loses(kept: Mapping[str, Mapping[str, float]]) -> Callable[[str], bool]:
    return lambda way: kept[way]["high"] < 1


def combines(root: Path) -> Iterator[Ours]:
    for name, what in COMBINATIONS.items():
        for way, each in fastest(name, root).get("interactions", {}).items():
            points = each["points"]
            shown = f"{format_interval(*points.values(), digits=2, signed=True)} points beyond the sum of its parts"
            verdict = HOLDS if points["high"] <= 0 else FAILS if points["low"] > 0 else OPEN
            yield Ours(f"{what}: {way}", shown, verdict)


CLAIMS = (
    Claim("A language model compressed once keeps nearly everything at its tasks", "0.975, 0.989, 0.995", retained),
    Claim("It is fine-tuned twice as fast", "2.14× to 2.50×", faster("fine_tuning_speedup", 2.0)),
    Claim("It predicts about twice as fast", "1.94× on a CPU", faster("prediction_speedup", 1.8)),
    Claim("Compressing it is faster than training it on", "faster", step_cost),
    Claim("It has 1.67 times fewer parameters", "1.67×", fewer_parameters),
    Claim("Best is a replacement rate that starts at 0.1 to 0.3", "0.1–0.3", finding(0)),
    Claim("Best is replacing during 85 % of the steps", "85 %", finding(1)),
    Claim("Both phases matter", "–", finding(2)),
    Claim("The learning rate matters little", "–", finding(3)),
    Claim("Errors are of the same kinds: of 100, a class moves by three at most", "±1, at most +3", errors_move_little),
    Claim("Compressing always reduces performance", "always", always_loses),
    Claim("Methods combine: together they lose no more than one by one", "–", combines),
)


def thesis(root: Path = RESULTS) -> str:
    """Write a row for each claim and each thing that we measured it on."""
    lines = ["| claim | thesis | measured on | ours [95 %] | verdict |", "| --- | --- | --- | --- | --- |"]
    for claim in CLAIMS:
        found = [*claim.ours(root)] or [Ours("", "not measured yet", "")]
        for number, each in enumerate(found):
            text, figure = (claim.text, claim.figure) if number == 0 else ("", "")
            lines.append(f"| {text} | {figure} | {each.where} | {each.shown} | {each.verdict} |")
    return "\n".join(lines)
