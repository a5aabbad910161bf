"""What every test stands on: where the repository is, and where real data may be."""

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def root() -> Path:
    return ROOT


@pytest.fixture
def shared_data() -> Path:
    data = ROOT.parent / "shared" / "data"
    if not data.is_dir():
        pytest.skip("the real photographs (../shared/data) are not here")
    return data
