"""Each test starts with a fresh accelerate."""

import pytest


@pytest.fixture(autouse=True)
def _fresh(fresh_accelerate: None) -> None: ...
