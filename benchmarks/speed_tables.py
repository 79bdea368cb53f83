"""The tables of README.md on speed: runtimes on a CPU, prediction from end to end, a GPU, what pruning costs."""

from __future__ import annotations

import sys
from typing import Any

from plankwise.core.intervals import format_interval


def throughput(result: dict[str, Any]) -> str:
    """Write one line for each model and runtime, then single texts, then what was aimed at."""
    check_not_quick(result)
    first, second = "over_eager", "over_onnxruntime_fp32"
    lines = [
        "| model | runtime | ms per text | over eager | over ONNX Runtime fp32 | of the GEMM ceiling |",
        "| --- | --- | ---: | ---: | ---: | ---: |",
    ]
    for model in (name for name in result if name.startswith("bert")):
        for runtime, each in result[model].items():
            share = each["percent_of_ceiling"]
            cells = [f"{each['ms_per_text']:.2f}", faster(each, first), faster(each, second)]
            lines.append(f"| {model} | {runtime} | {' | '.join(cells)} | {'' if share is None else f'{share:.0f} %'} |")
    lines += ["", "| one text | model | runtime | p50 | p95 | over eager |", "| --- | --- | --- | ---: | ---: | ---: |"]
    for tokens, case in result["latency"].items():
        for model, runtimes in case.items():
            for runtime, each in runtimes.items():
                cells = [f"{each['p50_ms']:.1f} ms", f"{each['p95_ms']:.1f} ms", faster(each, first)]
                lines.append(f"| {tokens} tokens | {model} | {runtime} | {' | '.join(cells)} |")
    lines += ["", "| target | at least | measured | |", "| --- | ---: | ---: | --- |"]
    for each in result["targets"]:
        verdict = "met" if each["met"] else "missed"
        lines.append(f"| {each['what']} | {each['target']:g}× | {each['measured']:.2f}× | {verdict} |")
    ceilings = ", ".join(f"{name} {value:.0f}" for name, value in result["ceiling_gops"].items() if value)
    closing = (
        f"{result['texts']} tweets, {result['threads']} threads, {result['rounds']} rounds in turns; medians, in "
        f"brackets the smallest and largest round. Best matrix products, 10⁹ operations a second: {ceilings}. "
        f"{warned(result)}"
    )
    return "\n".join([*lines, "", closing])


def check_not_quick(result: dict[str, Any]) -> None:
    """Refuse what a script measured while it was only tried out."""
    if result.get("quick"):
        sys.exit("a result was made with --quick and means nothing; make it anew")


def faster(each: dict[str, Any], key: str) -> str:
    if key not in each:
        return ""
    return format_interval(each[key], *each[f"{key}_spread"], digits=2, unit="×")


def warned(result: dict[str, Any]) -> str:
    """Say what made the machine's figures doubtful."""
    return f"Warnings: {'; '.join(result['warnings'])}." if result["warnings"] else "The machine was quiet."


def predict_overhead(result: dict[str, Any]) -> str:
    """Write what the command takes over the model alone."""
    over, inner, model = result["over_model"], result["without_start"], result["model"]
    verdict = "met" if result["met"] else "missed"
    lines = [
        f"| {result['rows']:,} tweets, {model['runtime']} {model['precision']} | |",
        "| --- | ---: |",
        f"| `plankwise predict`, from start to end | {result['seconds']['predict']:.1f} s |",
        f"| the model alone | {result['seconds']['model']:.1f} s |",
        f"| ratio | {format_interval(over['speedup'], *over['spread'], digits=2)} |",
        f"| without imports and opening the model | {inner['speedup']:.2f} |",
        f"| target: at most {result['target']:g} | {verdict} |",
        "",
        f"{result['threads']} threads, medians of {result['rounds']} rounds in turns. {warned(result)}",
    ]
    return "\n".join(lines)


def gpu(result: dict[str, Any]) -> str:
    """Write milliseconds a text for every case, or that no GPU could be had."""
    if not result["ran"]:
        return f"Not run: {result['why']}."
    check_not_quick(result)
    lines = [
        "| texts | batch | variant | bert12, ms | bert6 | bert12-pruned | bert6-pruned |",
        "| --- | ---: | --- | ---: | ---: | ---: | ---: |",
    ]
    for text, sizes in result["cases"].items():
        for size, told in sizes.items():
            for form, each in told["bert12"].items():
                others = [told[name].get(form, {}) for name in ("bert6", "bert12-pruned", "bert6-pruned")]
                cells = [f"{each['ms_per_text']:.3f}", *(faster(other, "over_bert12") for other in others)]
                lines.append(f"| {text} | {size} | {form} | {' | '.join(cells)} |")
    half = result["half_depth"]
    more = sum(half["more_than_thesis"].values())
    closing = [
        f"{result['device']}, {result['rounds']} rounds in turns; times faster than 12 whole layers in the same "
        "variant, medians, in brackets the smallest and largest round. Half the layers gain more than the thesis' "
        f"{half['thesis']}× in {more} of {len(half['more_than_thesis'])} cases."
    ]
    if result["not_run"]:
        why = sorted(set(result["not_run"].values()))
        closing.append(f"{len(result['not_run'])} variants could not be run: {'; '.join(why)}.")
    return "\n".join([*lines, "", " ".join(closing)])


def pruning_cost(result: dict[str, Any]) -> str:
    """Write what each phase took, and what came of it."""
    lines = [f"| BERT-base geometry, {result['examples']:,} tweets without labels | |", "| --- | ---: |"]
    lines += [f"| {phase} | {value:.0f} s |" for phase, value in result["seconds"].items()]
    faster = format_interval(result["speedup"], *result["spread"], digits=2)
    lines += [
        f"| linear FLOPs, before / after | {result['fewer_flops']:.2f} |",
        f"| prediction, before / after | {faster} |",
        f"| peak memory | {result['peak_bytes'] / 1e9:.1f} GB |",
        f"| threads | {result['threads']} |",
    ]
    return "\n".join(lines)


TABLES = {"throughput": throughput, "predict_overhead": predict_overhead, "gpu": gpu, "pruning_cost": pruning_cost}
