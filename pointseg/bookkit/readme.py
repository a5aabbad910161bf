"""The README's computed parts: `python -m pointseg.bookkit.readme` draws its picture and writes its
table of claims, which the first page of the book shows too."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from pointseg.bookkit import figures, measured, six_points
from pointseg.bookkit.markup import Html, filled
from pointseg.bookkit.report import NOT_RUN, Trial, badge, table, trial
from pointseg.lab.verdicts import Verdict

PICTURE = Path("book/_assets/six_points.png")
TABLE = re.compile(r"(<!-- claims -->\n).*?(<!-- end of claims -->)", re.S)
HEAD = ("claim", "the paper says", "our runs say")
NO_VERDICT = (
    "*No verdict yet.* The library was rebuilt and its old runs were retired; every row is being "
    "made again, and this table fills as they end."
)


def claims_table(claims: Path, runs: Path) -> str:
    """Markdown: what papers say about the order of their rows, what our runs say of it, and what
    has been measured at all."""
    held = trial(claims, runs)
    lines = claim_lines(held)
    if not lines:
        return NO_VERDICT
    head = [f"| {' | '.join(HEAD)} |", "|---|---|---|"]
    rows = [f"| {claim} | {says} | **{word}**{shown} |" for claim, says, word, shown in lines]
    return "\n".join([*head, *rows, "", measured.sentence(runs, held)])


def claims_page(claims: Path, runs: Path) -> Html:
    """The same as HTML."""
    held = trial(claims, runs)
    lines = [
        [claim, says, filled("{}{}", badge(word), shown)]
        for claim, says, word, shown in claim_lines(held)
    ]
    return filled("{}<p>{}</p>", table(HEAD, lines, cards=True), measured.sentence(runs, held))


def claim_lines(held: Trial) -> list[tuple[str, str, str, str]]:
    """(claim, what the paper says, our word, why), a line a claim or a reason that claims share."""
    alike: dict[tuple, list[Verdict]] = {}
    for verdict in [*held.on_bench, *held.verdicts.values()]:
        if verdict.word != NOT_RUN:
            alike.setdefault(reason(verdict), []).append(verdict)
    return [line(verdicts) for verdicts in alike.values()]


def reason(verdict: Verdict) -> tuple:
    """What claims have in common that share a line: the gates that their bed misses."""
    return (verdict.bed, *verdict.missed) if verdict.missed else (verdict.bed, verdict.id)


def line(verdicts: Sequence[Verdict]) -> tuple[str, str, str, str]:
    """Of one claim, or of all that a bed cannot test for the same reason."""
    first = verdicts[0]
    says = first.says if len(verdicts) == 1 else f"{len(verdicts)} orders of rows"
    shown = first.missed or [str(step) for step in first.steps if step.word == first.word][:2]
    names = ", ".join(verdict.id for verdict in verdicts)
    labels = "students" if first.bed is None else f"labels on {first.bed}"
    return f"{names}; {labels}", says, first.word, f": {'; '.join(shown)}" if shown else ""


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
