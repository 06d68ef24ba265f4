"""A picture of lesions: what is left of the accuracy when more and more branches are off."""

from __future__ import annotations

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from cbundles.auditing.lesion_findings import FITTED, WORDS, Lesions


def removal_curves(lesions: Lesions) -> Figure:
    """Accuracy over the number of branches that are off, a line for each ranking; the band below
    the whole model's accuracy is what the test cannot see, at best."""
    figure = Figure(figsize=(7, 4), layout="constrained", dpi=150)
    axes = figure.subplots()
    whole, smallest = 100 * lesions.accuracy, lesions.smallest_rise
    axes.axhspan(whole - smallest, whole, color="lightgrey", linewidth=0)
    for curve in lesions.curves.values():
        accuracies = [whole, *(100 * accuracy for accuracy in curve.accuracies)]
        style = "--" if curve.by in FITTED else "-"
        axes.plot(range(len(accuracies)), accuracies, style, label=WORDS[curve.by], linewidth=1.2)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel(f"branches that are off, of {len(lesions.branches)}")
    axes.set_ylabel("accuracy [%]")
    axes.set_title(
        f"{lesions.samples:,} samples; grey: a rise of up to {smallest:.2g} points, which no test "
        "could have seen; dashed: chosen on these samples",
        fontsize=7,
        loc="left",
    )
    axes.legend(fontsize=7, frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    return figure
