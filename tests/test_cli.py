"""The commands a newcomer types, and the one line that a mistake gets."""

import json
import re
import subprocess
import sys

import pytest

from pointseg.cli import build_parser, main
from pointseg.lab.plan import rows


@pytest.fixture(scope="module")
def bestiary(tmp_path_factory):
    out = tmp_path_factory.mktemp("cli") / "bestiary"
    assert main(["data", "make", str(out), "--images", "4", "--val", "2", "--size", "64"]) == 0
    return out


def test_made_data_have_no_fault_and_a_planted_one_is_named(bestiary, tmp_path, capsys):
    assert main(["data", "check", str(bestiary)]) == 0
    assert "0 faults" in capsys.readouterr().out
    image = sorted((bestiary / "coco" / "val2017").glob("*.jpg"))[0]
    whole = image.read_bytes()
    try:
        image.write_bytes(b"")
        assert main(["data", "check", str(bestiary)]) == 2
        assert image.name in capsys.readouterr().out
    finally:
        image.write_bytes(whole)


def test_points_are_written_and_say_their_hash(bestiary, tmp_path, capsys):
    out = tmp_path / "points.json"
    words = [
        "points",
        str(bestiary),
        "--layout",
        "panoptic",
        "--kind",
        "uniform",
        "--n",
        "10",
        "--out",
        str(out),
    ]
    assert main(words) == 0
    assert json.loads(out.read_text())["content_hash"][:12] in capsys.readouterr().out


def test_json_scores_are_strict_json(bestiary, tmp_path, capsys):
    truth = bestiary / "coco" / "annotations" / "instances_val2017.json"
    (tmp_path / "none.json").write_text("[]")
    words = [
        "evaluate",
        "instances",
        "--gt",
        str(truth),
        "--dt",
        str(tmp_path / "none.json"),
        "--json",
    ]
    assert main(words) == 0

    def refuse(name):
        raise AssertionError(f"{name} is no JSON")

    scores = json.loads(capsys.readouterr().out, parse_constant=refuse)
    assert scores["AP"] == 0.0


@pytest.mark.parametrize(
    "words",
    [
        ["data", "make"],
        ["data", "make", "{tmp}/x", "--sides", "9"],
        ["data", "make", "{tmp}/x", "--images", "0"],
        ["points", "{tmp}/nowhere", "--out", "{tmp}/p.json"],
        ["train", "nobody"],
        ["train", "attentionshift", "-p", "seeds=1"],
        ["train", "attentionshift", "-p", "seed=one"],
        ["train", "attentionshift", "-p", "seed"],
        ["run", "{tmp}/no.py"],
        [
            "evaluate",
            "panoptic",
            "--gt",
            "{tmp}/a",
            "--gt-dir",
            "{tmp}",
            "--dt",
            "{tmp}/b",
            "--dt-dir",
            "{tmp}",
        ],
        ["pretrain", "dino", "--out", "{tmp}/x"],
        ["dance"],
    ],
)
def test_a_mistake_gets_one_line_and_exit_2(words, tmp_path, capsys, monkeypatch, root):
    monkeypatch.chdir(root)
    assert main([w.replace("{tmp}", str(tmp_path)) for w in words]) == 2
    printed = capsys.readouterr()
    assert len(printed.err.splitlines()) == 1 and printed.err.startswith("pointseg: ")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "words",
    [
        ["data", "check", "{}"],
        ["data", "check", "{}/none"],
        ["points", "{}", "--out", "p.json"],
        ["run", "{}.py"],
    ],
)
def test_what_the_user_names_cannot_break_the_line_or_steer_the_terminal(
    words, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a\nb\x1b[2J").mkdir()
    assert main([word.format("a\nb\x1b[2J") for word in words]) == 2
    printed = "".join(capsys.readouterr())
    assert all(line.isprintable() for line in printed.split("\n")), printed
    assert r"a\nb\x1b[2J" in printed


def modules_after(words: list[str]) -> set[str]:
    """Names of all modules that a fresh Python has imported once `pointseg WORDS` has ended."""
    program = (
        "import runpy, sys\n"
        f"sys.argv = ['pointseg', *{words!r}]\n"
        "try:\n    runpy.run_module('pointseg', run_name='__main__')\n"
        "except SystemExit as end:\n    assert not end.code, end.code\n"
        "print('\\n' + ' '.join(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.splitlines()[-1].split())


@pytest.mark.parametrize("words", [["--help"], ["evaluate", "instances", "--help"]])
def test_help_imports_neither_torch_nor_numpy_nor_makes_a_record(words):
    assert not modules_after(words) & {"torch", "numpy", "matplotlib", "dataclasses"}


def test_scoring_files_imports_no_torch(bestiary, tmp_path):
    annotations = bestiary / "coco" / "annotations"
    (tmp_path / "none.json").write_text("[]")
    instances = [
        "--gt",
        str(annotations / "instances_val2017.json"),
        "--dt",
        str(tmp_path / "none.json"),
    ]
    truth, masks = str(annotations / "panoptic_val2017.json"), str(annotations / "panoptic_val2017")
    panoptic = ["--gt", truth, "--gt-dir", masks, "--dt", truth, "--dt-dir", masks]
    assert "torch" not in modules_after(["evaluate", "instances", *instances])
    assert "torch" not in modules_after(["evaluate", "panoptic", *panoptic])


@pytest.mark.parametrize("words", [
    "data make {out}/made --images 2 --val 2 --tune 2 --size 64",
    "data check {bestiary}",
    "data gauge {bestiary} --images 2",
    "points {bestiary} --out {out}/points.json",
])  # fmt: skip
def test_data_and_points_need_no_torch(words, bestiary, tmp_path):
    given = [word.format(bestiary=bestiary, out=tmp_path) for word in words.split()]
    assert "torch" not in modules_after(given)


def test_training_without_a_name_is_a_row_of_the_plan():
    options = build_parser().parse_args(["train"])
    assert options.name == "as-full" and options.name in rows()


def test_training_says_what_it_will_do_before_torch_is_loaded(root):
    program = (
        "import sys\nsys.modules['torch'] = None\n"  # importing it fails from here on
        "from pointseg.cli import main\n"
        "main(['train', 'as-tab3-shift', '--seed', '2'])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=root)
    assert "torch" in done.stderr.splitlines()[-1]
    assert done.stdout.startswith("train as-tab3-shift: a row of book/plan.yml; ")
    assert "token_querying > attentionshift" in done.stdout and "seed=2" in done.stdout


@pytest.mark.parametrize("text", ["010", "1_000", "0x10", "1.0", "٣", "9" * 30])
def test_integers_are_those_of_json(capsys, text):
    assert main(["recipe", "psps", "--seed", text]) == 2
    assert "--seed: expected an integer" in capsys.readouterr().err


IMPORT_EACH = """
import importlib, sys
for name in sys.argv[1:]:
    for known in [each for each in sys.modules if each.split(".")[0] == "pointseg"]:
        del sys.modules[known]
    importlib.import_module(name)
"""


def test_what_a_command_imports_can_be_imported_first(root):
    text = (root / "pointseg" / "cli.py").read_text()
    names = sorted(set(re.findall(r"^    from (pointseg\S+) import", text, re.MULTILINE)))
    assert "pointseg.lab.export_labels" in names
    subprocess.run([sys.executable, "-c", IMPORT_EACH, *names], check=True, timeout=300)
