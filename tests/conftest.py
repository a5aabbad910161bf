"""What every test stands on: where the repository is, and where real data may be."""

import os
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

# Files that train in kernels and processes: begun first, so that no worker ends with one of them.
LONGEST = ("test_study_notebooks", "test_reproduce", "test_notebook", "test_accelerator")


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: item.path.stem not in LONGEST)  # stable: the rest keeps its order


@pytest.fixture(scope="session")
def root() -> Path:
    return ROOT


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
