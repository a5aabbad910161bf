"""The design table: what each method declares as its answer to the book's question."""

from __future__ import annotations

from dataclasses import fields, replace

from pointseg.bookkit.markup import escape, filled
from pointseg.lab.methods import METHODS, method_class
from pointseg.structures import Answer

TERMS = [field.name for field in fields(Answer)]
HEAD = ["method", *TERMS]


def answers() -> dict[str, Answer]:
    """The declared answer of every method that a recipe may name, and of its crossings."""
    declared, classes = {}, {name: method_class(name) for name in METHODS}
    for name, one in classes.items():
        if hasattr(one, "ANSWER"):
            declared[name] = one.ANSWER
            crossings = getattr(one, "CROSSINGS", {}).items()
            declared |= {f"{name}, {way}": replace(one.ANSWER, **terms) for way, terms in crossings}
    return declared


def design_rows() -> list[list[str]]:
    """HTML cells under HEAD, a row a method or crossing, in the words of its class."""
    return [
        [filled("<code>{}</code>", name), *(escape(getattr(row, term)) for term in TERMS)]
        for name, row in answers().items()
    ]
