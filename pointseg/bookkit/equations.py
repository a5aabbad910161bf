"""Equations <-> functions, read from the sources: who implements what, what deviates, and which tests name it."""

from __future__ import annotations

import ast
import html
import re
from dataclasses import dataclass, field
from pathlib import Path

import yaml

# [AS Eq. 5], [AS Eq. 5-7], [AS Alg. 1], [AS Alg. 1 l. 3]: paper key, kind, first number, last number.
CITATION = re.compile(r"\[([A-Z0-9]+(?:-S)?) (Eq|Alg)\. (a?\d+)(?:-(\d+))?(?: l\. [\d-]+)?\]")
REMARK = re.compile(r"(DEVIATION|UNSTATED) \[([^\]]+)\]: (.+)")


@dataclass
class Implementation:
    """One function and what its docstring says about the papers."""

    name: str  # dotted, such as pointseg.papers.attentionshift.shift.bandwidth
    line: int
    remarks: list[str] = field(default_factory=list)


def cited(text: str) -> list[tuple[str, str]]:
    """(paper, "Eq. 5") of every citation of a text, ranges written out; "Eq. a2" has none."""
    found = []
    for paper, kind, first, last in CITATION.findall(text):
        numbers = range(int(first), int(last) + 1) if last else [first]
        found += [(paper, f"{kind}. {n}") for n in numbers]
    return found


def claims_of(docstring: str) -> list[tuple[str, str]]:
    """What a docstring says its function implements: the citations outside its DEVIATION and UNSTATED remarks."""
    lines = [line for line in docstring.splitlines() if not REMARK.search(line)]
    return cited("\n".join(lines))


def implementations(package: Path) -> dict[tuple[str, str], list[Implementation]]:
    """(paper, equation) -> the functions and methods of a package whose docstrings cite it."""
    found: dict[tuple[str, str], list[Implementation]] = {}
    for path in sorted(package.rglob("*.py")):
        module = ".".join((package.name, *path.relative_to(package).with_suffix("").parts))
        for name, node in functions(ast.parse(path.read_text())):
            text = ast.get_docstring(node) or ""
            remarks = [" ".join(m) for m in REMARK.findall(text)]
            for equation in dict.fromkeys(claims_of(text)):
                found.setdefault(equation, []).append(
                    Implementation(f"{module}.{name}", node.lineno, remarks)
                )
    return found


def functions(tree: ast.Module):
    """(name, node) of every function of a module and method of its classes, with the class's name before a dot."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            yield node.name, node
        if isinstance(node, ast.ClassDef):
            yield from (
                (f"{node.name}.{sub.name}", sub)
                for sub in node.body
                if isinstance(sub, ast.FunctionDef)
            )


def tests_of(tests: Path) -> dict[tuple[str, str], list[str]]:
    """(paper, equation) -> the tests whose docstring or comment cites it."""
    found: dict[tuple[str, str], list[str]] = {}
    for path in sorted(tests.glob("test_*.py")):
        source = path.read_text()
        for name, node in functions(ast.parse(source)):
            if name.startswith("test_"):
                for equation in dict.fromkeys(cited(ast.get_source_segment(source, node))):
                    found.setdefault(equation, []).append(f"{path.name}::{name}")
    return found


def read_map(path: Path) -> dict[tuple[str, str], list[str] | str]:
    """equations.yml: (paper, equation) -> the dotted functions, or one sentence why it is not coded."""
    papers = yaml.safe_load(path.read_text())
    return {
        (paper, equation): who for paper, rows in papers.items() for equation, who in rows.items()
    }


def disagreements(listed: dict, found: dict[tuple[str, str], list[Implementation]]) -> list[str]:
    """Where equations.yml and the sources tell different stories."""
    wrong = []
    for equation in sorted(set(listed) | set(found)):
        entry, names = listed.get(equation), sorted({i.name for i in found.get(equation, [])})
        if isinstance(entry, str) and names:
            wrong.append(f"{equation}: said not to be coded, but cited by {', '.join(names)}")
        if not isinstance(entry, str) and sorted(entry or []) != names:
            wrong.append(
                f"{equation}: equations.yml has {sorted(entry or [])}, the sources have {names}"
            )
    return wrong


def equation_table(listed: dict, found: dict, tests: dict, papers: list[str]) -> str:
    """HTML table equation / functions / tests / where we leave the print, for the papers asked for."""
    rows = []
    for (paper, equation), entry in listed.items():
        if paper not in papers:
            continue
        who = found.get((paper, equation), [])
        names = (
            "<br>".join(f"<code>{i.name}</code>" for i in who) if who else html.escape(str(entry))
        )
        remarks = "<br>".join(
            html.escape(r) for r in dict.fromkeys(r for i in who for r in i.remarks)
        )
        checks = "<br>".join(
            f"<code>{t.split('::')[1]}</code>" for t in tests.get((paper, equation), [])
        )
        rows.append(
            f"<tr><td>{paper} {equation}</td><td>{names}</td><td>{checks}</td><td>{remarks}</td></tr>"
        )
    head = "<tr><th>equation</th><th>function</th><th>tests that name it</th><th>where we leave the print</th></tr>"
    return f'<div class="table-scroll"><table class="claims">{head}{"".join(rows)}</table></div>'
