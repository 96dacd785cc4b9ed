"""The site is built without a warning, and its pages show what they list."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """The site, built as `docs/build.sh` builds it: any warning is an error."""
    folder = tmp_path_factory.mktemp("site")
    command = ["bash", "docs/build.sh", "--site-dir", str(folder)]  # --quiet would hide warnings
    env = {**os.environ, "PYTHON": sys.executable}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_every_entry_of_the_reference_is_shown(site: Path):
    for page in (ROOT / "docs" / "api").glob("*.md"):
        html = (site / "api" / page.stem / "index.html").read_text() if page.stem != "index" else ""
        entries = re.findall(r"^#+ ::: (\S+)$", page.read_text(), re.MULTILINE)
        assert not [entry for entry in entries if f'id="{entry}"' not in html]


def test_pages_show_what_markdown_means(site: Path):
    assert (site / "_site" / "site.css").exists()
    assert "blob/main/jaxdistill/losses/logits.py#L" in (site / "api/losses/index.html").read_text()
    assert r"\|" not in (site / "losses" / "index.html").read_text()
    for path in site.rglob("*.html"):
        html = re.sub(r"<(pre|code|script|style)\b.*?</\1>", "", path.read_text(), flags=re.DOTALL)
        text = re.sub(r"<annotation.*?</annotation>|<[^>]*>", "", html, flags=re.DOTALL)
        left = re.findall(
            r"^\s*(?:\||:::|```|!!!).*|\]\(\S+\)|:(?:func|class|math):`|\\\(", text, re.M
        )
        assert not left, (path.relative_to(site), left[:5])
        lists = re.findall(r"<p>(?:(?!</p>).)*\n(?:-|\d+\.) .*", html)
        assert not lists, (
            path.relative_to(site),
            "a list without a blank line before it",
            lists[:2],
        )
