"""Write the tables of README.md and docs/ from results/*.json, between their marks; no number is typed by hand.

Usage: python benchmarks/tables.py [--check]
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import sys
from pathlib import Path
from typing import Any

import quantization_table
import speed_tables
from plankwise.core.intervals import format_interval
from plankwise.evaluation.effects import shown_estimate
from plankwise.report.domain_table import markdown

ROOT = Path(__file__).parents[1]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
MARK = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- end -->)", re.S)


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


def theseus_step(result: dict[str, Any]) -> str:
    rows = {
        "Theseus / plain 12-layer step, fp32": "theseus_over_plain_fp32",
        "Theseus in bf16 / plain step in fp32": "theseus_over_plain_bf16",
        "Theseus / plain step, both bf16": "theseus_bf16_over_plain_bf16",
        "Theseus / a step that keeps frozen gradients, fp32": "theseus_over_reference_fp32",
        "peak memory, Theseus / plain": "peak_memory_ratio",
    }
    lines = ["| BERT-base geometry, 8 × 64 tokens, rate 0.5 | ratio |", "| --- | ---: |"]
    return "\n".join([*lines, *(f"| {name} | {result[key]:.2f} |" for name, key in rows.items())])


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


def domain_step(result: dict[str, Any]) -> str:
    lines = ["| ratio | BERT-base | width 128 |", "| --- | ---: | ---: |"]
    names = {
        "a step of compressing the language model / one of plain training": "compression_over_plain",
        "a step of fine-tuning 12 layers / 6 layers": "fine_tuning_speedup",
    }
    sizes = ("bert_base", "mini")
    return "\n".join(
        [
            *lines,
            *(
                f"| {name} | {' | '.join(f'{result[size][key]:.2f}' for size in sizes)} |"
                for name, key in names.items()
            ),
        ]
    )


def study(result: dict[str, Any]) -> str:
    """Write the findings of a study, and under them the main effects."""
    lines = ["| claim | contrast [95 %] | verdict |", "| --- | ---: | --- |"]
    for finding in result["findings"]:
        contrasts = "; ".join(shown_estimate(part["estimate"]) for part in finding["parts"])
        lines.append(f"| {finding['claim']} | {contrasts} | {finding['verdict']} |")
    counts, seeds = result["counts"], result["seeds"]
    lines += [
        "",
        f"{counts['complete']} trials, {result['settings']} settings, seeds {', '.join(map(str, seeds))}.",
        "",
    ]
    return "\n".join([*lines, *effects(result)])


def effects(result: dict[str, Any]) -> list[str]:
    """List each level's mean development score and its effect against the mean of all levels."""
    lines = ["| parameter | value | mean | effect [95 %] |", "| --- | --- | ---: | ---: |"]
    for key, levels in result["effects"].items():
        name = key.rpartition(".")[2]
        lines += [
            f"| {name} | {each['value']} | {each['mean']:.4f} | {shown_estimate(each['effect'])} |" for each in levels
        ]
    return lines


def initialization(result: dict[str, Any]) -> str:
    lines = [*effects(result), "", f"{result['counts']['complete']} trials, {len(result['seeds'])} seeds each."]
    return "\n".join(lines)


def corpus_memory(result: dict[str, Any]) -> str:
    lines = ["| generated corpus | blocks of tokens | peak anonymous memory |", "| ---: | ---: | ---: |"]
    size, peak = f"{result['gigabytes']:.1f} GB", f"{result['peak_anon_mb']} MB"
    return "\n".join([*lines, f"| {size} | {result['blocks']:,} | {peak} |"])


def mimic_memory(result: dict[str, Any]) -> str:
    lines = ["| definition | NOTEEVENTS | peak memory | admissions left |", "| --- | ---: | ---: | ---: |"]
    size = f"{result['noteevents_bytes'] / 1e9:.2f} GB"
    for name, each in result["definitions"].items():
        lines.append(f"| {name} | {size} | {each['peak_bytes'] / 1e6:.0f} MB | {each['admissions']:,} |")
    return "\n".join(lines)


def methods(result: dict[str, Any]) -> str:
    """Write one line for each method; speed-ups are those of the pass that timed all models in turns."""
    metric = {"macro_f1": "macro-F1"}.get(result["metric"], result["metric"])
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
        f"{guess:.3f}, TF-IDF with logistic regression {words:.3f}. Whatever trains does so for "
        f"{result['training']['student']['epochs']:g} epochs; learning rates {rates} for shallower students and for "
        "models that keep 12 layers. Sizes are medians over seeds."
    ]
    if result["timing"]:
        timing = result["timing"]
        itself = format_interval(timing["itself"]["speedup"], *timing["itself"]["spread"], digits=2, unit="×")
        closing.append(
            f"Faster: {timing['runtime']}, {timing['threads']} thread(s), models of seed {timing['seed']}, median of "
            f"{timing['rounds']} rounds and in brackets the smallest and largest; the baseline "
            f"against a copy of itself: {itself}."
        )
    if result["not_finished"]:
        closing.append(f"Not finished: {', '.join(result['not_finished'])}.")
    return "\n".join([*lines, "", " ".join(closing)])


def seeded(name: str, each: dict[str, Any], result: dict[str, Any]) -> str:
    """Say of a variant how many seeds it has, if these are not all."""
    return name if len(each["seeds"]) == len(result["seeds"]) else f"{name} ({len(each['seeds'])} of the seeds)"


def method_line(name: str, each: dict[str, Any]) -> str:
    timing, retained = each.get("timing"), each.get("retained")
    faster = format_interval(timing["speedup"], *timing["spread"], digits=2, unit="×") if timing else ""
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
        shown = format_interval(**faster, digits=2, unit="×") if faster else ""
        cells = [name, interval(score) if score else "", f"{result['seconds_per_step'][key]:.3f}", shown]
        lines.append(f"| {' | '.join(cells)} |")
    over = interval(result["plankwise_over_textbrewer"])
    closing = (
        f"GermEval 2018, {len(result['seeds'])} seeds, {result['steps']} steps, {result['threads']} thread(s); in fp32 "
        f"plankwise scores {over} times what TextBrewer does. Steps: medians of {result['rounds']} rounds, with the "
        "smallest and largest ratio."
    )
    return "\n".join([*lines, "", closing])


TABLES = {
    **quantization_table.TABLES,
    **speed_tables.TABLES,
    "methods_germeval2018": methods,
    "methods_davidson2017": methods,
    "peer_textbrewer": peer_textbrewer,
    "germeval2018": germeval2018,
    "theseus_step": theseus_step,
    "demo": demo,
    "domain_lm": markdown,
    "domain_lm_clinical": markdown,
    "domain_step": domain_step,
    "corpus_memory": corpus_memory,
    "mimic_memory": mimic_memory,
    "study_theseus": study,
    "study_initialization": initialization,
}


def interval(value: dict[str, float]) -> str:
    return format_interval(value["value"], value["low"], value["high"])


def filled(page: str) -> str:
    def replace(match: re.Match[str]) -> str:
        name = match[2]
        path = ROOT / "results" / f"{name}.json"
        body = (
            TABLES[name](json.loads(path.read_text())) if path.exists() else f"`results/{name}.json` was not made yet."
        )
        return f"{match[1]}\n{body}\n\n{match[3]}"

    return MARK.sub(replace, page)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--check", action="store_true", help="only say whether a page is out of date")
    arguments = parser.parse_args()
    for page in PAGES:
        before = page.read_text(encoding="utf-8")
        after = filled(before)
        if before != after and arguments.check:
            sys.exit(f"{page.relative_to(ROOT)} is not what results/ say; run: make tables")
        page.write_text(after, encoding="utf-8")


if __name__ == "__main__":
    main()
