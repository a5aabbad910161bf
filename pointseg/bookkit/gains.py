"""What a row of a bed adds to another one, with its interval, over all objects or those that a
question is about; and such differences along the values of a setting."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pointseg.bookkit.figures import colour
from pointseg.bookkit.report import measured_table
from pointseg.lab.verdicts import Effect, ended_in, label_gains, paired, scored_objects, two_way

# of the objects of a run, those that a question is about
GROUPS: dict[str, Callable[[dict], np.ndarray]] = {
    "all": lambda objects: np.ones(len(objects["image"]), bool),
    "touch their own class": lambda objects: objects["contact"] == "same",
    "have kin in their box": lambda objects: np.isfinite(objects["taken"]),
    "in several pieces": lambda objects: objects["pieces"] > 1,
}


def effect_of(
    bed: Path, above: str, below: str, score: str = "iou", group: str = "all"
) -> Effect | None:
    """The gain of a row over another on a bed's folder in runs/, on the seeds that both have; None
    where there is none, or no object of the group."""
    runs = [ended_in(bed / row) for row in (above, below)]
    if not any(GROUPS[group](scored_objects(run, score)).any() for run in runs[0]):
        return None
    pair = paired(*runs, label_gains(score, GROUPS[group]))
    return None if pair is None else two_way(*pair)


def in_words(effect: Effect | None) -> str:
    """A gain with its interval, and on how much it stands."""
    if effect is None:
        return "not measured"
    seeds = "1 seed" if effect.seeds == 1 else f"{effect.seeds} seeds"
    return f"{effect} points on {effect.objects} objects, {seeds}"


def table_of(
    beds: Mapping[str, Path], above: str, below: str, measures: Mapping[str, tuple[str, str]]
) -> str:
    """The gains of a row over another: a line a bed, a column a measure, its (score, group)."""
    lines = {}
    for name, bed in beds.items():
        effects = [effect_of(bed, above, below, *measure) for measure in measures.values()]
        lines[name] = ["-" if effect is None else in_words(effect) for effect in effects]
    return measured_table([f"{above} less {below}", *measures], lines)


def sweep_figure(
    panels: Mapping[str, tuple[Path, Mapping[str, str]]], beside: str, score: str = "iou"
) -> Figure:
    """Panel -> (a bed's folder, {value: row}): gains over the row `beside` with their intervals;
    a dash where a row was not run, the words where none was."""
    figure, axes = plt.subplots(1, len(panels), figsize=(2.4 * len(panels), 2.6), squeeze=False,
                                layout="constrained")  # fmt: skip
    for axis, (name, (bed, rows)) in zip(axes[0], panels.items()):
        _sweep(axis, [effect_of(bed, row, beside, score) for row in rows.values()])
        axis.set_xticks(range(len(rows)), list(rows), fontsize=7)
        axis.set_title(f"{name}\n{bed.name.removeprefix('bench-')}", fontsize=8)
    axes[0][0].set_ylabel(f"gain in {score} over {beside.split('-', 1)[1]}", fontsize=8)
    return figure


def _sweep(axis: Axes, effects: Sequence[Effect | None]) -> None:
    axis.set_xlim(-0.5, len(effects) - 0.5)
    if not any(effects):
        axis.set_yticks([])
        axis.text(0.5, 0.5, "not run", transform=axis.transAxes, ha="center", color="grey")
        return
    axis.axhline(0, color="black", linewidth=0.8)
    for x, effect in enumerate(effects):
        if effect is None:
            axis.text(x, 0, "–", ha="center", va="bottom")
        else:
            reach = [[effect.mean - effect.low], [effect.high - effect.mean]]
            axis.errorbar([x], [effect.mean], yerr=reach, fmt="o", color=colour(4), capsize=3)
