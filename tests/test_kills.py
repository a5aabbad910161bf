"""Commands stopped at the files they touch, by three signals, end as if nobody had stopped them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.long_form import LONG_FORM, STOPS

QUICK = ["data make", "points", "predict", "labels", "train"]  # [] is every command


def reports_of(program, root, place, *words, seconds=3000):
    paths = os.pathsep.join([str(root), str(root / "tests")])
    done = subprocess.run(
        [sys.executable, Path(__file__).with_name("support") / program, place, *words],
        capture_output=True, text=True, timeout=seconds, check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": paths},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    reports = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    print(*reports, sep="\n")
    return reports


def stops_in(reports):
    return sum(sum(report["stops"].values()) for report in reports)


def test_stopped_commands_leave_nothing_half_done_and_end_the_same(tmp_path, root):
    names = [] if LONG_FORM else QUICK
    reports = reports_of("killed_commands.py", root, tmp_path, str(STOPS), *names)
    assert [report["faults"] for report in reports] == [[]] * (len(names) or 10)
    assert stops_in(reports) >= (2 * STOPS if LONG_FORM else 1)  # others came too late


def test_two_and_three_at_once_are_one(tmp_path, root):
    names = [] if LONG_FORM else ["bench", "predict"]
    reports = reports_of("commands_together.py", root, tmp_path, *names)
    assert [report["faults"] for report in reports] == [[]] * (len(names) or 8)
    refused = {report["command"] for report in reports if 2 in report["codes"]}
    assert {"bench", *(["run", "pretrain"] if LONG_FORM else [])} <= refused


@pytest.mark.skipif(not LONG_FORM, reason="the long form of the kill tests: POINTSEG_STOPS=12")
def test_stopped_kernels_and_engines_end_the_same(tmp_path, root):
    reports = reports_of("killed_kernels.py", root, tmp_path, str(STOPS // 5), seconds=12000)
    assert [report["faults"] for report in reports] == [[]] * 3
    for report in reports:
        assert {stop.split(", ")[0] for stop in report["stops"]} == {*report["phases"]}
