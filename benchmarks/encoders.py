"""Sentence pairs a second: sentences encoded apart against a net that reads each pair at once.

All of N sentences against all of M. The net that reads pairs makes N M passes, of which some
batches are timed and the rest reckoned; the other one encodes N + M sentences and scores all
embeddings (``models.compared``), and is timed whole. Weights are random.

    python benchmarks/encoders.py                  # 200 x 200, of nets of two sizes
    python benchmarks/encoders.py --sentences 1000
    python benchmarks/encoders.py --smoke

Target: at least 20 times the pairs a second at 200 x 200.
Prints a table, then one JSON object; exits with 1 when the target is missed.
"""

from __future__ import annotations

import sys
from typing import Any

import jax
import jax.numpy as jnp
from _measure import compiled, finish, in_turn, median_ms, parser, quartiles, table

from jaxdistill.models import SentencePair, TextEncoder, compared

TARGET, BATCH = 20, 40
SIZES: dict[str, dict[str, Any]] = {
    "width 64, 4 blocks": {"width": 64, "heads": 4, "hidden": 128, "depth": 4},
    "BERT-mini (256, 4)": {"width": 256, "heads": 4, "depth": 4},
}
TINY = {"smallest": {"width": 16, "heads": 2, "depth": 2}}


def row(size: dict[str, Any], sentences: int, length: int, timed: int, repeats: int) -> Any:
    """Pairs a second of both, and their ratio."""
    own: dict[str, Any] = {"vocabulary": 2000, "positions": length, **size}
    whole = TextEncoder(head="classes", classes=1, **own)
    apart = SentencePair(TextEncoder(head="sentence", top=2, first=False, **own), classes=1)
    tokens = jax.random.randint(jax.random.key(0), (BATCH, length), 3, 2000)
    half = jnp.arange(length)[None] >= length // 2
    pairs = {"tokens": tokens, "mask": jnp.ones_like(tokens)}
    pairs["types"] = jnp.broadcast_to(half.astype(jnp.int32), tokens.shape)
    alone = {"tokens": tokens[:, : length // 2], "mask": pairs["mask"][:, : length // 2]}
    read = whole.init(jax.random.key(1), pairs)
    held = apart.init(jax.random.key(2), pairs)
    score = compiled(whole.apply, read, pairs)
    embed = compiled(lambda v, x: apart.apply(v, x, method="embed"), held, alone)
    found = jnp.tile(embed.call(held, alone), (sentences // BATCH, 1))
    against = compiled(lambda v, a, b: compared(apart, v, a, b), held, found, found)

    def reading() -> Any:
        return [score.call(read, pairs) for _ in range(timed)]

    def comparing() -> Any:
        texts = [embed.call(held, alone) for _ in range(2 * sentences // BATCH)]
        middle = len(texts) // 2
        return against.call(held, jnp.concatenate(texts[:middle]), jnp.concatenate(texts[middle:]))

    times = in_turn({"pairs": reading, "apart": comparing}, repeats)
    many = sentences**2 / (timed * BATCH)
    both = zip(times["pairs"], times["apart"], strict=True)
    low, middle, high = quartiles([many * a.wall / b.wall for a, b in both])
    return {
        "pairs_a_second": timed * BATCH / median_ms(times["pairs"]) * 1e3,
        "apart_a_second": sentences**2 / median_ms(times["apart"]) * 1e3,
        "ratio": middle,
        "quartiles": [low, high],
        "temporary_mib": against.memory["temporary_mib"],
        "temporary_mib_of_pairs": score.memory["temporary_mib"],
    }


def main() -> int:
    made = parser(__doc__)
    made.add_argument("--sentences", type=int, default=200, help="of each side")
    made.add_argument("--length", type=int, default=64, help="tokens of a pair")
    made.add_argument("--repeats", type=int, default=5)
    options = made.parse_args()
    if options.sentences % BATCH:
        made.error(f"--sentences={options.sentences} is no multiple of {BATCH}")
    sizes, sentences, repeats = SIZES, options.sentences, options.repeats
    if options.smoke:
        sizes, sentences, repeats = TINY, BATCH, 1
    timed = 2 if options.smoke else 10
    rows = {name: row(s, sentences, options.length, timed, repeats) for name, s in sizes.items()}
    shown = [
        (
            name,
            f"{r['pairs_a_second']:,.0f}",
            f"{r['apart_a_second']:,.0f}",
            f"{r['ratio']:.0f} ({r['quartiles'][0]:.0f} to {r['quartiles'][1]:.0f})",
            f"{r['temporary_mib']:.0f}",
        )
        for name, r in rows.items()
    ]
    columns = ("nets", "read at once, pairs/s", "apart, pairs/s", "times as many", "MiB")
    print(table(columns, shown), end="\n\n")
    missed = [
        f"{name}: {r['ratio']:.1f} times the pairs a second, at least {TARGET}"
        for name, r in rows.items()
        if r["ratio"] < TARGET
    ]
    return finish("encoders", options, {"all_against_all": rows}, missed)


if __name__ == "__main__":
    sys.exit(main())
