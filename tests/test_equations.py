"""The map from equations to functions is true both ways, and the check can fail."""

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
    found = equations.implementations(package)
    assert set(found) == {("AS", "Eq. 2"), ("AS", "Eq. 3")}
    listed = {
        ("AS", "Eq. 2"): ["pointseg.new.f"],
        ("AS", "Eq. 4"): ["pointseg.new.gone"],
        ("AS", "Eq. 5"): "not coded",
    }
    wrong = equations.disagreements(listed, found)
    assert [w.split(":")[0] for w in wrong] == ["('AS', 'Eq. 3')", "('AS', 'Eq. 4')"]


def test_said_not_coded_but_coded_is_seen(tmp_path):
    package = tmp_path / "pointseg"
    package.mkdir()
    (package / "new.py").write_text('class C:\n    def f(self):\n        """It. [P2M-S Eq. 1]"""\n')
    found = equations.implementations(package)
    assert found[("P2M-S", "Eq. 1")][0].name == "pointseg.new.C.f"
    assert equations.disagreements({("P2M-S", "Eq. 1"): "not coded: later"}, found)


def test_the_table_names_function_test_and_deviation(tmp_path):
    package = tmp_path / "pointseg"
    package.mkdir()
    (package / "new.py").write_text(
        'def f():\n    """It. [AS Alg. 1 l. 3]\n\n    DEVIATION [AS Alg. 1]: a < b"""\n'
    )
    found = equations.implementations(package)
    page = equations.equation_table(
        {("AS", "Alg. 1"): ["pointseg.new.f"]},
        found,
        {("AS", "Alg. 1"): ["test_x.py::test_y"]},
        ["AS"],
    )
    assert "pointseg.new.f" in page and "test_y" in page and "a &lt; b" in page
