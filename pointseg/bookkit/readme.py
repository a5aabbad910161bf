"""The README's computed parts: `python -m pointseg.bookkit.readme` draws its picture and writes its
table of claims."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from pointseg.bookkit import figures, six_points
from pointseg.bookkit.report import NOT_RUN, trial
from pointseg.lab.verdicts import Verdict

PICTURE = Path("book/_assets/six_points.png")
TABLE = re.compile(r"(<!-- claims -->\n).*?(<!-- end of claims -->)", re.S)
NO_VERDICT = (
    "*No verdict yet.* The library was rebuilt and its old runs were retired; every row is being "
    "made again, and this table fills as they end."
)


def claims_table(claims: Path, runs: Path) -> str:
    """Markdown: what papers say about the order of their rows, and what our runs say of it."""
    held = trial(claims, runs)
    judged = [*held.on_bench, *held.verdicts.values()]
    alike: dict[tuple, list[Verdict]] = {}
    for verdict in judged:
        if verdict.word != NOT_RUN:
            alike.setdefault(reason(verdict), []).append(verdict)
    if not alike:
        return NO_VERDICT
    lines = [line(verdicts) for verdicts in alike.values()]
    return "\n".join(["| claim | the paper says | our runs say |", "|---|---|---|", *lines])


def reason(verdict: Verdict) -> tuple:
    """What claims have in common that share a line: the gates that their bed misses."""
    return (verdict.bed, *verdict.missed) if verdict.missed else (verdict.bed, verdict.id)


def line(verdicts: Sequence[Verdict]) -> str:
    """Of one claim, or of all that a bed cannot test for the same reason."""
    first = verdicts[0]
    says = first.says if len(verdicts) == 1 else f"{len(verdicts)} orders of rows"
    shown = first.missed or [str(step) for step in first.steps if len(first.steps) == 1]
    verdict = ": ".join([f"**{first.word}**", *(["; ".join(shown)] if shown else [])])
    names = ", ".join(verdict.id for verdict in verdicts)
    labels = "students" if first.bed is None else f"labels on {first.bed}"
    return f"| {names}; {labels} | {says} | {verdict} |"


def renewed(text: str, table: str) -> str:
    """A README with the table of claims between its markers."""
    return TABLE.sub(lambda match: f"{match[1]}{table}\n{match[2]}", text)


def main() -> None:
    readme = Path("README.md")
    table = claims_table(Path("book/claims.yml"), Path("runs"))
    readme.write_text(renewed(readme.read_text(), table))
    figures.save(six_points.figure(), PICTURE)


if __name__ == "__main__":
    main()
