"""Names are the field's plain words: no source may bind a retired one."""

import ast
from pathlib import Path

RETIRED = set(
    "seen found own told asked real like unlike among between pupils thoughts places pictures said "
    "answer swallows bids rivals lesson taught".split()
)
KEPT = {"ANSWER", "Answer"}  # a method's row of the design table
GENERATORS = {"dice"}  # a loss may be called so; a random generator is rng or generator


def bound(tree: ast.AST):
    """(name, line) of every function, argument, variable, field and loop variable of a source."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("test_"):
            yield node.name, node.lineno
        elif isinstance(node, ast.arg):
            yield node.arg, node.lineno
        elif isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield getattr(node, "id", None) or node.attr, node.lineno
        elif isinstance(node, ast.alias) and node.asname:
            yield node.asname, 0


def retired(source: str) -> list[str]:
    """The retired words that a source binds, whole or as a part of a name, with their lines."""
    tree = ast.parse(source)
    words = [
        f"{line}: {name}"
        for name, line in bound(tree)
        if name not in KEPT and RETIRED & set(name.lower().split("_"))
    ]
    arguments = (node for node in ast.walk(tree) if isinstance(node, ast.arg))
    return words + [f"{node.lineno}: {node.arg}" for node in arguments if node.arg in GENERATORS]


def sources(root: Path) -> list[Path]:
    return sorted(
        path for room in ("pointseg", "book", "tests") for path in (root / room).rglob("*.py")
    )


def test_no_name_is_a_retired_word(root):
    names = {str(path.relative_to(root)): retired(path.read_text()) for path in sources(root)}
    assert {name: words for name, words in names.items() if words} == {}


def test_every_way_of_binding_a_retired_word_is_seen():
    source = (
        "import x as seen\n"
        "def asked(own, dice): self.real = 1\n"
        "for found in y: pass\n"
        "like_this = [said for said in z]\n"
        "def test_what_is_found(): answer: int = 1\n"
    )
    assert [word.split(": ")[1] for word in sorted(retired(source))] == (
        "seen asked dice own real found like_this said answer".split()
    )


def test_words_that_are_only_used_or_mean_the_loss_are_left_alone():
    assert retired("def dice(x): return zeros_like(x).real + found(x, own=1)\n") == []
