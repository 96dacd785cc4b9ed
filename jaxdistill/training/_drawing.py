"""Figures as SVG that takes its colours from the page around it, and images as PNG.

matplotlib is imported when something is drawn. It draws in stand-in colours, which become CSS
variables, so that one figure serves light and dark pages.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import importlib.util
import io
import re
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxdistill.training import _page

MISSING = (
    '<p class="missing">Pictures are drawn with matplotlib: '
    "<code>pip install &quot;jaxdistill[plots]&quot;</code></p>"
)
SERIES = ("first", "second", "third", "fourth", "fifth", "sixth")
NAMES = ("ink", "soft", "line", *SERIES)
STAND_IN = {name: f"#0{place:x}0{place:x}0{place:x}" for place, name in enumerate(NAMES, 1)}
# Curves with more points than this are smoothed, and drawn with at most this many.
LONG = 200
# Letters of a line beside an axis.
ROW = 22
# Images with a side shorter than this are magnified with hard edges.
SMALL = 96


class Series(NamedTuple):
    """One line of a chart."""

    label: str
    x: Sequence[float]
    y: Sequence[float]
    dashed: bool = False


def available() -> bool:
    """Whether pictures can be drawn."""
    return importlib.util.find_spec("matplotlib") is not None


def _last(values: Sequence[float]) -> float:
    return values[-1]


def chart(
    title: str,
    series: Sequence[Series],
    *,
    x: str = "step",
    y: str = "",
    arrow: str = "",
    told: Callable[[Sequence[float]], float] = _last,
) -> str:
    """A small chart with its lines named in the caption, each with one value.

    Args:
        title: of the caption.
        series: the lines; dashed ones are levels to compare with.
        x: what its axis says.
        y: what the other axis says, the title by default.
        arrow: HTML behind the title.
        told: which value, the last one by default.
    """
    colours = _colours(series)
    with _figure(3.3, 2.05) as figure:
        axes = figure.add_subplot()
        for (_, xs, ys, dashed), name in zip(series, colours, strict=True):
            _line(axes, np.asarray(xs, float), np.asarray(ys, float), STAND_IN[name], dashed)
        values = np.concatenate([np.asarray(s.y, float) for s in series])
        whole = all(float(place).is_integer() for s in series for place in s.x)
        _scale(axes, values[np.isfinite(values)], whole)
        axes.margins(x=0.02)
        axes.set_xlabel(x)
        axes.set_ylabel(_wrapped(y or title))
        if min(min(s.x) for s in series) >= 0:
            axes.set_xlim(left=0)
        svg = _svg(figure, f"{title} by {x}: {_said(series)}")
    keys = [
        _key(name, f"{s.label} {_page.number(float(told(s.y)))}".strip(), s.dashed)
        for s, name in zip(series, colours, strict=True)
    ]
    return _captioned(title, keys, svg, arrow)


def _line(axes: Any, x: np.ndarray, y: np.ndarray, colour: str, dashed: bool) -> None:
    style: Any = {"color": colour, "lw": 1.5, "ls": (0, (1.5, 2)) if dashed else "-"}
    if len(x) > LONG:
        every = slice(None, None, -(-len(x) // LONG))
        axes.plot(x[every], y[every], **{**style, "lw": 0.7, "alpha": 0.3})
        axes.plot(x[every], _smoothed(y)[every], **style)
    else:
        dots = {"marker": "o", "ms": 2.6} if len(x) <= 30 and not dashed else {}
        axes.plot(x, y, **style, **dots)


def _wrapped(words: str) -> str:
    """At most two lines, which the height of a chart holds."""
    lines = textwrap.wrap(words, ROW)
    return "\n".join(lines if len(lines) <= 2 else [lines[0], lines[1][: ROW - 1] + "…"])


def _said(series: Sequence[Series]) -> str:
    """The lines in words, for those who do not see them."""
    parts = []
    for label, _, y, dashed in series:
        first, last = (_page.number(float(value)) for value in (y[0], y[-1]))
        parts.append(f"{label} {last}" if dashed else f"{label} from {first} to {last}")
    return "; ".join(parts)


def reliability(models: Mapping[str, Any]) -> str:
    """Accuracy against confidence for each model, and below it how often it is how sure."""
    found = []
    for name, (count, confidence, accuracy) in models.items():
        count, confidence, accuracy = (np.asarray(x, float) for x in (count, confidence, accuracy))
        share, bins = count / max(count.sum(), 1), len(count)
        width, middles = 1 / bins, (np.arange(bins) + 0.5) / bins
        error = float(np.sum(share * np.abs(accuracy - confidence)))
        filled = count > 0
        with _figure(3.0, 3.5) as figure:
            upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3.2, 1))
            upper.bar(middles[filled], accuracy[filled], 0.9 * width, color=STAND_IN["first"])
            upper.plot(
                confidence[filled],
                accuracy[filled],
                "o",
                ms=3.5,
                color=STAND_IN["second"],
                zorder=3,
            )
            upper.plot([0, 1], [0, 1], color=STAND_IN["soft"], lw=1, ls=(0, (4, 3)))
            upper.set(ylim=(0, 1.02), ylabel="accuracy")
            lower.bar(middles, share, 0.9 * width, color=STAND_IN["soft"], alpha=0.6)
            lower.set(xlim=(0, 1), xlabel="confidence", ylabel="share")
            # A zero in the corner would stand on that of the other axis.
            lower.locator_params(axis="y", nbins=3, prune="lower")
            figure.align_ylabels()
            svg = _svg(figure, f"reliability of {name}")
        found.append(_captioned(str(name), [f"calibration error {_page.number(error)}"], svg))
    return f'<div class="pair">{"".join(found)}</div>'


def images(rows: Mapping[str, Any]) -> str:
    """Rows of images ``[columns, H, W, C]`` in [0, 1] with their labels."""
    cells, columns = [], 0
    for label, row in rows.items():
        row = np.asarray(row, np.float32)
        if row.ndim != 4 or row.shape[-1] not in (1, 3):
            raise ValueError(
                f"row {label!r} must be images [columns, H, W, 1 or 3], got {row.shape}"
            )
        columns = max(columns, len(row))
        named = (f"{label}, {place} of {len(row)}" for place in range(1, len(row) + 1))
        cells.append((str(label), [_image(*pair) for pair in zip(row, named, strict=True)]))
    if columns == 1:
        # Single images stand side by side, each above its label.
        alone = "".join(
            f"<div>{row[0]}<span>{_page.text(label)}</span></div>" for label, row in cells
        )
        return f'<div class="single">{alone}</div>'
    grid = "".join(
        f"<span>{_page.text(label)}</span>{''.join(row)}" + "<i></i>" * (columns - len(row))
        for label, row in cells
    )
    return f'<div class="images" style="--columns: {columns}">{grid}</div>'


def _image(image: np.ndarray, alt: str) -> str:
    from matplotlib.image import imsave

    height, width, channels = image.shape
    pixels = np.clip(np.nan_to_num(image), 0, 1)
    rgb = pixels if channels == 3 else np.repeat(pixels, 3, -1)
    buffer = io.BytesIO()
    imsave(buffer, rgb, format="png")
    kind = ' class="small"' if min(height, width) < SMALL else ""
    data = base64.b64encode(buffer.getvalue()).decode()
    return f'<img{kind} alt="{_page.text(alt)}" src="data:image/png;base64,{data}">'


def _colours(series: Sequence[Series]) -> list[str]:
    """A colour a line; a single level is grey."""
    grey = sum(s.dashed for s in series) == 1
    found, used = [], 0
    for one in series:
        if one.dashed and grey:
            found.append("soft")
        else:
            found.append(SERIES[used % len(SERIES)])
            used += 1
    return found


def _smoothed(y: np.ndarray) -> np.ndarray:
    """A running mean over a fortieth of the curve, narrower at its ends."""
    window = np.ones(len(y) // 40 | 1)
    return np.convolve(y, window, "same") / np.convolve(np.ones(len(y)), window, "same")


def _scale(axes: Any, values: np.ndarray, whole: bool) -> None:
    """Few round numbers on both axes: steps are ``whole``, and values of many sizes logarithmic."""
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

    axes.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 2.5, 5, 10], integer=whole))
    axes.xaxis.set_major_formatter(
        FuncFormatter(lambda value, _: f"{value:,.0f}" if whole else f"{value:g}")
    )
    if values.size and values.min() > 0 and values.max() > 30 * values.min():
        axes.set_yscale("log")
        wide = values.max() > 300 * values.min()
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0,) if wide else (1.0, 3.0), numticks=5))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: _short(value)))
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.minorticks_off()
    else:
        if values.size and 0 < values.max() == values.min():
            axes.set_ylim(0, 1.25 * values.max())
        axes.yaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 2.5, 5, 10]))


def _short(value: float) -> str:
    """A number beside an axis of many sizes: 1e6, not 1e+06."""
    digits, _, power = f"{value:g}".partition("e")
    return f"{digits}e{int(power)}" if power else digits


@contextlib.contextmanager
def _figure(width: float, height: float) -> Iterator[Any]:
    import matplotlib
    from matplotlib.figure import Figure

    style: Any = {
        "axes.edgecolor": STAND_IN["line"],
        "axes.facecolor": "none",
        "axes.formatter.useoffset": False,
        "axes.grid": True,
        "axes.labelcolor": STAND_IN["soft"],
        "axes.linewidth": 0.8,
        "axes.spines.right": False,
        "axes.spines.top": False,
        "axes.axisbelow": True,
        "figure.facecolor": "none",
        "font.size": 8,
        "grid.color": STAND_IN["line"],
        "grid.linewidth": 0.6,
        "text.color": STAND_IN["ink"],
        "svg.fonttype": "none",
        "svg.hashsalt": "jaxdistill",
        "xtick.color": STAND_IN["soft"],
        "xtick.major.size": 0,
        "ytick.color": STAND_IN["soft"],
        "ytick.major.size": 0,
    }
    with matplotlib.rc_context(style):
        yield Figure(figsize=(width, height), layout="constrained")


def _svg(figure: Any, label: str) -> str:
    """The figure as an element of the page: no ids but those it refers to, no names of fonts."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    svg = buffer.getvalue().decode()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg, flags=re.S)
    svg = re.sub(r"<style.*?</style>\s*", "", svg, flags=re.S)
    svg = re.sub(r"<!--.*?-->\s*", "", svg, flags=re.S)
    svg = re.sub(r'\s+(xmlns(:\w+)?|version)="[^"]*"', "", svg).replace("xlink:href", "href")
    svg = re.sub(r"font-family: [^;\"]*;?\s*", "", svg)
    svg = re.sub(r"font: ([\d.]+px) [^;\"]*", r"font-size: \1", svg)
    kept = set(re.findall(r"(?:#|url\(#)([\w-]+)", svg))
    svg = re.sub(r' id="([^"]*)"', lambda m: m[0] if m[1] in kept else "", svg)
    # Equal parts of several figures have one id each all the same.
    own = hashlib.sha256(f"{label}{svg}".encode()).hexdigest()[:8]
    svg = re.sub(r'(id="|"#|url\(#)([\w-]+)', rf"\1\2-{own}", svg)
    for name, stand_in in STAND_IN.items():
        svg = svg.replace(stand_in, f"var(--{name})")
    width = f"{figure.get_figwidth() * 96:.0f}px"
    opening = f'<svg role="img" aria-label="{_page.text(label)}" style="max-width: {width}"'
    return re.sub(r'<svg width="[^"]*" height="[^"]*"', lambda _: opening, svg, count=1)


def _key(name: str, words: str, dashed: bool = False) -> str:
    kind = "key dashed" if dashed else "key"
    return f'<span class="{kind}" style="--key: var(--{name})">{_page.text(words)}</span>'


def _captioned(title: str, notes: Sequence[str], svg: str, arrow: str = "") -> str:
    shown = "".join(f"<span>{note}</span>" for note in notes)
    caption = f"<b>{_page.text(title)}{arrow}</b>{shown}"
    return f"<figure><figcaption>{caption}</figcaption>{svg}</figure>"
