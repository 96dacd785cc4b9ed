"""Prints the table of all losses: ``python -m jaxdistill.losses > docs/losses.md``."""

from __future__ import annotations

import inspect

from jaxdistill import losses

_INTRODUCTION = """# Losses

Written by `python -m jaxdistill.losses > docs/losses.md` from the code; a test compares the two.

Every loss is a pure function of arrays, `loss(student, teacher, [labels,] *, hyper_parameters)`,
and needs nothing else of this library.

- **Reduction.** A loss is *per example*, *per token*, or belongs to the *batch*. The first two
  return one value for each, not reduced: average what counts. A batch loss returns a scalar and takes
  `where`, true where an example counts, so that padding never enters it; with nothing that counts
  it is 0.
- **Temperature.** A loss with a temperature is multiplied by its square, always. Public code that
  leaves the factor out is listed as *divided by T^2*.
- **Precision.** bfloat16 and float16 are widened to float32, float64 is kept; products of matrices
  ask for the highest precision.
- **Gradient.** Nothing is stopped but what the formula stops.
- **Hard values.** Large and saturated logits, zero rows, equal rows, a batch of one, a student that
  equals its teacher, nothing that counts: finite value, finite gradient, and what the last column
  says. *-inf* means that the loss accepts it in the teacher, for a class that is ruled out.
- **Meshes.** A batch loss means the global batch, on Auto and on Explicit meshes.

`s` and `t` are student and teacher; in formulas of losses on logits, their softmax. `y` is the
label.
"""

_COLUMNS = (
    "loss",
    "formula",
    "for each",
    "normaliser",
    "equal to (under)",
    "invariant to",
    "hard values",
    "paper",
)


def table() -> str:
    """The page as Markdown."""
    lines = [_INTRODUCTION]
    entries = losses.catalogue()
    for family in dict.fromkeys(entry.family for entry in entries):
        lines += [f"## {family.capitalize()}", "", _row(_COLUMNS), _row(["---"] * len(_COLUMNS))]
        lines += [_row(_cells(entry)) for entry in entries if entry.family == family]
        lines.append("")
    lines += [
        "## Fused",
        "",
        "Sums over tokens, from hidden states and heads: logits exist for a few tokens at a time,",
        "and the gradient is taken in the forward pass. Divide by the number of tokens. There is",
        "no second derivative.",
        "",
        *_described(losses.FUSED),
        "",
        "## Used with losses",
        "",
        *_described(losses.NOT_LOSSES),
    ]
    return "\n".join(lines) + "\n"


def _described(names):
    for name in names:
        first = inspect.getdoc(getattr(losses, name)).split("\n\n")[0]
        yield f"- `{name}`: {' '.join(first.split())}"


def _cells(entry):
    hard = [f"{case}: {value}" for case, value in entry.hard.items() if value != "finite"]
    if entry.zero_at_equality and "equal" not in entry.hard:
        hard.append("equal: 0")
    if entry.accepts_neginf:
        hard.append("-inf")
    if entry.remarks:
        hard.append(entry.remarks)
    return (
        f"`{entry.loss.__name__}`" + (f" ({entry.label})" if entry.label else ""),
        f"`{entry.formula}`",
        entry.kind.removeprefix("per "),
        entry.normaliser,
        "; ".join(f"{peer} ({how})" if how else peer for peer, how in entry.equal_to),
        entry.invariances,
        "; ".join(hard),
        entry.paper,
    )


def _row(cells):
    return "| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |"


if __name__ == "__main__":
    print(table(), end="")
