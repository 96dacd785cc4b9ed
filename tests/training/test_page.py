"""Pages as their readers get them: parsed, measured, and held against what screens and eyes can."""

import itertools
import json
import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import pytest

from jaxdistill.present import _learning_rate
from jaxdistill.training import _curves, _drawing, _strips, _style
from jaxdistill.training.report import Picture, write_claim, write_report

# The width of a strip's axis, and of a letter of its numbers, on a screen of 390 pixels.
TRACK, LETTER = 390 - 2 * 14 - 2 * 14 - 2 - 2 * 26, 6.7


class Tables(HTMLParser):
    """The tables of a page: of each the classes and rows of (tag, attributes, text)."""

    def __init__(self, page):
        super().__init__()
        self.tables, self.inside = [], False
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        if tag == "table":
            self.tables.append((dict(attrs).get("class") or "", []))
        elif tag == "tr":
            self.tables[-1][1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][1][-1].append([tag, dict(attrs), ""])
            self.inside = True

    def handle_endtag(self, tag):
        self.inside = self.inside and tag not in ("td", "th")

    def handle_data(self, data):
        if self.inside:
            self.tables[-1][1][-1][-1][2] += data.replace("\N{NO-BREAK SPACE}", " ")


def label(cell):
    return cell[1]["data-label"].replace("\N{NO-BREAK SPACE}", " ")


def stage(name, steps, sets, **more):
    """A stage with values that are all different."""
    metrics = [{"step": s, "loss": 1 / (1 + s), "features": 2.0 / (1 + s)} for s in steps]
    evaluations = [
        {"step": s, "set": part, "accuracy": 0.5 + s / 1000, "nll": 1 - s / 1000}
        for s in steps
        for part in sets
    ]
    more = {"seconds": 4.0, "parameters": 12, "learning_rate": ([0, steps[-1]], [1e-3, 0.0])} | more
    return {
        "name": name, "what": "mlp", "learns_from": "digits", "steps": steps[-1],
        "metrics": metrics, "evaluations": evaluations, **more,
    }  # fmt: skip


COSTS = {"parameters": 228_164, "operations": 9.6e6, "seconds": 5e-4, "bytes": 912_656}
REPORT = {
    "title": "digits",
    "answer": {
        "from": [{"name": "teacher", "what": "mlp"}, {"name": "other_one", "what": ""}],
        "into": {"name": "distil", "what": "mlp"},
        "how": "20 steps",
        "metrics": ["test/accuracy", "test/nll", "test/entropy"],
        "rows": [
            {
                "name": "teacher", "role": "teacher", "what": "mlp",
                "values": {"test/accuracy": 0.95, "test/nll": 0.25}, **COSTS,
            },
            {
                "name": "distil", "role": "student", "what": "mlp",
                "values": {"test/accuracy": 0.9, "test/nll": 0.5, "test/entropy": 1.0},
                "intervals": {"test/accuracy": (0.88, 0.92)},
                **{key: value / 4 for key, value in COSTS.items()},
            },
        ],
    },
    "stages": [
        stage("teacher", (5,), ("validation", "test")),
        stage("a_stage_with_a_rather_long_name", (10, 20, 40), ("validation",)),
        stage("distil", (10, 20), ("validation", "test")),
    ],
    "config": {"seed": 0},
    "command": "python -m jaxdistill.main --config=x",
    "environment": {"jax": "0.10", "processor": "a name without any space" * 3},
}  # fmt: skip
SEEDS = {
    "distilled": [0.91, 0.93, 0.92],
    "alone": [0.9, 0.88, 0.86],
    "a long name of an arm": [0.9],
}
CLAIM = {
    "title": "claim",
    "sentence": "It helps.",
    "metric": "distil/test/errors",
    "seeds": [0, 1, 2],
    "arms": SEEDS,
    "intervals": {"distilled": (0.92, 0.9, 0.94), "alone": (0.88, 0.82, 0.94)},
    "contrasts": {
        verdict: {
            "sentence": "more", "coefficients": {"distilled": 1, "alone": -1}, "margin": margin,
            "mean": mean, "low": mean - 0.02, "high": mean + 0.02, "confidence": 0.975,
            "differences": [mean - 0.01, mean + 0.01], "verdict": verdict, "metric": metric,
        }
        for verdict, margin, mean, metric in (
            ("holds", 0.01, 0.04, "distil/test/accuracy"),
            ("smaller than asked", 0.03, 0.035, "distil/test/accuracy"),
            ("not shown", 0.0, 0.01, "distil/test/accuracy"),
            ("contradicted", 0.0, -30.0, "distil/test/errors"),
        )
    },
    "notes": ["Intervals are over 3 seeds."],
    "verdict": "contradicted",
}  # fmt: skip
PICTURES = [
    Picture("lines", "curves", {"speed by size of a batch": {"fused": ([1, 2], [1.0, 2.0])}}),
    Picture("rows", "images", {"original": np.zeros((3, 8, 8, 1))}),
    Picture("bins", "reliability", {"t": (np.array([0, 4]), np.zeros(2), np.array([0.0, 0.75]))}),
]


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    root = tmp_path_factory.mktemp("pages")
    found = [write_report(root, REPORT, PICTURES), write_claim(root, CLAIM)]
    return {path.stem: path.read_text() for path in found}


@pytest.mark.parametrize("name", ["report", "claim"])
def test_no_column_of_a_table_is_out_of_sight(pages, name):
    tables = Tables(pages[name]).tables
    assert len(tables) >= 2
    for kind, rows in tables:
        heads = [cell[2].strip() for cell in rows[0]] if rows[0][-1][0] == "th" else None
        for row in rows:
            assert len(row) == len(rows[0])
        if len(rows[0]) <= 3:
            continue
        # Where rows are blocks every cell says which column it is of.
        assert "stack" in kind.split()
        assert heads is not None
        for row in rows[1:]:
            assert row[0][0] == "th"
            assert [label(cell) for cell in row[1:]] == heads[1:]


def test_the_answer_comes_first_and_compares(pages):
    page = pages["report"]
    _, rows = Tables(page).tables[0]
    shown = [[cell[2].strip() for cell in row] for row in rows]
    assert shown[0] == [
        "", "accuracy, test ↑", "negative log-likelihood, test ↓", "entropy, test",
        "parameters", "operations ↓", "latency ↓", "size ↓",
    ]  # fmt: skip
    assert shown[1][1:] == ["0.9500", "0.2500", "–", "228 k", "9.60 M", "500 µs", "913 kB"]
    assert shown[2][1] == "0.9000[0.8800, 0.9200]"
    difference = ["student against teacher", "−0.0500", "+0.2500", "–"]
    assert shown[3] == [*difference, "25 %", "25 %", "25 %", "25 %"]
    places = [
        page.index(f"<h2>{t}</h2>") for t in ("Curves", "Pictures", "Tables", "How it was made")
    ]
    assert [page.index("<table"), *places] == sorted([page.index("<table"), *places])


def test_stages_share_charts_and_what_was_measured_once_is_a_level(pages):
    labels = re.findall(r'<svg role="img" aria-label="([^"]*)"', pages["report"])
    (accuracy,) = (label for label in labels if label.startswith("accuracy, validation"))
    assert accuracy == (
        "accuracy, validation by step: a_stage_with_a_rather_long_name from 0.5100 to 0.5400; "
        "distil from 0.5100 to 0.5200; teacher 0.5050"
    )
    assert any(label.startswith("learning rate by step: teacher") for label in labels)
    assert any(label.startswith("speed by size of a batch") for label in labels)


def test_a_teacher_measured_beside_its_student_is_one_level():
    evaluations = [
        {"step": 0, "set": "teacher:validation", "accuracy": 0.9},
        {"step": 10, "set": "validation", "accuracy": 0.5, "teacher_accuracy": 0.9},
        {"step": 20, "set": "validation", "accuracy": 0.6, "teacher_accuracy": 0.9},
    ]
    found = _curves.curves([{"name": "distil", "evaluations": evaluations}])
    assert re.findall(r'aria-label="(acc[^"]*)"', found) == [
        "accuracy, validation by step: distil from 0.5000 to 0.6000; teacher 0.9000"
    ]


@pytest.mark.parametrize("steps", [150, 299, 4001])
def test_the_peak_of_a_learning_rate_is_drawn(steps):
    rate = {"schedule": "warmup_cosine", "peak": 3e-3, "warmup": steps // 3}
    settings = {"optimizer": {"learning_rate": rate}, "steps": steps}
    places, rates = _learning_rate(settings)["learning_rate"]
    assert max(rates) == pytest.approx(3e-3, rel=1e-6)
    assert places == sorted(set(places))
    assert places[0] == 0
    assert places[-1] == steps - 1


def test_the_only_term_of_a_loss_is_drawn_once():
    def drawn(terms):
        lines = [
            {"step": s, "loss": 0.5 / s, **{t: v / s for t, v in terms.items()}} for s in (1, 2)
        ]
        found = _curves.curves([{"name": "distil", "metrics": lines}])
        return re.findall(r'aria-label="(\w+), training', found)

    assert drawn({"soft": 0.5}) == ["loss"]
    assert drawn({"soft": 0.3, "hard": 0.2}) == ["loss", "soft", "hard"]


@pytest.mark.parametrize("name", ["report", "claim"])
def test_pictures_say_what_they_show(pages, name):
    page = pages[name]
    for image in re.findall(r"<(?:img|svg)[^>]*>", page):
        assert re.search(r'(?:alt|aria-label)="[^"]+"', image), image[:80]
    for track in re.findall(r'<div class="track"[^>]*>', page):
        assert re.search(r'role="img" aria-label="[^"]+"', track)
    assert '<html lang="en">' in page
    for unwanted in ("<script", "http", "@import", "<link"):
        assert unwanted not in page
    ids = re.findall(r' id="([^"]*)"', page)
    assert len(set(ids)) == len(ids)


def boxes(svg):
    """Where the texts of a figure lie: (left, top, right, bottom), turned ones too."""
    found = []
    for text in ElementTree.fromstring(svg).iter("text"):
        style, turn = text.get("style"), text.get("transform") or ""
        size = float(re.search(r"font-size: ([\d.]+)px", style)[1])
        width = 0.62 * size * len(text.text)
        if move := re.search(r"translate\(([\d.-]+) ([\d.-]+)\)", turn):
            x, y = map(float, move.groups())
        else:
            x, y = float(text.get("x")), float(text.get("y"))
        start = {"middle": width / 2, "end": width}.get(
            (re.search(r"text-anchor: (\w+)", style) or ["", ""])[1], 0
        )
        if "rotate(-90" in turn:
            found.append((x - 0.8 * size, y + start - width, x + 0.2 * size, y + start))
        else:
            found.append((x - start, y - 0.8 * size, x - start + width, y + 0.2 * size))
    return found


def overlap(one, other):
    across = min(one[2], other[2]) - max(one[0], other[0])
    down = min(one[3], other[3]) - max(one[1], other[1])
    return across > 0.5 and down > 0.5


LINES = {
    "shares": ([0, 5, 10], [0.1, 0.55, 0.98]),
    "below zero": ([0, 5, 10], [-0.00012, 0.0, 0.00031]),
    "wide": ([0, 1_000_000], [1e-9, 1.0]),
    "narrow logarithm": ([0, 300_000], [1.1e-5, 4e-4]),
    "large": ([1, 99_999], [123_456.0, 234_567.0]),
    "constant": ([0, 60], [1.0, 1.0]),
    "one point": ([7], [3.0]),
    "shares by shares": ([0.0, 0.35, 1.0], [0.5, 0.51, 0.49]),
}


@pytest.mark.parametrize("name", LINES)
def test_figures_are_xml_whose_labels_do_not_overlap(name):
    title = "correlation with the labels of a rather long name, validation"
    chart = _drawing.chart(title, [_drawing.Series("one", *LINES[name])])
    svg = chart[chart.index("<svg") : chart.index("</svg>") + 6]
    found = boxes(svg)
    assert len(found) >= 5
    _, _, width, height = map(float, re.search(r'viewBox="([^"]*)"', svg)[1].split())
    for left, top, right, bottom in found:
        assert left > -4
        assert top > -4
        assert right < width + 4
        assert bottom < height + 4
    for pair in itertools.combinations(found, 2):
        assert not overlap(*pair), pair


def test_reliability_is_xml_whose_labels_do_not_overlap():
    bins = np.array([0, 3, 4, 10])
    drawn = _drawing.reliability({"t": (bins, np.linspace(0, 0.9, 4), np.linspace(0, 0.8, 4))})
    found = boxes(drawn[drawn.index("<svg") : drawn.index("</svg>") + 6])
    for pair in itertools.combinations(found, 2):
        assert not overlap(*pair), pair


@pytest.mark.parametrize(
    ("low", "high"),
    [
        (-0.013, 0.118),
        (0, 1),
        (0.8351, 0.8352),
        (-300, 4),
        (1e-9, 3e-9),
        (10_000, 2_000_000),
        (0, 7),
    ],
)
def test_numbers_of_an_axis_do_not_overlap(low, high):
    places, shown = _strips.ticks(low, high)
    assert 2 <= len(places) <= 5
    assert len(set(shown)) == len(shown)
    at = [TRACK * (place - low) / (high - low) for place in places]
    for (one, words), (other, more) in itertools.pairwise(zip(at, shown, strict=True)):
        assert other - one >= LETTER * (len(words) + len(more)) / 2, (shown, at)
    for place, words in zip(at, shown, strict=True):
        assert -1e-6 <= place <= TRACK + 1e-6
        # What stands at an end has the margin of the track, and the padding of its card.
        assert place + LETTER * len(words) / 2 <= TRACK + 26 + 14


def test_a_claim_shows_every_seed_interval_margin_and_verdict(pages):
    page = pages["claim"]
    strips = re.findall(r'<div class="strip ([\w-]*)">(.*?)</div></div>(?=<div)', page)
    tones = [tone for tone, _ in strips]
    assert tones == ["holds", "smaller-than-asked", "not-shown", "contradicted", "", "", ""]
    dots = [content.count('class="dot"') for _, content in strips]
    assert dots == [2, 2, 2, 2, 3, 3, 1]
    assert [content.count('class="margin"') for _, content in strips] == [1, 1, 0, 0, 0, 0, 0]
    assert [content.count('class="band"') for _, content in strips] == [1, 1, 1, 1, 1, 1, 0]
    for tone, content in strips[:4]:
        assert f'class="verdict {tone}"' in content
    # On its own axis a margin stands left of the interval of what holds.
    left = re.search(r'class="margin" style="left: ([\d.]+)%', strips[0][1])[1]
    low = re.search(r'class="band" style="left: ([\d.]+)%', strips[0][1])[1]
    assert float(left) < float(low)
    # Fewer errors are better.
    assert "errors, test" in page
    assert "lower is better" in page
    assert "97.5" in page


def test_seeds_stay_apart_beside_an_interval_that_is_far_wider():
    wide = _strips.Strip("few", points=[0.9, 0.92], mean=0.91, interval=(-300.0, 301.0))
    page = _strips.strips([wide], zero=False)
    left, right = map(float, re.findall(r'class="dot" style="left: ([\d.]+)%', page))
    assert right - left > 20
    assert 'class="band" style="left: 0.00%; right: calc(100% - 100.00%)' in page
    assert _strips.reaches([wide])
    assert not _strips.reaches([wide._replace(interval=(0.89, 0.93))])
    # What is drawn is cut, what is said is not.
    assert "interval −300 to 301" in page


def luminance(colour):
    values = [int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)]
    linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in values]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("colours", [_style.LIGHT, _style.DARK], ids=["light", "dark"])
def test_colours_stand_out(colours):
    """WCAG 2.2: 4.5 for text, 3 for lines."""
    assert _style.LIGHT.keys() == _style.DARK.keys()
    for ground in ("paper", "card"):
        for name in ("ink", "soft", "good", "bad", "open", *_drawing.SERIES):
            pair = sorted((luminance(colours[name]), luminance(colours[ground])))
            wanted = 3 if name in _drawing.SERIES else 4.5
            assert (pair[1] + 0.05) / (pair[0] + 0.05) >= wanted, (name, ground)


def test_all_numbers_are_in_the_file(tmp_path):
    write_report(tmp_path, REPORT, PICTURES)
    found = json.loads((tmp_path / "report.json").read_text())
    assert found["answer"]["rows"][1]["intervals"] == {"test/accuracy": [0.88, 0.92]}
    assert found["stages"][2]["learning_rate"] == [[0, 20], [1e-3, 0.0]]
