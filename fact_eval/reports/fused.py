"""Tables of `fact-eval fused`: fused against unfused modulated convolution."""

from fact_eval.compare.consistency import Report
from fact_eval.reports.tables import plain_table
from fact_metrics.base.plain_text import for_terminal


def fused_tables(result: Report) -> str:
    """The report as text: images, layers with the largest deviation marked, precisions that do not apply."""
    images = [
        {
            "precision": row.precision,
            "ran": " / ".join(row.paths),
            "max abs": f"{row.max_abs:.2g}",
            "mean abs": f"{row.mean_abs:.2g}",
            "PSNR, dB": f"{row.psnr:.1f}",
            "LPIPS ± se": _with_error(row.lpips, row.lpips_stderr),
            "uint8 changed ± se": _with_error(row.pixels_changed, row.pixels_changed_stderr),
            "FID ± se": _with_error(row.fid, row.fid_stderr),
            "from float64, fused / unfused": f"{row.error_fused:.2g} / {row.error_unfused:.2g}",
            "ms, fused / unfused": f"{row.milliseconds_fused:.1f} / {row.milliseconds_unfused:.1f}",
        }
        for row in result.images
    ]
    layers = [
        {
            "precision": row.precision,
            "layer": row.layer,
            "ran": " / ".join(row.paths),
            "max abs": f"{row.max_abs:.2g}",
            "relative": f"{row.relative:.2g}",
            "in eps": f"{row.rounding:.2g}",
            "": "most" if row.layer == result.worst_layer(row.precision) else "",
        }
        for row in result.layers
    ]
    title = f"{for_terminal(result.snapshot)} on {result.device}: {result.pairs} pairs"
    title += f", timed in batches of {result.batch}"
    absent = [f"{name}: {reason}" for name, reason in result.not_applicable.items()]
    return "\n\n".join([title, plain_table(images), plain_table(layers), *absent])


def _with_error(value: float, stderr: float | None) -> str:
    return f"{value:.2g}" if stderr is None else f"{value:.2g} ± {stderr:.1g}"
