"""From figures to what is told: medians over rounds, ratios, a table."""

import statistics

ROWS = {  # figure: how it is told
    "device": ("device", "{}"),
    "processor": ("processor", "{}"),
    "torch": ("torch", "{}"),
    "precision": ("precision", "{}"),
    "update_seconds": ("an update", "{:.4g} s"),
    "update_flops": ("operations in it", "{:.4g} FLOP"),
    "matmul_gflops": ("products of large matrices", "{:.4g} GFLOP/s"),
    "fraction_of_peak": ("an update's share of that", "{:.3f}"),
    "sampling_ms": ("sampling a batch", "{:.3g} ms"),
    "sampling_percent": ("of an update", "{:.2g} %"),
    "resident_gb": ("memory, peak", "{:.2f} GB"),
    "cuda_gb": ("memory of the GPU, peak", "{:.2f} GB"),
    "rendering_fps": ("the environment alone", "{:.4g} steps/s"),
    "collection_steps_per_second": ("collection", "{:.4g} steps/s"),
    "collection_of_rendering": ("of the environment alone", "{:.2f}"),
    "acting_ms": ("acting", "{:.3g} ms"),
}
COMPARED = {  # figure: its column
    "update_seconds": "update, s",
    "fraction_of_peak": "share of peak",
    "resident_gb": "memory, GB",
    "cuda_gb": "on the GPU, GB",
    "rendering_fps": "environment, steps/s",
    "collection_steps_per_second": "collection, steps/s",
    "acting_ms": "acting, ms",
}


def medians(rounds):
    """The figures of several rounds as one, each number the median."""
    first = rounds[0]
    if isinstance(first, dict):
        return {name: medians([figures[name] for figures in rounds]) for name in first}
    return statistics.median(rounds) if isinstance(first, (int, float)) else first


def complete(figures):
    """The figures with those that follow from them."""
    figures = dict(figures)
    if "update_seconds" in figures:
        figures["matmul_gflops"] = figures["matmul"][figures["precision"]]
        gflops = figures["update_flops"] / figures["update_seconds"] / 1e9
        figures["fraction_of_peak"] = gflops / figures["matmul_gflops"]
    if {"update_seconds", "sampling_ms"} <= figures.keys():
        figures["sampling_percent"] = figures["sampling_ms"] / figures["update_seconds"] / 10
    if {"rendering_fps", "collection_steps_per_second"} <= figures.keys():
        figures["collection_of_rendering"] = figures["collection_steps_per_second"] / figures["rendering_fps"]
    return figures


def ratios(figures, first):
    """{figure: its ratio to that of the first}, of those that are compared."""
    return {name: figures[name] / first[name] for name in COMPARED if name in figures and name in first}


def table(results):
    """Text: the first one's figures, then how the others compare. results: complete figures with a "variant"."""
    first = results[0]
    lines = [" ".join([first["config"], *first["overrides"]])]
    lines += [f"  {label:<28}{form.format(first[name])}" for name, (label, form) in ROWS.items() if name in first]
    if "parts" in first:
        lines += ["", *_part_lines(first["parts"])]
    if len(results) > 1:
        lines += ["", *_comparison(results)]
    return "\n".join(lines)


def _part_lines(parts):
    whole = sum(pieces["total"] for pieces in parts.values())
    for part, pieces in parts.items():
        for piece, seconds in sorted(pieces.items(), key=lambda item: -item[1]):
            yield f"  {part if piece == 'total' else '  ' + piece:<28}{seconds:.4g} s, {seconds / whole:.1%}"


def _comparison(results):
    """Rows of cells, aligned: a figure and, in brackets, its ratio to the first result's."""
    columns = [name for name in COMPARED if any(name in figures for figures in results)]
    rows = [["", *(COMPARED[name] for name in columns)]]
    for figures in results:
        ratio = ratios(figures, results[0])
        cells = [f"{figures[name]:.4g} ({ratio[name]:.2f})" if name in ratio else "" for name in columns]
        rows.append([figures["variant"], *cells])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for first, *cells in rows:
        yield "  ".join([first.ljust(widths[0]), *(c.rjust(width) for c, width in zip(cells, widths[1:], strict=True))])
