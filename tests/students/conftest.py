"""What tests of students share."""

import pytest

from jaxdistill.students import saving
from jaxdistill.training.costs import Costs


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Costs that take no time; one test measures."""
    found = Costs(1000, 4000, 2e6, 1e-3, "cpu")
    monkeypatch.setattr(saving, "costs", lambda *_: found)
