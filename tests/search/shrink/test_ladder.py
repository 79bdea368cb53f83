"""The ladder: what is proposed first, and what earlier rungs change in later ones."""

from __future__ import annotations

from dataclasses import replace

import pytest

from outcomes import outcome
from plankwise.core.errors import RecipeError
from plankwise.core.records import Interval
from plankwise.search.budget.candidate import Candidate, Outcome
from plankwise.search.budget.goal import Goal
from plankwise.search.shrink.clock import parse_duration
from plankwise.search.shrink.costs import MEASURING, Costs, correction
from plankwise.search.shrink.ladder import VOCABULARY, Facts, Ladder, Situation, signature
from plankwise.search.shrink.ready import AIMS, FIXED, Ready, aim_of

COSTS = Costs(seconds_per_text=0.01, train_rows=4000, development_rows=500, depth=12, bf16=False)
FACTS = Facts(
    depth=12,
    width=384,
    table_share=0.8,
    shape=(16, 32),
    labelled=True,
    pairs=(("openvino", "int8"), ("onnx", "int8"), ("openvino", "fp32"), ("onnx", "fp32")),
    latency=True,
    costs=COSTS,
)


def situation(goal: Goal, *outcomes: Outcome, left: float = 3600.0) -> Situation:
    return Situation(goal, outcomes, frozenset(signature(each.candidate) for each in outcomes), left)


def runtimes(int8: float = 3.0, retained: float = 0.995) -> list[Outcome]:
    """What the first rung has measured: OpenVINO int8 is fastest, and keeps `retained`."""
    figures = {("openvino", "int8"): int8, ("onnx", "int8"): 2.0, ("openvino", "fp32"): 1.1, ("onnx", "fp32"): 1.0}
    return [
        outcome(
            f"original, {runtime} {precision}",
            rung="runtime",
            runtime=runtime,
            precision=precision,
            speedup=(speed, 0.95 * speed, 1.05 * speed),
            retained=(retained, retained - 0.005, 1.0) if precision == "int8" else (1.0, 0.999, 1.0),
        )
        for (runtime, precision), speed in figures.items()
    ]


def names(now: Situation, facts: Facts = FACTS) -> list[str]:
    return [each.name for each in Ladder(facts).proposals(now)]


def test_it_climbs_from_cheap_to_dear() -> None:
    found = names(situation(Goal(speedup=12.0), *runtimes()))
    rungs = ["vocabulary", "pruning", "recovery", "6 layers", "4 layers"]
    at = [next(index for index, name in enumerate(found) if rung in name) for rung in rungs]
    assert at == sorted(at)
    assert names(situation(Goal()))[:4] == [f"original, {runtime} {precision}" for runtime, precision in FACTS.pairs]


def test_fp32_is_tried_only_where_int8_is_of_no_use() -> None:
    def proposed(*int8: Outcome) -> list[str]:
        return [each for each in names(situation(Goal(), *int8)) if "fp32" in each and "original" in each]

    useful, lossy = runtimes()[:2], runtimes(retained=0.9)[:2]
    assert proposed(*useful) == []
    assert proposed(*lossy) == ["original, openvino fp32", "original, onnx fp32"]


def test_what_was_tried_is_not_proposed_again_even_with_another_training() -> None:
    now = situation(Goal(speedup=12.0), *runtimes())
    [first] = [each for each in Ladder(FACTS).proposals(now) if "recovery" in each.name and "4×" in each.name][:1]
    shorter = first.model_copy(update={"steps": tuple({**step, "training": {"epochs": 9.0}} for step in first.steps)})
    again = replace(now, tried=now.tried | {signature(shorter)})
    assert first.name not in [each.name for each in Ladder(FACTS).proposals(again)]


def test_later_rungs_run_where_the_first_was_fastest() -> None:
    slow_int8 = situation(Goal(speedup=4.0), *runtimes(int8=0.8))  # as without VNNI
    pruning = next(each for each in Ladder(FACTS).proposals(slow_int8) if each.rung == "pruning")
    assert (pruning.runtime, pruning.precision) == ("onnx", "int8")
    assert pruning.steps[-1]["latency_runtime"] == "onnx"
    assert pruning.steps[-1]["latency_precision"] == "int8"


def test_int8_that_loses_too_much_is_not_built_on_and_gets_a_fallback() -> None:
    now = situation(Goal(speedup=4.0), *runtimes(retained=0.9))
    found = list(Ladder(FACTS).proposals(now))
    assert next(each for each in found if each.rung == "pruning").precision == "fp32"
    fallback = next(each for each in found if each.rung == "fallback")
    assert fallback.precision == "int8"
    assert fallback.steps[-1] == {
        "method": "quantization",
        "margin": pytest.approx(0.005),
    }
    assert not any(
        each.rung == "fallback" for each in Ladder(FACTS).proposals(situation(Goal(retain=0.98), *runtimes()))
    )


def test_pruning_aims_at_the_speed_that_int8_does_not_give() -> None:
    now = situation(Goal(speedup=6.0), *runtimes(int8=3.0))
    pruning = next(each for each in Ladder(FACTS).proposals(now) if each.rung == "pruning")
    assert pruning.steps[-1]["target"] == pytest.approx(1.1 * 6 / 3)


def test_free_pruning_goes_further_while_the_score_is_kept_and_back_where_it_is_lost() -> None:
    def pruned(target: float, keeps: bool) -> Outcome:
        low = 0.995 if keeps else 0.95
        steps = ({"method": "pruning", "target": target},)
        return outcome(f"pruning {target}", retained=(low + 0.002, low, 1.0), steps=steps)

    def proposed(*tried: Outcome) -> list[float]:
        now = situation(Goal(), *runtimes(), *tried)
        return [each.steps[-1]["target"] for each in Ladder(FACTS).proposals(now) if each.rung == "pruning"]

    assert proposed() == [1.5]
    assert proposed(pruned(1.5, keeps=True)) == [pytest.approx(2.0, abs=0.01)]
    assert proposed(pruned(1.5, keeps=False)) == [1.25]
    assert proposed(pruned(1.5, keeps=True), pruned(2.0, keeps=False)) == [1.75]
    assert proposed(*(pruned(1.2 + at / 10, keeps=True) for at in range(4))) == []


def test_the_vocabulary_stays_only_where_it_does_no_harm() -> None:
    def after(retained: float, rung: str = "pruning") -> Candidate:
        trimmed = outcome("vocabulary", rung="vocabulary", retained=(retained, retained, retained), steps=VOCABULARY)
        now = situation(Goal(), *runtimes(), trimmed)
        return next(each for each in Ladder(FACTS).proposals(now) if each.rung == rung)

    assert after(0.994).steps[0] == VOCABULARY[0]
    assert after(0.98).steps[0]["method"] == "pruning"
    assert after(0.98, rung="depth").steps[0] == VOCABULARY[0]  # training mends what trimming did
    assert after(0.95, rung="depth").steps[0]["method"] == "theseus"
    small = replace(FACTS, table_share=0.2)
    assert not any("vocabulary" in name for name in names(situation(Goal(), *runtimes()), small))


def test_trainings_fit_into_the_time_left_and_are_left_out_where_they_do_not() -> None:
    short = list(Ladder(FACTS).proposals(situation(Goal(speedup=12.0), *runtimes(), left=30.0)))
    assert not [each for each in short if any("training" in step for step in each.steps)]
    long = list(Ladder(FACTS).proposals(situation(Goal(speedup=12.0), *runtimes(), left=36_000.0)))
    theseus = next(step for each in long for step in each.steps if step["method"] == "theseus")
    assert theseus["training"]["epochs"] == 6.0
    assert theseus["modules"] == 6
    assert theseus["teacher"] == {"source": "baseline", "task": 0.3, "logits": 0.7}
    unlabelled = replace(FACTS, labelled=False)
    now = situation(Goal(speedup=12.0), *runtimes(), left=36_000.0)
    taught = next(step for each in Ladder(unlabelled).proposals(now) for step in each.steps if step.get("teacher"))
    assert taught["teacher"]["task"] == 0.0


def test_for_another_processor_no_latency_is_measured() -> None:
    elsewhere = replace(FACTS, pairs=(("onnx", "int8"),), latency=False)
    now = situation(Goal(speedup=6.0))
    pruning = next(each for each in Ladder(elsewhere).proposals(now) if each.rung == "pruning")
    assert "measure" not in pruning.steps[-1]


def test_steps_that_were_made_before_cost_nothing() -> None:
    candidate = Candidate(
        name="both",
        rung="depth",
        steps=({"method": "theseus", "modules": 6, "training": {"epochs": 4.0}}, {"method": "pruning", "target": 2.0}),
        runtime="onnx",
        precision="int8",
    )
    alone = candidate.model_copy(update={"steps": candidate.steps[:1]})
    first, whole = COSTS.estimate(alone, []), COSTS.estimate(candidate, [])
    assert COSTS.estimate(candidate, [alone]) == pytest.approx(whole - first + MEASURING + 5.0)


def test_estimates_follow_what_candidates_took() -> None:
    assert correction([], []) == 1.0
    assert correction([30.0, 60.0], [outcome(), outcome()]) == pytest.approx(1.5)


def test_ready_recipes_take_the_first_runtime_that_is_of_use() -> None:
    def proposed(*measured: Outcome) -> list[str]:
        found = Ready(FACTS, "fast").proposals(situation(aim_of("fast", saturating=False), *measured))
        return [each.name for each in found if each.rung == "runtime"]

    first, second, *_ = (f"original, {runtime} {precision}" for runtime, precision in FACTS.pairs)
    assert proposed()[:2] == [first, second]
    assert proposed(runtimes()[0]) == []
    assert proposed(runtimes(int8=0.8)[0])[0] == second
    assert proposed(runtimes(retained=0.9)[0])[0] == second


def test_a_ready_recipe_is_one_chain_after_the_runtimes() -> None:
    now = situation(aim_of("balanced", saturating=False), *runtimes(int8=3.0), left=36_000.0)
    trimmed, balanced = list(Ready(FACTS, "balanced").proposals(now))
    assert trimmed.rung == "vocabulary"
    theseus, pruning = balanced.steps
    assert (theseus["method"], theseus["modules"], pruning["method"]) == ("theseus", 6, "pruning")
    assert pruning["target"] == pytest.approx(1.1 * FIXED * 12 / 3 / 2)
    assert "training" in pruning
    fast = list(Ready(FACTS, "fast").proposals(situation(aim_of("fast", saturating=False), *runtimes(int8=3.0))))[-1]
    assert not any("training" in step for step in fast.steps)
    assert aim_of("fast", saturating=True).speedup == AIMS["fast"][1] / 2


def test_fast_is_made_again_in_a_faster_runtime_whose_int8_loses_more() -> None:
    """Pruning to half without training made a constant of e5-small; OpenVINO's int8 would have needed a third less."""
    openvino, onnx = runtimes(int8=3.1, retained=0.96)[0], runtimes(retained=0.995)[1]
    goal = aim_of("fast", saturating=False)
    proposed = list(Ready(FACTS, "fast").proposals(situation(goal, openvino, onnx)))
    chains = {each.runtime: each.steps[-1]["target"] for each in proposed if each.rung == "fast"}
    assert chains == pytest.approx({"onnx": 1.1 * 4 / 2.0, "openvino": 1.1 * 4 / 3.1}, abs=0.01)
    assert list(chains) == ["onnx", "openvino"]
    hopeless = openvino.model_copy(update={"retained": Interval(value=0.8, low=0.78, high=0.82)})
    proposed = list(Ready(FACTS, "fast").proposals(situation(goal, hopeless, onnx)))
    assert [each.runtime for each in proposed if each.rung == "fast"] == ["onnx"]


@pytest.mark.parametrize(("kept", "expected"), [(0.995, 0), (0.97, 1), (0.5, 0)])
def test_fast_keeps_sensitive_projections_in_fp32_where_little_is_missing(kept: float, expected: int) -> None:
    goal, measured = aim_of("fast", saturating=False), runtimes(int8=3.0)[:1]
    [_, chain] = Ready(FACTS, "fast").proposals(situation(goal, *measured))
    made = outcome("fast", retained=(kept, kept - 0.001, 1.0), speedup=(3.9, 3.8, 4.0)).model_copy(
        update={"candidate": chain}
    )
    found = [each for each in Ready(FACTS, "fast").proposals(situation(goal, *measured, made)) if each.rung == "fast"]
    assert len(found) == expected
    for each in found:
        assert each.steps[:-1] == chain.steps
        assert each.steps[-1] == {"method": "quantization", "margin": pytest.approx(0.005)}
        assert (each.runtime, each.precision) == (chain.runtime, chain.precision)
        again = outcome("again", retained=(kept, kept - 0.001, 1.0)).model_copy(update={"candidate": each})
        left = [
            one for one in Ready(FACTS, "fast").proposals(situation(goal, *measured, made, again)) if one.rung == "fast"
        ]
        assert left == []


@pytest.mark.parametrize("name", ["balanced", "extreme"])
@pytest.mark.parametrize("left", [500.0, 600.0, 700.0])
def test_the_trainings_of_a_ready_recipe_fill_the_time_and_fit_into_it(name: str, left: float) -> None:
    now = situation(aim_of(name, saturating=False), *runtimes(int8=2.0), left=left)
    chain = list(Ready(FACTS, name).proposals(now))[-1]
    assert all("training" in step for step in chain.steps)
    assert 0.7 * left < COSTS.estimate(chain, []) <= left
    hurried = situation(aim_of(name, saturating=False), *runtimes(int8=2.0), left=100.0)
    assert not any(each.steps for each in Ready(FACTS, name).proposals(hurried) if each.rung == name)


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("10m", 600), ("3h", 10_800), ("1h30m", 5400), ("1.5h", 5400)]
)
def test_times(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["10", "m", "ten minutes", "", "0m", "-5m", "5d"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(RecipeError, match="--time"):
        parse_duration(text)
