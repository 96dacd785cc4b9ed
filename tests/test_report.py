"""Reports: strict JSON, and pages that need nothing but themselves."""

import json
import re
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from jaxdistill.training.report import Picture, environment, plain, write_claim, write_report

EVIL = "<script>alert('&')</script>"
REPORT = {
    "title": f"digits {EVIL}",
    "sentence": EVIL,
    "command": "python -m jaxdistill.main --config.x='a b'",
    "created": "2026-01-02",
    "config": {"data": {"name": EVIL, "sizes": (8, 8)}, "stages": [{"steps": 2}], "none": None},
    "environment": {"jax": "0.10", "devices": "8 × cpu", EVIL: EVIL},
    "stages": [
        {
            "name": "distil",
            "steps": 20,
            "seconds": 4.0,
            "parameters": 1234,
            "metrics": [
                {"step": np.int64(step), "loss": jnp.float32(4.0**-step), "kd": float("nan")}
                for step in range(6)
            ],
            "evaluations": [
                {"step": step, "set": "validation", "accuracy": 0.5, "teacher_accuracy": 0.75}
                for step in (10, 20)
            ],
        }
    ],
    "summary": [{"model": "teacher", "accuracy": 0.75}, {"model": "student", "loss": -np.inf}],
}
CLAIM = {
    "title": "features or logits",
    "sentence": "Features teach more than logits.",
    "held_equal": ["steps", EVIL],
    "metric": "distil/test/accuracy",
    "seeds": [3, 4],
    "arms": {"features": [0.9, 0.92], EVIL: np.array([0.8, 0.84])},
    "contrasts": {
        "more": {
            "sentence": EVIL,
            "metric": "distil/test/accuracy",
            "coefficients": {"features": 1, EVIL: -1},
            "margin": 0.01,
            "mean": 0.09,
            "low": float("-inf"),
            "high": float("inf"),
            "verdict": "not shown",
        }
    },
    "verdict": "not shown",
}
DIGITS = np.linspace(0, 1, 3 * 64).reshape(3, 8, 8, 1)
PICTURES = [
    Picture("rows", "images", {"original": DIGITS, EVIL: DIGITS[:2].repeat(3, -1)}),
    Picture(
        "bins",
        "reliability",
        {"teacher": (np.array([0, 4]), np.array([0.0, 0.9]), np.array([0.0, 0.75]))},
    ),
    Picture("lines", "curves", {"speed": {"fused": ([1, 2, 4], [1.0, 2.0, 3.0])}}),
]


def refuse(constant):
    raise AssertionError(f"{constant} is no JSON")


def read(path: Path):
    return json.loads(path.read_text(), parse_constant=refuse)


def assert_stands_alone(page: str):
    """Nothing is fetched, nothing runs, and no text of the data became markup."""
    for target in re.findall(r'(?:src|href)\s*=\s*"([^"]*)"', page):
        assert target.startswith(("data:image/png;base64,", "#")) or target.endswith(".json")
    for target in re.findall(r"url\(([^)]*)\)", page):
        assert target.startswith("#")
    for banned in ("<script", "<link", "@import", "http:", "https:", "<iframe", "<style>*"):
        assert banned not in page
    for tag in ("main", "table", "figure", "svg", "details", "section", "style"):
        assert page.count(f"<{tag}") == page.count(f"</{tag}>"), tag


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    directory = tmp_path_factory.mktemp("reports") / "new" / "folder"
    path = write_report(directory, {**REPORT, "claim": CLAIM}, PICTURES)
    assert path == directory / "report.html"
    return directory


def test_page_stands_alone(written):
    page = (written / "report.html").read_text()
    assert_stands_alone(page)
    assert "prefers-color-scheme: dark" in page
    # Every colour of a figure is one of the page's own.
    assert not re.search(r"(?:fill|stroke): #", page)


def test_page_shows_everything(written):
    page = (written / "report.html").read_text()
    assert page.count("<img") == 3 + 2
    assert page.count('<img class="small"') == 5
    titles = re.findall(r'<svg role="img" aria-label="([^":]*)', page)
    assert titles == [
        "accuracy, validation by step",
        "loss, training by step",
        "reliability of teacher",
        "speed by step",
    ]
    for shown in ("1,234", "calibration error 0.1500", "−∞", "not shown"):
        assert shown in page
    # The teacher's accuracy is a line beside the student's.
    assert "teacher 0.7500</span>" in page


def test_json_is_strict_and_whole(written):
    found = read(written / "report.json")
    assert found["stages"][0]["metrics"][1] == {"step": 1, "loss": 0.25, "kd": "nan"}
    assert found["summary"][1]["loss"] == "-inf"
    assert float(found["claim"]["contrasts"]["more"]["low"]) == -np.inf
    assert found["config"]["data"] == {"name": EVIL, "sizes": [8, 8]}
    assert set(found) == {*REPORT, "claim"}
    assert sorted(p.name for p in written.iterdir()) == ["report.html", "report.json"]


def test_the_same_report_gives_the_same_page(written, tmp_path):
    again = write_report(tmp_path, {**REPORT, "claim": CLAIM}, PICTURES)
    assert again.read_bytes() == (written / "report.html").read_bytes()


def test_claim(tmp_path):
    path = write_claim(tmp_path, CLAIM)
    page = path.read_text()
    assert_stands_alone(page)
    assert page.count('class="verdict not-shown"') == 3
    for shown in (
        "seed 3",
        "seed 4",
        "0.9100",
        "[−∞, ∞]",
        "Held equal: steps;",
        "features − &lt;script",
    ):
        assert shown in page
    found = read(tmp_path / "claim.json")
    assert found["arms"]["features"] == [0.9, 0.92]
    assert found["contrasts"]["more"]["high"] == "inf"


def test_without_matplotlib_all_else_is_there(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    page = write_report(tmp_path, {**REPORT, "claim": CLAIM}, PICTURES).read_text()
    assert_stands_alone(page)
    assert "pip install &quot;jaxdistill[plots]&quot;" in page
    assert "<svg" not in page
    assert "<img" not in page
    for shown in ("Validation set, at the end", "0.7500", "1,234", "seed 3"):
        assert shown in page
    assert read(tmp_path / "report.json")["stages"][0]["steps"] == 20


def test_smallest_report(tmp_path):
    page = write_report(tmp_path, {"title": "nothing yet"}).read_text()
    assert_stands_alone(page)
    assert "Stages" not in page


@pytest.mark.parametrize(
    ("report", "pictures", "fault", "words"),
    [
        ({"title": "x"}, [Picture("p", "image", {})], ValueError, "did you mean 'images'"),
        ({"title": "x"}, [Picture("p", "images", {"row": DIGITS[0]})], ValueError, "row 'row'"),
        ({"title": "x", "config": {"a": [1, object()]}}, [], TypeError, r"config\.a\[1\]"),
    ],
)
def test_nothing_is_written_of_what_is_refused(tmp_path, report, pictures, fault, words):
    with pytest.raises(fault, match=words):
        write_report(tmp_path / "out", report, pictures)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["report.json", "report.html"])
def test_a_write_that_fails_leaves_the_last_report(tmp_path, monkeypatch, name):
    write_report(tmp_path, {"title": "the old"})
    whole = Path.write_text

    def full_disk(self, data, *args, **kwargs):
        if self.name.startswith(name):
            whole(self, data[:20])
            raise OSError("no space left on device")
        return whole(self, data, *args, **kwargs)

    monkeypatch.setattr(Path, "write_text", full_disk)
    with pytest.raises(OSError, match="no space"):
        write_report(tmp_path, {"title": "the new"})
    kept = (tmp_path / name).read_text()
    assert "the old" in kept
    assert "the new" not in kept


def test_images_are_the_pixels_given(written):
    import base64
    import io

    from matplotlib.image import imread

    page = (written / "report.html").read_text()
    first = re.search(r'base64,([^"]*)"', page)
    pixels = imread(io.BytesIO(base64.b64decode(first[1])), format="png")
    np.testing.assert_allclose(pixels[..., :3], DIGITS[0].repeat(3, -1), atol=1 / 255)


def test_long_curves_are_cut_short(tmp_path):
    lines = [{"step": step, "loss": 2 + np.sin(step)} for step in range(20_000)]
    page = write_report(tmp_path, {"title": "long", "stages": [{"name": "a", "metrics": lines}]})
    assert page.stat().st_size < 100_000


def test_plain():
    tree = {1: np.arange(2), "p": Path("a/b"), "b": np.bool_(True), "t": (None, "x")}
    assert plain(tree) == {"1": [0, 1], "p": "a/b", "b": True, "t": [None, "x"]}
    assert type(plain(np.float32(0.5))) is float


def test_environment_is_plain_and_says_what_runs():
    found = environment()
    assert plain(found) == found
    assert found["devices"].startswith("8 × ")
    assert {"python", "jax", "jaxlib", "flax", "optax", "platform"} <= found.keys()
