"""The result tables on scores: methods side by side, Theseus, the demo, int8, a peer."""

from __future__ import annotations

import statistics
from typing import Any

from plankwise.core.records import Interval

METRICS = {"macro_f1": "macro-F1", "official_f": "GermEval F1", "germeval_f1": "GermEval F1"}


def interval(value: dict[str, float]) -> str:
    return str(Interval(**value))


def germeval2018(result: dict[str, Any]) -> str:
    lines = [
        "| model | parameters | macro-F1, test | retained | faster | training |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
        f"| baseline, 12 layers | {millions(result['baseline'])} | {interval(result['baseline_score'])} | | | "
        f"{seconds(result['baseline'])} |",
    ]
    for name, each in result["variants"].items():
        faster = f"{each['speedup']:.2f}×" if each["speedup"] else ""
        lines.append(
            f"| {name} | {millions(each['seeds'])} | {interval(each['score'])} | {interval(each['retained'])} | "
            f"{faster} | {seconds(each['seeds'])} |"
        )
    ratios = ", ".join(f"{interval(value)} times that of {name}" for name, value in result["theseus_over"].items())
    majority = result["majority"]["macro_f1"]
    closing = (
        f"{len(result['seeds'])} seeds. Always guessing the majority scores {majority:.3f}. Theseus scores {ratios}."
    )
    return "\n".join([*lines, "", closing])


def millions(entries: list[dict[str, Any]]) -> str:
    return f"{entries[0]['parameters'] / 1e6:.2f} M"


def seconds(entries: list[dict[str, Any]]) -> str:
    return f"{statistics.median(each['train_seconds'] for each in entries):.0f} s"


def demo(result: dict[str, Any]) -> str:
    final, baseline = result["final"], result["baseline"]
    mb = {name: each["cost"]["size_bytes"] / 1e6 for name, each in result.items() if name in ("final", "baseline")}
    lines = [
        "| model | parameters | size | macro-F1, test | retained | faster |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
        f"| baseline, 12 layers | {baseline['cost']['parameters'] / 1e6:.2f} M | "
        f"{mb['baseline']:.1f} MB | {interval(final['baseline_intervals']['macro_f1'])} | | |",
        f"| Theseus, 6 layers | {final['cost']['parameters'] / 1e6:.2f} M | {mb['final']:.1f} MB | "
        f"{interval(final['score_intervals']['macro_f1'])} | {interval(final['retained_performance']['macro_f1'])} | "
        f"{final['speedup']:.2f}× |",
    ]
    return "\n".join(lines)


def methods(result: dict[str, Any]) -> str:
    """Write one line for each method; speed-ups are those of the pass that timed all models in turns."""
    metric = METRICS.get(result["metric"], result["metric"])
    lines = [
        f"| method | {metric}, test | retained | parameters | fewer FLOPs | size | zstd | faster | minutes |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
        method_line("baseline, 12 layers", result["baseline"]),
        *(method_line(seeded(name, each, result), each) for name, each in result["variants"].items()),
    ]
    guess, words = result["majority"][result["metric"]], result["bag_of_words"]["scores"][result["metric"]]
    rates = " and ".join(f"{each['learning_rate']:g}" for each in result["training"].values())
    closing = [
        f"{len(result['seeds'])} seeds, {result['rows']['test']:,} test texts; always guessing the majority scores "
        f"{guess:.3f}, TF-IDF with logistic regression {words:.3f}. All training takes "
        f"{result['training']['student']['epochs']:g} epochs; learning rates {rates} for shallower students and for "
        "models that keep 12 layers. Sizes are medians over seeds."
    ]
    if result["timing"]:
        timing = result["timing"]
        low, high = timing["itself"]["spread"]
        closing.append(
            f"Faster: {timing['runtime']}, {timing['threads']} thread(s), models of seed {timing['seed']}, median of "
            f"{timing['rounds']} rounds and in brackets the smallest and largest; the baseline "
            f"against a copy of itself: {timing['itself']['speedup']:.2f}× [{low:.2f}, {high:.2f}]."
        )
    if result["not_finished"]:
        closing.append(f"Not finished: {', '.join(result['not_finished'])}.")
    return "\n".join([*lines, "", " ".join(closing)])


def seeded(name: str, each: dict[str, Any], result: dict[str, Any]) -> str:
    """Return the name of a variant, with its number of seeds if some are missing."""
    return name if len(each["seeds"]) == len(result["seeds"]) else f"{name} ({len(each['seeds'])} of the seeds)"


def method_line(name: str, each: dict[str, Any]) -> str:
    timing, retained = each.get("timing"), each.get("retained")
    faster = f"{timing['speedup']:.2f}× [{timing['spread'][0]:.2f}, {timing['spread'][1]:.2f}]" if timing else ""
    fewer = f"{each['fewer_flops']:.2f}×" if "fewer_flops" in each else ""
    cells = [
        name,
        interval(each["score"]) if each["score"] else "",
        interval(retained) if retained else "",
        f"{each['parameters'] / 1e6:.2f} M",
        fewer,
        f"{each['size_bytes'] / 1e6:.1f} MB",
        f"{each['compressed_bytes'] / 1e6:.1f} MB",
        faster,
        f"{each['minutes']:.1f}",
    ]
    return f"| {' | '.join(cells)} |"


def peer_textbrewer(result: dict[str, Any]) -> str:
    """Write both sides' scores and seconds per step."""
    names = {
        "textbrewer": "TextBrewer, fp32",
        "plankwise": "plankwise, fp32",
        "plankwise_bf16": "plankwise, bf16 (its default)",
    }
    lines = ["| distillation | macro-F1, test | seconds per step | faster |", "| --- | ---: | ---: | ---: |"]
    for key, name in names.items():
        score, faster = result["score"].get(key), result["faster_than_textbrewer"].get(key)
        shown = f"{faster['value']:.2f}× [{faster['low']:.2f}, {faster['high']:.2f}]" if faster else ""
        cells = [name, interval(score) if score else "", f"{result['seconds_per_step'][key]:.3f}", shown]
        lines.append(f"| {' | '.join(cells)} |")
    over = interval(result["plankwise_over_textbrewer"])
    closing = (
        f"GermEval 2018, {len(result['seeds'])} seeds, {result['steps']} steps, {result['threads']} thread(s); in fp32 "
        f"plankwise scores {over} times what TextBrewer does. Steps: medians of {result['rounds']} rounds, with the "
        "smallest and largest ratio."
    )
    return "\n".join([*lines, "", closing])


def quantization_germeval2018(result: dict[str, Any]) -> str:
    """Write one line for each way of quantizing each model, and what training brought back."""
    lines = [
        f"| model | numbers | size | {result['metric']}, test | points lost or won | retained | label loyalty | "
        "largest change of a probability |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for parent, variants in result["parents"].items():
        lines.append(f"| {parent} | fp32, torch | | {variants['fp32']['score']:.3f} | | | | |")
        for name, each in variants.items():
            if name == "fp32":
                continue
            kept = each["retained"]
            seeds = ", ".join(f"{value:+.1f}" for value in each["differences"])
            lines.append(
                f"| {parent} | {name} | {each['size_bytes'] / 1e6:.1f} MB | {each['score']:.3f} | "
                f"{each['difference']:+.2f} ({seeds}) | {kept['value']:.3f} [{kept['low']:.3f}, {kept['high']:.3f}] | "
                f"{each['loyalty']:.3f} | {each['probability_change']:.2f} |"
            )
    closing = (
        f"{len(result['seeds'])} seeds, in brackets the points of each. Scores are those of the exported model in its "
        f"own runtime; size is that of its files. Accuracy-aware: within {result['margin']} on development. Training: "
        f"{result['training']['epochs']:g} epoch with the fp32 baseline as teacher."
    )
    back = result["recovered"]
    said = (
        "Static int8 costs the smaller model nothing, so there was nothing for training to bring back."
        if back is None
        else f"Of what static int8 costs the smaller model, training brings back {100 * back:.0f} %."
    )
    return "\n".join([*lines, "", f"{closing} {said}"])


TABLES = {
    "demo": demo,
    "germeval2018": germeval2018,
    "methods_davidson2017": methods,
    "methods_germeval2018": methods,
    "peer_textbrewer": peer_textbrewer,
    "quantization_germeval2018": quantization_germeval2018,
}
