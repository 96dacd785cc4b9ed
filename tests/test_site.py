"""The site is built without a warning, and its pages show what they list."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

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


def part(name: str):
    """A module of the site's own, which is no package."""
    spec = importlib.util.spec_from_file_location(
        f"site_{name}", ROOT / "docs/_site" / f"{name}.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_formulas_are_mathml_or_warned_of(caplog):
    page = SimpleNamespace(file=SimpleNamespace(src_uri="a.md"))

    def shown(formula):
        html = rf'<span class="arithmatex">\({formula}\)</span>'
        return part("pages").on_page_content(html, page, None, None)

    assert "<mfrac>" in shown(r"\bigl\| \frac12 \bigr\|")
    assert not caplog.records
    shown(r"\nothing x")
    assert "a.md: a formula is not understood" in caplog.text


def test_links_lead_to_pages_or_to_the_repository():
    inside = SimpleNamespace(
        get_file_from_path=lambda name: name in ("a.md", "CHANGELOG.md") or None
    )
    file = SimpleNamespace(abs_src_path=str(ROOT / "docs/api/b.md"), src_uri="api/b.md")
    given = (
        "[a](../a.md#b) [b](../../CHANGELOG.md) [c](../../configs/mtt.py) [d](nowhere.md) `[e](x)`"
    )
    config = SimpleNamespace(repo_url="https://host")
    written = part("pages").on_page_markdown(given, SimpleNamespace(file=file), config, inside)
    assert re.findall(r"\((.*?)\)", written) == [
        "../a.md#b", "../CHANGELOG.md", "https://host/blob/main/configs/mtt.py", "nowhere.md", "x",
    ]  # fmt: skip


def test_docstrings_become_markdown():
    class Known:
        path = "jaxdistill.net"

        def resolve(self, name):
            return {"feature": "jaxdistill.net.feature"}[name]

    text = """A loss of :func:`feature`, :math:`x`.

.. math:: a +
    b

References:
    One 2020.
    Two 2021.

Example:
    >>> 1
"""
    assert part("docstrings").as_markdown(text, Known()).split("\n\n") == [
        'A loss of <autoref optional identifier="jaxdistill.net.feature"><code>feature</code>'
        "</autoref>, $x$.",
        "\n$$\na +\nb\n$$",
        "\n**References:**",
        "One 2020.<br>\nTwo 2021.",
        "Examples:\n    >>> 1\n",
    ]
