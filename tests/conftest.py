"""What every test stands on: where the repository is, and where real data may be."""

import os
import sys
from pathlib import Path

import pytest
from hypothesis import settings

ROOT = Path(__file__).resolve().parents[1]

# Programs in tests/support are started as processes of their own and import their neighbours.
os.environ["PYTHONPATH"] = os.pathsep.join(
    filter(None, (str(ROOT / "tests"), os.environ.get("PYTHONPATH")))
)


# A busy machine is no fault of the code: speed is measured elsewhere, never in a test.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

# Files that build the book or train in kernels and processes, the longest first: so both workers
# are busy from the start, and neither ends with one of them.
LONGEST = ("test_book", "test_carry", "test_study_notebooks", "test_batch_engine", "test_notebook",
           "test_kills", "test_reproduce", "test_two_processes", "test_accelerator",
           "test_own_pictures", "test_stopped", "test_budgets", "test_resume", "test_explorer",
           "test_explorer_lab", "test_ddp", "test_p2m_photographs")  # fmt: skip


def pytest_collection_modifyitems(items):
    rank = {name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: rank.get(item.path.stem, len(rank)))  # stable: the rest stays


@pytest.fixture(scope="session")
def root() -> Path:
    return ROOT


@pytest.fixture(autouse=True)
def no_figure_stays_open():
    """Notebooks whose cells run in the test's process leave theirs."""
    yield
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")


@pytest.fixture
def shared_data() -> Path:
    data = ROOT.parent / "shared" / "data"
    if not data.is_dir():
        pytest.skip("the real photographs (../shared/data) are not here")
    return data


def pytest_terminal_summary(terminalreporter, config):
    """Kept runs whose notebook, parameters, code or data changed since; after the whole suite."""
    if config.args_source is not config.ArgsSource.TESTPATHS:
        return
    from functools import partial

    from pointseg.bookkit import report
    from pointseg.lab.notebook import state

    for run, word in report.states(ROOT / "runs", partial(state, notebooks=ROOT / "book")).items():
        terminalreporter.write_line(f"{word} run: {run}")
