"""What the documentation says of configs is so."""

import re
from pathlib import Path

from jaxdistill import claims, config_files, main
from jaxdistill.config import CONFIG_KEYS, STAGE_DEFAULTS

ROOT = Path(__file__).parents[1]


def test_the_config_to_start_from_is_planned(tmp_path):
    page = (ROOT / "CONTRIBUTING.md").read_text()
    (program,) = re.findall(r'```python\n(""".*?)```', page, re.DOTALL)
    (tmp_path / "mine.py").write_text(program)
    plan = main.checked(config_files.read(f"{tmp_path}/mine.py:small"))
    assert [stage.name for stage in plan.stages] == ["teacher", "alone", "distilled"]
    # It is as the configs of the library must be.
    assert "--config=configs/mine.py:small" in program
    for variant in ("", ":small"):
        config = config_files.read(f"{tmp_path}/mine.py{variant}")
        for name, contrast in config["claim"]["contrasts"].items():
            assert "without a reason" not in claims.margin_of(name, contrast)[1]
    titles = [config_files.read(f"{tmp_path}/mine.py{v}")["title"] for v in ("", ":small")]
    assert len(set(titles)) == 2


def test_every_key_of_a_config_is_described():
    page = (ROOT / "docs" / "running.md").read_text()
    table = page[page.index("### Keys of a stage") : page.index("## What is left")]
    rows = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    assert {key for row in rows for key in re.findall(r"`(\w+)`", row)} == set(STAGE_DEFAULTS)
    before = page[: page.index("### Keys of a stage")]
    assert not [key for key in CONFIG_KEYS if f'"{key}"' not in before and f"`{key}`" not in before]
