"""The answer to a claim as text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jaxdistill.claims.seeds import ranges
from jaxdistill.evaluation import statistics

ENOUGH = 5
"""So many seeds are enough; of fewer the table says what they can show."""
TUNING_SEED = 1000
"""Seeds from here on are for tuning and pilots: no claim is answered with them."""


def table(result: Mapping[str, Any], seeds: Sequence[int]) -> str:
    """The answer as text, its tables in Markdown.

    Args:
        result: as :func:`jaxdistill.claim.answer` gives it, or as ``claim.json`` holds it.
        seeds: which ran.
    """
    arms = [
        [name, *(f"{float(v):.4f}" for v in values), f"{_mean(values):.4f}"]
        for name, values in result["arms"].items()
    ]
    contrasts = [
        [
            name,
            f"{float(c['mean']):+.4g}",
            f"[{float(c['low']):+.4g}, {float(c['high']):+.4g}]",
            f"{100 * c['confidence']:.4g} %",
            _asked(c),
            c["verdict"],
            c["sentence"],
        ]
        for name, c in result["contrasts"].items()
    ]
    parts = [
        f"{result['sentence']} «{result['verdict']}»".strip(),
        f"{result['metric']}, seeds {ranges(seeds)}:",
        _grid(["arm", *(f"seed {seed}" for seed in seeds), "mean"], arms),
        _grid(
            ["contrast", "mean", "interval", "confidence", "asked: above", "verdict", ""], contrasts
        ),
        "\n".join(notes(result, seeds)),
    ]
    return "\n\n".join(parts)


def notes(result: Mapping[str, Any], seeds: Sequence[int]) -> list[str]:
    """What a reader of the table must know: what the intervals hold, and what they do not."""
    found = []
    count = len(result["contrasts"])
    if count > 1:
        found.append(
            f"The {count} contrasts are answered together, by Holm's procedure: where there is no "
            "effect at all, any of them holds, or is contradicted, by chance in at most 5 % of "
            "such claims. A contrast that is answered early has the wider interval."
        )
    found.append(
        f"Intervals are over {_seeds(len(seeds))} (Student's t, paired by seed). They do not hold "
        f"what {_missing(result.get('scope') or {})} would change."
    )
    if len(seeds) < ENOUGH:
        own, enough = _power(len(seeds)), _power(ENOUGH)
        verb = "is" if len(seeds) == 1 else "are"
        found.append(
            f"{_seeds(len(seeds))} {verb} few: an effect of one standard deviation is shown in "
            f"{own[0]:.0f} % of cases, one of two in {own[1]:.0f} %; with {ENOUGH} seeds in "
            f"{enough[0]:.0f} % and {enough[1]:.0f} %."
        )
    if any(seed >= TUNING_SEED for seed in seeds):
        found.append(
            f"Seeds from {TUNING_SEED} on are for tuning and pilots: this answers no claim."
        )
    for machine in result.get("environments") or ():
        found.append(
            f"Seeds {ranges(machine['seeds'])}: {machine['devices']}, {machine['processor']}, "
            f"jaxdistill {machine['jaxdistill']}, jax {machine['jax']}, Python {machine['python']}."
        )
    return found


def _missing(scope: Mapping[str, Any]) -> str:
    """What all seeds have alike."""
    sets = scope.get("sets") or {"test": None}
    found = [f"another {n} split" + (f" ({c} records)" if c else "") for n, c in sets.items()]
    found += [
        f"another result of {name!r}, which all seeds share," for name in scope.get("shared", ())
    ]
    return " or ".join(found)


def _seeds(count: int) -> str:
    return "1 seed" if count == 1 else f"{count} seeds"


def _asked(contrast: Mapping[str, Any]) -> str:
    origin = contrast.get("margin_from")
    return f"{contrast['margin']:g}" + (f" ({origin})" if origin else "")


def _mean(values: Sequence[Any]) -> float:
    return sum(map(float, values)) / len(values)


def _power(seeds: int) -> tuple[float, float]:
    return 100 * statistics.power(seeds, 1.0), 100 * statistics.power(seeds, 2.0)


def _grid(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown with aligned columns."""
    cells = [list(header), *([cell.replace("|", "/") for cell in row] for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    lines = [
        "| " + " | ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) + " |"
        for row in cells
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)
