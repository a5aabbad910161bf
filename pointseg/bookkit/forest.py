"""The forest plot of claims: our paired differences with intervals, the papers' beside them."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from pointseg.bookkit.figures import colour
from pointseg.lab.verdicts import CONTRADICTED, HOLDS, Step, Verdict

LINEAR = 10  # points to both sides of zero that are drawn to one scale
SHADES = {HOLDS: 2, CONTRADICTED: 5}  # of the figures' colours; all other words are grey


def figure(verdicts: Sequence[Verdict]) -> Figure | None:
    """One line a pair of rows, the first claim on top; None while nothing has been measured."""
    lines = [(v, step) for v in verdicts for step in v.steps if step.effect and step.below]
    if not lines:
        return None
    drawn, axis = plt.subplots(figsize=(7.4, 0.8 + 0.22 * len(lines)), layout="constrained")
    for y, (verdict, step) in enumerate(lines):
        effect, shade = step.effect, SHADES.get(step.word)
        tint = "grey" if shade is None or verdict.missed else colour(shade)
        reach = [[effect.mean - effect.low], [effect.high - effect.mean]]
        axis.errorbar([effect.mean], [y], xerr=reach, fmt="o", color=tint, capsize=3)
        if step.printed is not None:
            axis.plot(step.printed, y, "D", mfc="none", mec="black")
    axis.axvline(0, color="black", linewidth=0.8)
    names = [f"{claim(v, step)}{short(step.above)} over {short(step.below)}" for v, step in lines]
    axis.set_yticks(range(len(lines)), names, fontsize=7, parse_math=False)
    axis.set_xscale("symlog", linthresh=LINEAR)
    axis.set_xlabel(f"difference, points (logarithmic beyond {LINEAR})", fontsize=8)
    axis.set_ylim(len(lines) - 0.5, -0.5)
    return drawn


def claim(verdict: Verdict, step: Step) -> str:
    """The claim and its bed, once for all its pairs."""
    first = next(s for s in verdict.steps if s.effect and s.below)
    return f"{verdict.id} on {verdict.place}: " if step is first else ""


def short(row: str) -> str:
    """A row's name without its paper and table, which the claim's name says."""
    return row.split("-", 2 if "-tab" in row else 1)[-1]
