"""The result tables on speed and memory: runtimes, prediction, a GPU, training steps, pruning, extraction."""

from __future__ import annotations

from typing import Any

from plankwise.core.intervals import format_interval


def throughput(result: dict[str, Any]) -> str:
    """Write one line for each model and runtime, then single texts, then the targets."""
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


def faster(each: dict[str, Any], key: str) -> str:
    if key not in each:
        return ""
    return format_interval(each[key], *each[f"{key}_spread"], digits=2, unit="×")


def warned(result: dict[str, Any]) -> str:
    """Return the warnings about the measurement in a sentence."""
    return f"Warnings: {'; '.join(result['warnings'])}." if result["warnings"] else "The machine was quiet."


def predict_overhead(result: dict[str, Any]) -> str:
    """Write the time of the command and of the model alone."""
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
    """Write milliseconds a text for every case, or why no GPU was used."""
    if not result["ran"]:
        return f"Not run: {result['why']}."
    lines = [
        "| texts | batch | variant | bert12, ms | bert6 | bert12-pruned | bert6-pruned |",
        "| --- | ---: | --- | ---: | ---: | ---: | ---: |",
    ]
    for text, sizes in result["cases"].items():
        for size, found in sizes.items():
            for form, each in found["bert12"].items():
                others = [found[name].get(form, {}) for name in ("bert6", "bert12-pruned", "bert6-pruned")]
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
    """Write the seconds of each phase, and the result."""
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


TABLES = {
    "corpus_memory": corpus_memory,
    "domain_step": domain_step,
    "gpu": gpu,
    "mimic_memory": mimic_memory,
    "predict_overhead": predict_overhead,
    "pruning_cost": pruning_cost,
    "theseus_step": theseus_step,
    "throughput": throughput,
}
