"""The README's computed parts: `python -m pointseg.bookkit.readme` draws its picture and writes its
table of claims, which the first page of the book shows too."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pointseg.bookkit import figures, measured, six_points
from pointseg.bookkit.markup import Html, filled, joined
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
    rows = [f"| {line.claim} | {line.says} | {line.marked('**{}**')} |" for line in lines]
    return "\n".join([*head, *rows, "", measured.sentence(runs, held)])


def claims_page(claims: Path, runs: Path) -> Html:
    """The same as HTML."""
    held = trial(claims, runs)
    lines = [[line.claim, line.says, badged(line)] for line in claim_lines(held)]
    return filled("{}<p>{}</p>", table(HEAD, lines, cards=True), measured.sentence(runs, held))


def badged(line: Line) -> Html:
    words = (filled("{} on {}", badge(word), beds) for word, beds in line.words.items())
    return joined("; ", words)


@dataclass(frozen=True)
class Line:
    """A claim, or claims that nothing tells apart, and what each word was computed on."""

    claim: str
    says: str
    words: dict[str, str]  # word -> where, and by what

    def marked(self, mark: str) -> str:
        return "; ".join(f"{mark.format(word)} on {beds}" for word, beds in self.words.items())


def claim_lines(held: Trial) -> list[Line]:
    """A line a claim; claims that no bed could test, for the same reasons, share one."""
    by_claim: dict[str, list[Verdict]] = {}
    for verdict in [*held.on_bench, *held.verdicts.values()]:
        if verdict.word != NOT_RUN:
            by_claim.setdefault(verdict.id, []).append(verdict)
    alike: dict[object, list[str]] = {}
    for claim, verdicts in by_claim.items():
        untested = all(verdict.missed for verdict in verdicts)
        reason = tuple((v.place, v.missed) for v in verdicts) if untested else claim
        alike.setdefault(reason, []).append(claim)
    return [line(claims, by_claim[claims[0]]) for claims in alike.values()]


def line(claims: Sequence[str], verdicts: Sequence[Verdict]) -> Line:
    says = verdicts[0].says if len(claims) == 1 else f"{len(claims)} orders of rows"
    words: dict[str, list[str]] = {}
    for verdict in verdicts:
        words.setdefault(verdict.word, []).append(f"{verdict.place} ({why(verdict)})")
    return Line(", ".join(claims), says, {w: ", ".join(each) for w, each in words.items()})


def why(verdict: Verdict) -> str:
    """The gates that a bed misses, or the first pair of rows that has the verdict's word."""
    deciding = [str(step) for step in verdict.steps if step.word == verdict.word]
    return "; ".join(verdict.missed or deciding[:1])


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
