"""What somebody asks for by name: rows of the plan, and rows that beds of the label bench score."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from pointseg.lab.claims import read_claims
from pointseg.lab.plan import beds, rows
from pointseg.lab.recipe import scale_of
from pointseg.lab.run_index import CLAIMS
from pointseg.lab.run_record import SMOKE, home
from pointseg.structures import InputError

MOVED = (SMOKE, "paper")  # scales that every row is taken to; the others choose among the rows
EVERYTHING = "all"


@dataclass
class Choice:
    """Names of rows for students, and names of rows for each bed; both in the plan's order."""

    rows: list[str] = field(default_factory=list)
    benches: dict[str, list[str]] = field(default_factory=dict)

    def add(self, names: Iterable[str], beds_of: dict[str, Iterable[str]]) -> None:
        self.rows = list(dict.fromkeys([*self.rows, *names]))
        for bed, scored in beds_of.items():
            self.benches[bed] = list(dict.fromkeys([*self.benches.get(bed, []), *scored]))


def chosen(names: Sequence[str], scale: str | None) -> Choice:
    """The rows and beds that the names stand for; with a scale of their own, only those of it."""
    choice = Choice()
    for name in names:
        named, benches = _of_name(name)
        choice.add([row for row in named if _trains(row, name, scale)], benches)
    if scale is not None:
        scale_of(scale)
    if scale == "paper":
        choice.benches = {}
    if scale is not None and scale not in MOVED:
        choice.rows = [n for n in choice.rows if rows()[n].given.get("scale", SMOKE) == scale]
        choice.benches = {b: r for b, r in choice.benches.items() if _bed_scale(b) == scale}
    return choice


def _trains(row: str, name: str, scale: str | None) -> bool:
    """Whether a row that a name stands for teaches a student: one that the plan leaves to the bench
    or to scale paper does so by its own name, and at scale paper; the latter by its tier, too."""
    planned = rows()[row]
    elsewhere = planned.given.get("scale") == "paper" and name != planned.tier
    return row == name or scale == "paper" or not (planned.bench_only or elsewhere)


def _bed_scale(bed: str) -> str:
    return beds()[bed].given.get("scale", SMOKE)


def _of_name(name: str) -> tuple[list[str], dict[str, list[str]]]:
    """Rows and beds of one name: all, a row, a bed, a tier, a paper, PAPER/TABLE, or a claim."""
    planned, benches = rows(), beds()
    if name in planned:
        return [name], {}
    if name in benches:
        return [], {name: list(benches[name].rows)}
    groups = [(row.tier, row.paper, EVERYTHING) for row in planned.values()]
    if any(name in group for group in groups):
        mine = [n for n, group in zip(planned, groups) if name in group]
        whole = {b: list(bed.rows) for b, bed in benches.items()
                 if name in (EVERYTHING, bed.paper, _bed_scale(b))}  # fmt: skip
        return mine, whole
    return _of_claims(name)


def _of_claims(name: str) -> tuple[list[str], dict[str, list[str]]]:
    """What stands in book/claims.yml under a paper, one of its tables or a claim."""
    claims = read_claims(home() / CLAIMS)
    orders = [o for o in claims["orders"] if name in _names_of(o) | {o["id"]}]
    beside = [o for o in orders if "ours" not in o]
    entries = [e for e in claims["measured"] if name in _names_of(e) or _judges(beside, e)]
    if not entries and not orders:
        tiers = dict.fromkeys(row.tier for row in rows().values())
        papers = dict.fromkeys(row.paper for row in rows().values())
        there = ", ".join([EVERYTHING, SMOKE, *tiers, *papers, *claims["papers"]])
        raise InputError(
            f"reproduce: there is no '{name}'; there are {there}, a table such as AS/3, the claims "
            "and rows of `pointseg verdicts`, the beds of `pointseg bench`"
        )
    others = [row for order in orders for row in order.get("ours", ())]
    ours = list(dict.fromkeys([*(entry["ours"] for entry in entries), *others]))
    named = {bed for order in orders for bed in order.get("beds", [])}
    scored = {b: [row for row in beds()[b].rows if row in ours] for b in beds() if b in named}
    return ours, scored


def _names_of(entry: dict[str, Any]) -> set[str]:
    return {entry["paper"], f"{entry['paper']}/{entry['table']}"}


def _judges(orders: Sequence[dict[str, Any]], entry: dict[str, Any]) -> bool:
    """Whether one of the claims needs the row beside a printed one."""
    place = (entry["paper"], entry["table"])
    return any(
        (order["paper"], order["table"]) == place
        and entry["row"] in order["rows"]
        and order["column"] in entry["scores"]
        for order in orders
    )
