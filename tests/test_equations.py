"""The map from equations to functions is true both ways, and the check can fail."""

import re
from dataclasses import dataclass

from pointseg.bookkit import equations


def test_equations_yml_and_the_sources_agree(root):
    listed = equations.read_map(root / "book" / "equations.yml")
    assert equations.disagreements(listed, equations.implementations(root / "pointseg")) == []


def test_every_coded_equation_is_named_by_a_test(root):
    listed = equations.read_map(root / "book" / "equations.yml")
    tests = equations.tests_of(root / "tests")
    untested = [e for e, who in listed.items() if not isinstance(who, str) and e not in tests]
    assert untested == []


def test_a_function_that_is_not_listed_is_seen(tmp_path):
    package = tmp_path / "pointseg"
    package.mkdir()
    (package / "new.py").write_text(
        'def f():\n    """Something. [AS Eq. 2-3]\n\n    UNSTATED [AS Eq. 9]: why"""\n'
    )
    coded = equations.implementations(package)
    assert set(coded) == {("AS", "Eq. 2"), ("AS", "Eq. 3")}
    listed = {
        ("AS", "Eq. 2"): ["pointseg.new.f"],
        ("AS", "Eq. 4"): ["pointseg.new.gone"],
        ("AS", "Eq. 5"): "not coded",
    }
    wrong = equations.disagreements(listed, coded)
    assert [w.split(":")[0] for w in wrong] == ["('AS', 'Eq. 3')", "('AS', 'Eq. 4')"]


def test_said_not_coded_but_coded_is_seen(tmp_path):
    package = tmp_path / "pointseg"
    package.mkdir()
    (package / "new.py").write_text('class C:\n    def f(self):\n        """It. [P2M-S Eq. 1]"""\n')
    coded = equations.implementations(package)
    assert coded[("P2M-S", "Eq. 1")][0].name == "pointseg.new.C.f"
    assert equations.disagreements({("P2M-S", "Eq. 1"): "not coded: later"}, coded)


def test_the_table_names_function_test_and_deviation(tmp_path):
    package = tmp_path / "pointseg"
    package.mkdir()
    (package / "new.py").write_text(
        'def f():\n    """It. [AS Alg. 1 l. 3]\n\n    DEVIATION [AS Alg. 1]: a < b"""\n'
    )
    coded = equations.implementations(package)
    tests = {("AS", "Alg. 1"): ["test_x.py::test_y"]}
    listed = {("AS", "Alg. 1"): ["pointseg.new.f"], ("P2M", "Eq. 3"): "not coded: later"}
    [row] = equations.equation_rows(listed, coded, tests, ["AS"])
    assert row[0] == "AS Alg. 1" and "new" in row[1] and "test_" in row[2]
    assert row[3] == "deviation, AS Alg. 1: a &lt; b"


REMARKED = '''
# DEVIATION [AS Sec. 4]: light heads,
# as small images have little to say.
LIGHT = True

class Config:
    # UNSTATED [AS Eq. 2]: one line above
    level: float = 0.5  # and one beside it
    beta: float = 0.1  # [P2M Eq. 3]
    size: int = 3

def f():
    """It.

    UNSTATED [AS Eq. 3]: a sentence that
    goes on. DEVIATION [P2M]: another paper."""
    return 1  # UNSTATED [AS Eq. 9]: beside code
'''


def test_every_remark_is_found_where_it_stands_and_read_to_its_end(tmp_path):
    (tmp_path / "new.py").write_text(REMARKED)
    rows = [
        (r.kind[0], r.citation, r.where, r.text) for r in equations.remarks_of(tmp_path, ["AS"])
    ]
    assert rows == [
        ("D", "AS Sec. 4", "new", "light heads, as small images have little to say."),
        ("U", "AS Eq. 2", "new.Config", "one line above"),
        ("U", "AS Eq. 3", "new.f", "a sentence that"),
        ("U", "AS Eq. 9", "new.f", "beside code"),
    ]


def test_settings_stand_beside_the_source_of_their_default(tmp_path):
    (tmp_path / "new.py").write_text(REMARKED)
    rows = equations.setting_rows(tmp_path / "new.py")
    assert [[row[1], row[2]] for row in rows] == [
        ["<code>0.<wbr>5</code>", "UNSTATED [AS Eq. 2]: one line above and one beside it"],
        ["<code>0.<wbr>1</code>", "[P2M Eq. 3]"],
    ]


@dataclass(frozen=True)
class Inner:
    width: int = 3
    depth: int = 2


@dataclass(frozen=True)
class Outer:
    inner: Inner
    rate: float = 0.1


def test_of_a_configuration_inside_another_only_what_differs_is_shown():
    rows = equations.changed_rows(Outer(Inner()), Outer(Inner(width=5)))
    assert [[re.sub("<[^>]+>", "", cell) for cell in row] for row in rows] == [
        ["inner.width", "3", "5"]
    ]


HEADED = """
class Config:
    # key-points
    centred: bool = False  # DEVIATION [AS Eq. 1]: less their mean
    # boxes
    level: float = 0.1  # UNSTATED [AS Sec. 4]: official code
    # DEVIATION [AS Sec. 5]: two lines
    # above
    size: int = 3
"""


def test_a_heading_among_settings_belongs_to_no_remark_and_to_no_setting(tmp_path):
    (tmp_path / "config.py").write_text(HEADED)
    texts = [remark.text for remark in equations.remarks_of(tmp_path, ["AS"])]
    assert texts == ["less their mean", "official code", "two lines above"]
    rows = [row[2] for row in equations.setting_rows(tmp_path / "config.py")]
    assert rows == [
        "DEVIATION [AS Eq. 1]: less their mean",
        "UNSTATED [AS Sec. 4]: official code",
        "DEVIATION [AS Sec. 5]: two lines above",
    ]


def test_a_default_that_is_made_anew_is_shown_as_the_call_that_makes_it(tmp_path):
    (tmp_path / "config.py").write_text(
        "class Config:\n"
        "    a: A = field(default_factory=lambda: made(1))  # `x` of [AS Sec. 1]\n"
        "    b: B = field(default_factory=partial(B, 'small', n=2))  # [AS Sec. 2]\n"
        "    c: list = field(default_factory=list)  # [AS Sec. 3]\n"
    )
    rows = equations.setting_rows(tmp_path / "config.py")
    shown = [re.sub(r"<wbr>|</?code>|&#x27;", "", row[1]) for row in rows]
    assert shown == ["made(1)", "B(small, n=2)", "list()"]
    assert rows[0][2] == "<code>x</code> of [AS Sec. 1]"
