"""Figures as SVG that takes its colours from the page around it, and images as PNG.

matplotlib is imported when something is drawn. It draws in stand-in colours, which become CSS
variables, so that one figure serves light and dark pages.
"""

from __future__ import annotations

import base64
import contextlib
import importlib.util
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxdistill.training import _page

MISSING = (
    '<p class="missing">Pictures are drawn with matplotlib: '
    "<code>pip install &quot;jaxdistill[plots]&quot;</code></p>"
)
NAMES = ("ink", "soft", "line", "first", "second", "third", "fourth", "good", "bad", "open")
STAND_IN = {name: f"#0{place:x}0{place:x}0{place:x}" for place, name in enumerate(NAMES, 1)}
SERIES = ("first", "second", "third", "fourth")
TONES = {
    "holds": "good",
    "contradicted": "bad",
    "not shown": "open",
    "smaller than asked": "open",
}
# Curves with more points than this are smoothed, and drawn with at most this many.
LONG = 200
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


def chart(title: str, series: Sequence[Series]) -> str:
    """A small chart with its lines named in the caption, each with its last value."""
    colours = _colours(series)
    with _figure(3.3, 1.9) as figure:
        axes = figure.add_subplot()
        for (_, x, y, dashed), name in zip(series, colours, strict=True):
            x, y = np.asarray(x, float), np.asarray(y, float)
            colour = STAND_IN[name]
            style: Any = {"color": colour, "lw": 1.5, "ls": (0, (4, 3)) if dashed else "-"}
            if len(x) > LONG:
                every = slice(None, None, -(-len(x) // LONG))
                axes.plot(x[every], y[every], **{**style, "lw": 0.7, "alpha": 0.3})
                axes.plot(x[every], _smoothed(y)[every], **style)
            else:
                dots = {"marker": "o", "ms": 2.6} if len(x) <= 30 and not dashed else {}
                axes.plot(x, y, **style, **dots)
        values = np.concatenate([np.asarray(s.y, float) for s in series])
        _scale(axes, values[np.isfinite(values)])
        axes.margins(x=0.02)
        if min(min(s.x) for s in series) >= 0:
            axes.set_xlim(left=0)
        svg = _svg(figure, title)
    keys = [
        _key(name, f"{s.label} {_page.number(float(s.y[-1]))}".strip())
        for s, name in zip(series, colours, strict=True)
    ]
    return _captioned(title, keys, svg)


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
            lower.locator_params(axis="y", nbins=2)
            figure.align_ylabels()
            svg = _svg(figure, f"reliability of {name}")
        found.append(_captioned(str(name), [f"calibration error {_page.number(error)}"], svg))
    return f'<div class="pair">{"".join(found)}</div>'


def arms(
    metric: str, values: Mapping[str, Sequence[float]], intervals: Mapping[str, Sequence[float]]
) -> str:
    """A row for every arm: a dot for each seed, the mean, and its interval where there is one."""
    names = list(values)[::-1]
    with _figure(7.4, 0.75 + 0.32 * len(names)) as figure:
        axes = _rows(figure, names)
        for place, name in enumerate(names):
            seeds = np.array([float(value) for value in values[name]])
            ours = STAND_IN["first"]
            axes.plot(seeds, np.full(len(seeds), place), "o", ms=4.5, mew=0, color=ours, alpha=0.75)
            if name in intervals and np.isfinite([float(x) for x in intervals[name]]).all():
                _, low, high = (float(x) for x in intervals[name])
                band = {"color": ours, "lw": 9, "alpha": 0.22, "solid_capstyle": "butt"}
                axes.plot([low, high], [place, place], **band)
            if np.isfinite(seeds).all():
                axes.plot([seeds.mean()], [place], "|", ms=13, mew=2, color=STAND_IN["ink"])
        band = ", its 95 % interval behind it" if intervals else ""
        note = f"a dot for every seed, a bar at the mean{band}"
        return _captioned(metric, [note], _svg(figure, metric))


def contrasts(metric: str, found: Mapping[str, Mapping[str, Any]]) -> str:
    """A row for every contrast: its mean and interval against the margin that it must exceed."""
    names = list(found)[::-1]
    with _figure(7.4, 0.75 + 0.32 * len(names)) as figure:
        axes = _rows(figure, names)
        axes.axvline(0, color=STAND_IN["soft"], lw=1)
        for place, name in enumerate(names):
            contrast = found[name]
            colour = STAND_IN[TONES.get(contrast.get("verdict", ""), "soft")]
            mean, low, high = (float(contrast[key]) for key in ("mean", "low", "high"))
            known = bool(np.isfinite([low, high]).all())
            if known:
                axes.plot([low, high], [place, place], color=colour, lw=2.2, solid_capstyle="round")
            if margin := float(contrast.get("margin") or 0):
                axes.plot([margin], [place], "|", ms=14, mew=1.2, color=STAND_IN["soft"])
            if np.isfinite(mean):
                face = colour if known else "none"
                axes.plot([mean], [place], "o", ms=7, color=colour, mfc=face)
        title = f"difference in {metric}"
        return _captioned(
            title, ["mean and 95 % interval, hollow where there is none"], _svg(figure, title)
        )


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
        cells.append((str(label), [_image(image) for image in row]))
    grid = "".join(
        f"<span>{_page.text(label)}</span>{''.join(row)}" + "<i></i>" * (columns - len(row))
        for label, row in cells
    )
    layout = f"grid-template-columns: max-content repeat({columns}, minmax(0, 84px))"
    return f'<div class="images" style="{layout}">{grid}</div>'


def _image(image: np.ndarray) -> str:
    from matplotlib.image import imsave

    height, width, channels = image.shape
    pixels = np.clip(np.nan_to_num(image), 0, 1)
    rgb = pixels if channels == 3 else np.repeat(pixels, 3, -1)
    buffer = io.BytesIO()
    imsave(buffer, rgb, format="png")
    kind = ' class="small"' if min(height, width) < SMALL else ""
    data = base64.b64encode(buffer.getvalue()).decode()
    return f'<img{kind} alt="" src="data:image/png;base64,{data}">'


def _rows(figure: Any, names: Sequence[str]) -> Any:
    axes = figure.add_subplot()
    axes.set_yticks(range(len(names)), [n if len(n) <= 34 else n[:33] + "…" for n in names])
    axes.set_ylim(-0.6, len(names) - 0.4)
    axes.tick_params(axis="y", labelsize=9, labelcolor=STAND_IN["ink"])
    axes.grid(axis="y", visible=False)
    axes.margins(x=0.06)
    return axes


def _colours(series: Sequence[Series]) -> list[str]:
    solid = [s for s in series if not s.dashed]
    return [
        "soft" if s.dashed else SERIES[[id(x) for x in solid].index(id(s)) % len(SERIES)]
        for s in series
    ]


def _smoothed(y: np.ndarray) -> np.ndarray:
    """A running mean over a fortieth of the curve, narrower at its ends."""
    window = np.ones(len(y) // 40 | 1)
    return np.convolve(y, window, "same") / np.convolve(np.ones(len(y)), window, "same")


def _scale(axes: Any, values: np.ndarray) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

    axes.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 2.5, 5, 10], integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    if values.size and values.min() > 0 and values.max() > 30 * values.min():
        axes.set_yscale("log")
        wide = values.max() > 300 * values.min()
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0,) if wide else (1.0, 3.0), numticks=5))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.minorticks_off()
    else:
        axes.yaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 2.5, 5, 10]))


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
    for name, stand_in in STAND_IN.items():
        svg = svg.replace(stand_in, f"var(--{name})")
    width = f"{figure.get_figwidth() * 96:.0f}px"
    opening = f'<svg role="img" aria-label="{_page.text(label)}" style="max-width: {width}"'
    return re.sub(r'<svg width="[^"]*" height="[^"]*"', lambda _: opening, svg, count=1)


def _key(name: str, words: str) -> str:
    return f'<span class="key" style="--key: var(--{name})">{_page.text(words)}</span>'


def _captioned(title: str, notes: Sequence[str], svg: str) -> str:
    caption = f"<b>{_page.text(title)}</b>{''.join(f'<span>{note}</span>' for note in notes)}"
    return f"<figure><figcaption>{caption}</figcaption>{svg}</figure>"
