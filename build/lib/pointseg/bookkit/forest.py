"""The forest plot of claims: our paired differences with intervals, the papers' beside them."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from pointseg.bookkit.figures import colour
from pointseg.lab.verdicts import CONTRADICTED, HOLDS, Verdict

SHADES = {HOLDS: 2, CONTRADICTED: 5}  # of the figures' colours; all other words are grey


def figure(verdicts: Sequence[Verdict]) -> Figure | None:
    """One line a pair of rows, the first claim on top; None while nothing has been measured."""
    lines = [(v, step) for v in verdicts for step in v.steps if step.effect]
    if not lines:
        return None
    drawn, axis = plt.subplots(figsize=(7.4, 0.8 + 0.32 * len(lines)), layout="constrained")
    for y, (verdict, step) in enumerate(lines):
        effect, shade = step.effect, SHADES.get(step.word)
        tint = "grey" if shade is None or verdict.missed else colour(shade)
        reach = [[effect.mean - effect.low], [effect.high - effect.mean]]
        axis.errorbar([effect.mean], [y], xerr=reach, fmt="o", color=tint, capsize=3)
        if step.printed is not None:
            axis.plot(step.printed, y, "D", mfc="none", mec="black")
    axis.axvline(0, color="black", linewidth=0.8)
    names = [f"{v.id}: {step.above} over {step.below} ({v.bed})" for v, step in lines]
    axis.set(yticks=range(len(lines)), yticklabels=names, xlabel="difference, points")
    axis.invert_yaxis()
    return drawn
