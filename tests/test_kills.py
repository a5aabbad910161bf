"""Commands stopped at the files they touch, by three signals, end as if nobody had stopped them."""

import json
import os
import subprocess
import sys
from pathlib import Path

STOPS = int(os.environ.get("POINTSEG_STOPS", "2"))  # of each command; 12 in the long form


def test_stopped_commands_leave_nothing_half_done_and_end_the_same(tmp_path, root):
    program = Path(__file__).with_name("support") / "killed_commands.py"
    paths = os.pathsep.join([str(root), str(root / "tests")])
    done = subprocess.run(
        [sys.executable, program, tmp_path, str(STOPS)], capture_output=True, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": paths}, timeout=3000, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    reports = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    print(*reports, sep="\n")
    assert [report["faults"] for report in reports] == [[]] * 8
    assert (
        sum(sum(report["stops"].values()) for report in reports) >= 2 * STOPS
    )  # others came too late
