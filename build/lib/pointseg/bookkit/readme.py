"""The README's computed parts: `python -m pointseg.bookkit.readme` draws its picture and writes its
table of claims."""

from __future__ import annotations

import re
from pathlib import Path

from pointseg.bookkit import figures, six_points
from pointseg.bookkit.report import NOT_RUN, trial
from pointseg.lab.verdicts import Verdict, on_bench

PICTURE = Path("book/_assets/six_points.png")
TABLE = re.compile(r"(<!-- claims -->\n).*?(<!-- end of claims -->)", re.S)
NO_VERDICT = (
    "*No verdict yet.* The library was rebuilt and its old runs were retired; every row is being "
    "made again, and this table fills as they end."
)


def claims_table(claims: Path, runs: Path) -> str:
    """Markdown: what papers say about the order of their rows, and what our runs say of it."""
    held = trial(claims, runs)
    lines = [
        f"| {v.id}, labels on {v.bed} | {v.says} | **{v.word}**{missing(v)} |"
        for v in on_bench(held.claims, runs) if v.word != NOT_RUN
    ]  # fmt: skip
    lines += [
        f"| {row['paper']} Tab. {row['table']} | {row['says']} | **{row['verdict']}** |"
        for row in held.order_rows() if row["verdict"] != NOT_RUN
    ]  # fmt: skip
    if not lines:
        return NO_VERDICT
    return "\n".join(["| claim | the paper says | our runs say |", "|---|---|---|", *lines])


def missing(verdict: Verdict) -> str:
    """The gates that a bed misses, in words."""
    return f": {'; '.join(verdict.missed)}" if verdict.missed else ""


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
