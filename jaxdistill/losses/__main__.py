"""Prints the table of all losses: ``python -m jaxdistill.losses > docs/losses.md``."""

from __future__ import annotations

import inspect
import re

from jaxdistill import losses

_INTRODUCTION = """# Losses

Written by `python -m jaxdistill.losses > docs/losses.md` from the code; a test compares the two,
and `jaxdistill.testing.check_loss` tests for every loss what its row says.

Every loss is a pure function of arrays, `loss(student, teacher, [labels,] *, hyper_parameters)`,
and can be used without the rest of this library. Arrays are channels last.

- **Reduction.** A loss is *per example*, *per token*, or belongs to the *batch*. The first two
  return one value for each, not reduced: average what counts. A batch loss returns a scalar and
  takes `where`, true where an example counts, so that padding never enters it; if nothing counts
  it is 0.
- **Temperature.** A divergence between softened outputs is always multiplied by the square of its
  temperature. Public code that leaves the factor out is listed as *divided by T^2*. The temperature
  of a contrast (`info_nce`, `clip`, `nt_xent`, `crd`) only scales the similarities.
- **Precision.** bfloat16 and float16 are widened to float32, float64 is kept; matrix products use
  the highest precision.
- **Not finite.** NaN, or plus infinity, in a row that counts gives a value that is not finite. The
  finite values for *-inf*, zero rows and saturated logits are in the last column. A side that rules
  every class out has no distribution: the value is NaN, the gradient zero.
- **Masks.** What is masked changes neither value nor gradient, even if it is NaN: a batch loss
  takes `where`, a loss of tokens `mask`, `jaxdistill.objective.match` masks whatever it reads, and
  `losses.masked(loss)` gives any loss per example a `where`. Selecting values after the loss is not
  enough: where the derivative of a dropped value is NaN, its product with a zero gradient is too.
- **Labels.** A label that is no class (-1, -100, K or more) gives 0, value and gradient, whatever
  its row holds; in a batch loss the example does not count.
- **Empty.** An empty batch is a `ValueError` that says so.
- **Gradient.** Gradients are stopped only where the formula says so.
- **Hard values.** Large and saturated logits, zero rows, equal rows, a batch of one, a student that
  equals its teacher, nothing that counts: value and gradient are finite, and the last column says
  more. *-inf* means that the loss accepts it in the teacher, for a class that is ruled out.
- **Meshes.** A batch loss means the global batch, on Auto and on Explicit meshes.

`s` and `t` are student and teacher; in formulas of losses on logits, their softmax. `y` is the
label, `T` a temperature, `n` how many examples count. `forward_kl` is another name of `hinton_kd`.
"""

_ENDING = """## Public code that is not matched

Four public functions share a name with a loss above and differ on purpose:

- KD_Lib's attention loss leaves out the sum over channels, so that it compares features, not
  attention.
- torchdistill's `DISTPlusLoss` adds the correlation of channels where it should take it from one.
- torchdistill's `KDLoss` drops the factor T^2 when its `alpha` is 0 or None: divide `hinton_kd` by
  T^2 to get its value.
- torchdistill's `SPKDLoss` divides rows of the Gram matrix by their L1 norm; the paper, and
  `similarity_preserving`, by their L2 norm.
"""

# What is used with losses, and the public code that it equals.
_EQUAL = {
    "minillm_advantages": "TRL `_compute_advantage` (masked_length=1e-4; without its normalisation "
    "length_normalised=False, times gamma^i)",
    "cwsm_temperature": "TextBrewer `cwsm_temperature_scheduler`",
    "flsw_temperature": "TextBrewer `flsw_temperature_scheduler`",
    "review_fuse": "the fusing step of mdistiller `ABF`, gates being the sigmoid of its convolution"
    " of the feature and `review_enlarge` of the residual",
    "overhaul_margin": "mdistiller `OFD.init_ofd_modules`",
    "top_k_agreement": "big_vision `agree`",
    "crd_calibrate": "RepDistiller `ContrastMemory`, its first call",
    "crd_update": "RepDistiller `ContrastMemory`, its update",
}

_FORMULAS = ("loss", "formula", "for each", "normaliser", "paper")
_BEHAVIOUR = ("loss", "equal to (under)", "invariant to", "hard values")


def table() -> str:
    """The page as Markdown."""
    lines = [_INTRODUCTION]
    entries = losses.catalogue()
    for family in dict.fromkeys(entry.family for entry in entries):
        lines += [f"## {family.capitalize()}", ""]
        for columns, cells in ((_FORMULAS, _formulas), (_BEHAVIOUR, _behaviour)):
            lines += [_row(columns), _row(["---"] * len(columns))]
            lines += [_row(cells(entry)) for entry in entries if entry.family == family]
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
        "",
        _row(("function", "equal to")),
        _row(("---", "---")),
        *(_row((f"`{name}`", peer)) for name, peer in _EQUAL.items()),
        "",
        _ENDING.rstrip(),
    ]
    return "\n".join(lines) + "\n"


def _described(names):
    for name in names:
        first = str(inspect.getdoc(getattr(losses, name))).split("\n\n")[0]
        plain = re.sub(r":\w+:`~?(?:[\w.]*\.)?(\w+)`", r"`\1`", " ".join(first.split()))
        yield f"- `{name}`: {plain.replace('``', '`')}"


def _name(entry):
    return f"`{entry.loss.__name__}`" + (f" ({entry.label})" if entry.label else "")


def _formulas(entry):
    each = entry.kind.removeprefix("per ")
    return _name(entry), f"`{entry.formula}`", each, entry.normaliser, entry.paper


def _behaviour(entry):
    equal = "; ".join(f"{peer} ({how})" if how else peer for peer, how in entry.equal_to)
    hard = [
        f"{case}: {value if isinstance(value, str) else f'{value:g}'}"
        for case, value in entry.hard.items()
    ]
    if entry.zero_at_equality and "equal" not in entry.hard:
        hard.append("equal: 0")
    if entry.accepts_neginf:
        hard.append("-inf")
    if entry.remarks:
        hard.append(entry.remarks)
    return _name(entry), equal, entry.invariances, "; ".join(hard)


def _row(cells):
    return "| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |"


if __name__ == "__main__":
    print(table(), end="")
