"""Equations <-> functions, read from the sources: who implements what, where we leave a paper, and
which tests say so."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, is_dataclass
from pathlib import Path

import yaml

from pointseg.bookkit.markup import Html, breaking, escape, joined, marked

# [AS Eq. 5], [AS Eq. 5-7], [AS Alg. 1], [AS Alg. 1 l. 3]:
# paper key, kind, first number, last number.
CITATION = re.compile(r"\[([A-Z0-9]+(?:-S)?) (Eq|Alg)\. (a?\d+)(?:-(\d+))?(?: l\. [\d-]+)?\]")
REMARK = re.compile(r"(DEVIATION|UNSTATED) \[([^\]]+)\]: (.*)")
Equation = tuple[str, str]  # paper, "Eq. 5"


@dataclass
class Implementation:
    """One function and what its docstring says about the papers."""

    name: str  # dotted, such as pointseg.papers.attentionshift.shift.bandwidth
    line: int
    remarks: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Remark:
    """A place where we leave a paper's print, or fill in what it does not say."""

    kind: str  # DEVIATION or UNSTATED
    citation: str  # such as AS Eq. 3
    where: str  # the function or setting, without the package's name
    text: str

    @property
    def paper(self) -> str:
        return self.citation.split()[0]


def cited(text: str) -> list[Equation]:
    """(paper, "Eq. 5") of every citation of a text, ranges written out; "Eq. a2" has none."""
    rows: list[Equation] = []
    for paper, kind, first, last in CITATION.findall(text):
        numbers = range(int(first), int(last) + 1) if last else [first]
        rows += [(paper, f"{kind}. {n}") for n in numbers]
    return rows


def claims_of(docstring: str) -> list[Equation]:
    """What a docstring says its function implements: its citations outside its remarks."""
    return cited("\n".join(line for line in docstring.splitlines() if not REMARK.search(line)))


def implementations(package: Path) -> dict[Equation, list[Implementation]]:
    """The functions and methods of a package whose docstrings cite an equation."""
    rows: dict[Equation, list[Implementation]] = {}
    for path in sorted(package.rglob("*.py")):
        for name, node in functions(ast.parse(path.read_text())):
            text = ast.get_docstring(node) or ""
            remarks = [
                f"{r.kind.lower()}, {r.citation}: {r.text}" for r in remarks_in(text.splitlines())
            ]
            for equation in dict.fromkeys(claims_of(text)):
                dotted = f"{package.name}.{module_name(path, package)}.{name}"
                rows.setdefault(equation, []).append(Implementation(dotted, node.lineno, remarks))
    return rows


def module_name(path: Path, package: Path) -> str:
    return ".".join(path.relative_to(package).with_suffix("").parts)


def functions(tree: ast.Module) -> Iterator[tuple[str, ast.FunctionDef]]:
    """(name, node) of every function of a module, and of every method with its class's name."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            yield node.name, node
        if isinstance(node, ast.ClassDef):
            methods = (sub for sub in node.body if isinstance(sub, ast.FunctionDef))
            yield from ((f"{node.name}.{sub.name}", sub) for sub in methods)


def remarks_of(package: Path, papers: Iterable[str]) -> list[Remark]:
    """Every DEVIATION and UNSTATED of the papers in a package's docstrings and comments."""
    return [
        remark
        for path in sorted(package.rglob("*.py"))
        for remark in _placed(path, module_name(path, package))
        if remark.paper in papers
    ]


def _placed(path: Path, module: str) -> Iterator[Remark]:
    """The remarks of a source, each with the innermost function, class or setting around it."""
    lines = path.read_text().splitlines()
    if not any(REMARK.search(line) for line in lines):
        return
    spans = list(_spans(ast.parse("\n".join(lines)).body, module))
    for remark, at in zip(remarks_in(lines), remark_lines(lines)):
        around = [name for name, first, last in spans if first <= at <= last]
        yield Remark(remark.kind, remark.citation, around[-1] if around else module, remark.text)


def _spans(body: list[ast.stmt], name: str) -> Iterator[tuple[str, int, int]]:
    """(name, first line, last line) of functions, classes and settings, outer ones first."""
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield f"{name}.{node.name}", node.lineno, node.end_lineno
            yield from _spans(node.body, f"{name}.{node.name}")
        elif isinstance(node, ast.AnnAssign | ast.Assign):
            target = node.target if isinstance(node, ast.AnnAssign) else node.targets[0]
            yield f"{name}.{ast.unparse(target)}", node.lineno, node.end_lineno


def remark_lines(lines: list[str]) -> list[int]:
    return [i for i, line in enumerate(lines, start=1) if REMARK.search(line)]


def remarks_in(lines: list[str]) -> list[Remark]:
    """The remarks of a text, each read on to the end of its sentence or block."""
    remarks = []
    for at in remark_lines(lines):
        kind, citation, text = REMARK.search(lines[at - 1]).groups()
        words = [text, *_continued(lines[at - 1], lines[at:])]
        remarks.append(Remark(kind, citation, "", " ".join(words).replace('"""', "").strip()))
    return remarks


def _continued(first: str, following: list[str]) -> Iterator[str]:
    """The lines that carry a remark on: of the same docstring or run of comments, up to a gap.

    What stands beside code ends with its line.
    """
    comment = "#" in first.split("[")[0]
    if first.rstrip().endswith('"""') or (comment and not first.lstrip().startswith("#")):
        return
    for line in following:
        text = line.strip()
        other_kind = comment != text.startswith("#")
        if not text or other_kind or REMARK.search(text) or text == '"""':
            return
        yield text.lstrip("# ")
        if text.endswith('"""'):
            return


def tests_of(tests: Path) -> dict[Equation, list[str]]:
    """The tests whose docstring or comment cites an equation."""
    rows: dict[Equation, list[str]] = {}
    for path in sorted(set(tests.glob("test_*.py")) - {tests / "test_equations.py"}):
        lines = path.read_text().splitlines()
        for name, node in functions(ast.parse("\n".join(lines))):
            if name.startswith("test_"):
                text = "\n".join(lines[node.lineno - 1 : node.end_lineno])
                for equation in dict.fromkeys(cited(text)):
                    rows.setdefault(equation, []).append(f"{path.name}::{name}")
    return rows


def read_map(path: Path) -> dict[Equation, list[str] | str]:
    """equations.yml: the dotted functions of an equation, or one sentence why it is not coded."""
    papers = yaml.safe_load(path.read_text())
    return {
        (paper, equation): who for paper, rows in papers.items() for equation, who in rows.items()
    }


def disagreements(listed: dict, coded: dict[Equation, list[Implementation]]) -> list[str]:
    """Where equations.yml and the sources tell different stories."""
    wrong = []
    for equation in sorted(set(listed) | set(coded)):
        entry, names = listed.get(equation), sorted({i.name for i in coded.get(equation, [])})
        if isinstance(entry, str) and names:
            wrong.append(f"{equation}: said not to be coded, but cited by {', '.join(names)}")
        if not isinstance(entry, str) and sorted(entry or []) != names:
            wrong.append(
                f"{equation}: equations.yml has {sorted(entry or [])}, the sources have {names}"
            )
    return wrong


SETTING_HEAD = ["setting", "default at scale paper", "where it is from"]
REMARK_HEAD = ["where in the paper", "kind", "where in the library", "what and why"]
HEAD = ["equation", "function", "tests that name it", "where we leave the print"]


def equation_rows(listed: dict, coded: dict, tests: dict, papers: Iterable[str]) -> list[list[str]]:
    """HTML cells under HEAD, a row an equation of the papers."""
    return [
        _row(equation, entry, coded.get(equation, []), tests.get(equation, []))
        for equation, entry in listed.items()
        if equation[0] in papers
    ]


def _row(
    equation: Equation, entry: list | str, who: list[Implementation], tests: list
) -> list[str]:
    names = [code(i.name.removeprefix("pointseg.")) for i in who] or [escape(str(entry))]
    remarks = dict.fromkeys(marked(remark) for i in who for remark in i.remarks)
    checks = [code(test.split("::")[1]) for test in tests]
    return [" ".join(equation), *(joined("<br>", cell) for cell in (names, checks, remarks))]


def remark_rows(package: Path, papers: Iterable[str]) -> list[list[str]]:
    """HTML cells: what the print says where, what kind of departure, at which place, and why."""
    return [
        [escape(r.citation), r.kind.lower(), code(r.where), marked(r.text)]
        for r in remarks_of(package, papers)
    ]


def code(name: str) -> str:
    """A dotted name that may break at its dots and underscores."""
    return Html(f"<code>{breaking(name).replace('.', '.<wbr>')}</code>")


def setting_rows(path: Path, name: str = "Config") -> list[list[str]]:
    """HTML cells: each setting of a class with its default and its comment.

    The comment tells the setting's source.
    """
    lines = path.read_text().splitlines()
    [body] = [node.body for node in ast.parse("\n".join(lines)).body
              if isinstance(node, ast.ClassDef) and node.name == name]  # fmt: skip
    fields = [node for node in body if isinstance(node, ast.AnnAssign) and node.value]
    return [
        [code(ast.unparse(node.target)), code(_default(node.value)), marked(text)]
        for node in fields
        if (text := _comment(lines, node))
    ]


def _default(value: ast.expr) -> str:
    """A setting's default; one that is made anew each time, as the call that makes it."""
    if not (isinstance(value, ast.Call) and ast.unparse(value.func) == "field"):
        return ast.unparse(value)
    made = value.keywords[0].value
    if isinstance(made, ast.Lambda):
        return ast.unparse(made.body)
    if isinstance(made, ast.Call):  # partial(function, ...)
        made = ast.Call(made.args[0], made.args[1:], made.keywords)
        return ast.unparse(made)
    return f"{ast.unparse(made)}()"


def changed_rows(one: object, other: object) -> list[list[str]]:
    """HTML cells: the settings of two configurations that differ, and both their values.

    Of a configuration inside another one, its own settings.
    """
    first, second = settings_of(one), settings_of(other)
    return [
        [code(name), *(escape(side.get(name, "-")) for side in (first, second))]
        for name in dict.fromkeys([*first, *second])
        if first.get(name) != second.get(name)
    ]


def settings_of(config: object, prefix: str = "") -> dict[str, object]:
    """Dotted name -> value of the settings of a configuration and of those inside it."""
    flat: dict[str, object] = {}
    for name, value in vars(config).items():
        inside = is_dataclass(value)
        flat |= settings_of(value, f"{prefix}{name}.") if inside else {f"{prefix}{name}": value}
    return flat


def _comment(lines: list[str], node: ast.stmt) -> str:
    """What the comments above a statement and beside it say; a heading cites nothing."""
    above = node.lineno - 1
    while lines[above - 1].strip().startswith("#"):
        above -= 1
    if not any("[" in line for line in lines[above : node.lineno - 1]):
        above = node.lineno - 1
    inside = (line.split("#", 1) for line in lines[above : node.end_lineno] if "#" in line)
    return " ".join(words[1].strip() for words in inside)
