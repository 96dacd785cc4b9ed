"""The config in CONTRIBUTING.md is one that the library accepts."""

import re
from pathlib import Path

from jaxdistill import config_files, main


def test_the_skeleton_is_planned(tmp_path):
    page = (Path(__file__).parents[1] / "CONTRIBUTING.md").read_text()
    (program,) = re.findall(r'```python\n(""".*?)```', page, re.DOTALL)
    (tmp_path / "mine.py").write_text(program)
    plan = main.checked(config_files.read(f"{tmp_path}/mine.py:small"))
    assert [stage.name for stage in plan.stages] == ["teacher", "alone", "distilled"]
