"""The table of losses in the documentation is what the code says."""

import pathlib

from jaxdistill.losses.__main__ import table


def test_table_is_up_to_date():
    page = pathlib.Path(__file__).parents[2] / "docs" / "losses.md"
    assert page.read_text() == table(), "run: python -m jaxdistill.losses > docs/losses.md"
