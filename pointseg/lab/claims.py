"""book/claims.yml: what the papers print, and what of ours stands beside it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NotRequired, Required, TypedDict

from pointseg.data.files import read_yaml, shown
from pointseg.data.measures import is_number
from pointseg.data.shapes import refuse_misshapen
from pointseg.lab.run_record import run_folder
from pointseg.structures import InputError


class PrintedTable(TypedDict):
    id: str
    columns: list[str]
    units: NotRequired[dict[str, str]]
    rows: list[dict[str, object]]  # numbers and words, also endless ones


class PaperEntry(TypedDict):
    tables: list[PrintedTable]


class Measured(TypedDict):
    paper: str
    table: str
    row: int
    ours: str
    at_paper: NotRequired[str]
    scores: dict[str, str]


class Order(TypedDict):
    id: str
    paper: str
    table: str
    column: str
    rows: list[int]
    says: str
    seeds: NotRequired[int]
    beds: NotRequired[list[str]]
    ours: NotRequired[list[str]]  # students that judge it in the place of those beside the rows
    score: NotRequired[str]
    gates: NotRequired[str]


class Gate(TypedDict):
    name: str
    row: str
    score: str | list[str]
    at_least: NotRequired[float]
    at_most: NotRequired[float]


class Claims(TypedDict, total=False):
    papers: Required[dict[str, PaperEntry]]
    tolerance: Required[float]
    seeds_for_a_verdict: int
    measured: list[Measured]
    orders: list[Order]
    gates: dict[str, list[Gate]]


def read_claims(path: Path) -> dict[str, Any]:
    """The claims, after every row, column and gate that one names has been found."""
    content = read_yaml(path)
    refuse_misshapen(path, content, Claims)
    claims = {"measured": [], "orders": [], "gates": {}, **content}
    for fault in _faults(claims):
        raise InputError(f"{path}: {fault}")
    return claims


def _faults(claims: dict[str, Any]) -> Iterator[str]:
    printed = _printed(claims)
    for entry in claims["measured"]:
        where = f"measured: {shown(entry['ours'])}"
        yield from _absent(where, entry, printed, [entry["row"]], entry["scores"])
    for order in claims["orders"]:
        where = f"orders: {shown(order['id'])}"
        yield from _absent(where, order, printed, order["rows"], [order["column"]])
        yield from _unjudged(where, order, claims, printed)
    for gate in (gate for gates in claims["gates"].values() for gate in gates):
        run_folder(gate["row"])


def _printed(claims: dict[str, Any]) -> dict[tuple[str, str], dict]:
    """The papers' tables, by paper and id."""
    return {
        (paper, table["id"]): table
        for paper, content in claims["papers"].items()
        for table in content["tables"]
    }


def _absent(
    where: str, entry: dict[str, Any], printed: dict, rows: list[int], columns: Any
) -> Iterator[str]:
    """Names of a table, rows or columns that no paper has."""
    table = printed.get((entry["paper"], entry["table"]))
    if table is None:
        yield f"{where}: there is no table {shown(entry['table'])} of {shown(entry['paper'])}"
        return
    yield from (f"{where}: there is no row {row}" for row in rows
                if not 0 <= row < len(table["rows"]))  # fmt: skip
    yield from (f"{where}: there is no column {shown(column)}" for column in columns
                if column not in table["columns"])  # fmt: skip


def _unjudged(
    where: str, order: dict[str, Any], claims: dict[str, Any], printed: dict
) -> Iterator[str]:
    """Why an order cannot be decided, on students or on its beds."""
    if len(set(order["rows"])) < max(2, len(order["rows"])):
        yield f"{where}: expected two rows or more, each once"
    if order.get("seeds", 1) < 1:
        yield f"{where}: seeds: expected a positive integer, got {order['seeds']}"
    rows = printed[order["paper"], order["table"]]["rows"]
    if not all(is_number(rows[k].get(order["column"])) for k in order["rows"]):
        yield f"{where}: a row without a number in column {shown(order['column'])}"
    if "gates" in order and order["gates"] not in claims["gates"]:
        yield f"{where}: there are no gates {shown(order['gates'])}"
    others = order.get("ours", ())
    if others and len(others) != len(order["rows"]):
        yield f"{where}: ours: expected {len(order['rows'])} rows, got {len(others)}"
    if "beds" in order or others:
        ours = [m for m in claims["measured"] if order["column"] in m["scores"]
                and (m["paper"], m["table"]) == (order["paper"], order["table"])]  # fmt: skip
        for row in set(order["rows"]) - {m["row"] for m in ours}:
            yield f"{where}: nothing of ours stands beside row {row}"
        for name in (*order.get("beds", ()), *others, *(m["ours"] for m in ours)):
            run_folder(name)
