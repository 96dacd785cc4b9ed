"""Duplicates: equal texts, and texts that share most of their pieces. The first by id stays."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import numpy as np

from jaxdistill.data.content import row_hashes
from jaxdistill.progress import shown
from jaxdistill.records.steps import BALANCED, SAMPLES, UNIQUE, Decision, deciding, needs_package
from jaxdistill.records.texts import Text, jaccard, normal, pieces, text_of
from jaxdistill.settings import Count, Fraction, Positive

# Standard deviations by which an estimate may be too low for a pair still to be looked at.
_BELOW = 4.0


@deciding(gives=(UNIQUE,), undoes=(SAMPLES, BALANCED), requests=True)
def exact_duplicates(items: Sequence[Any], seed: int, *, of: Text = "prompt") -> list[Decision]:
    """Drops what repeats a text, whatever its case and spaces are.

    Of several answers to one request, with ``of="prompt"``, one remains.

    Args:
        items: records or requests.
        seed: not used.
        of: which text is compared.
    """
    first: dict[bytes, str] = {}
    found = []
    for each in items:
        text = normal(text_of(each, of)).encode("utf-8", "surrogatepass")
        original = first.setdefault(hashlib.blake2b(text, digest_size=16).digest(), each.id)
        same = original != each.id
        found.append(Decision(each, False, 1.0, "duplicate", original) if same else Decision(each))
    return found


def a_share(said: Mapping[str, Any]) -> str:
    """What is wrong with a threshold that must be a share."""
    high = said["threshold"] > 1
    return f"threshold={said['threshold']} must be at most 1" if high else ""


def _sketched(said: Mapping[str, Any]) -> str:
    return a_share(said) or needs_package("datasketch", "near_duplicates")


@deciding(gives=(UNIQUE,), undoes=(SAMPLES, BALANCED), requests=True, check=_sketched)
def near_duplicates(
    items: Sequence[Any],
    seed: int,
    *,
    of: Text = "prompt",
    threshold: Positive = 0.7,
    n: Count = 5,
    unit: Literal["characters", "words"] = "characters",
    permutations: Count = 128,
    found: Fraction = 0.95,
    sketch_seed: Count = 1,
) -> list[Decision]:
    """Drops what shares most of its n-grams with a record that stays.

    MinHash proposes pairs (Broder, 1997; bands of its values as in Leskovec et al., Mining of
    Massive Datasets, chapter 3; the sketches of datasketch, scheme ``affine32``), and the exact
    Jaccard similarity of their sets of n-grams decides.

    Args:
        items: records or requests.
        seed: not used: what is found must not depend on where the step stands.
        of: which text is compared.
        threshold: the similarity, up to 1, from which two are the same.
        n: units in a piece.
        unit: characters, or words.
        permutations: values of a sketch.
        found: the share of pairs exactly at the threshold that is proposed at least; pairs above it
            are found more often.
        sketch_seed: of the permutations.

    Raises:
        ImportError: without the extra ``records``.
    """
    sets = [pieces(text_of(each, of), n, unit) for each in shown(items, "cut", "records")]
    sketches = _sketches(sets, permutations, sketch_seed)
    shared = _bands(sketches, rows_of_a_band(threshold, permutations, found))
    slack = _BELOW * (threshold * (1 - threshold) / permutations) ** 0.5
    buckets: dict[tuple[int, int], list[int]] = {}
    decisions = []
    for number, each in enumerate(items):
        own = [(band, key) for band, key in shared.get(number, ())]
        proposed = sorted({other for key in own for other in buckets.get(key, ())})
        twin, similarity = _twin(number, proposed, sets, sketches, threshold, slack)
        if twin is not None:
            decisions.append(Decision(each, False, similarity, "near duplicate", items[twin].id))
            continue
        decisions.append(Decision(each))
        for key in own:
            buckets.setdefault(key, []).append(number)
    return decisions


def rows_of_a_band(threshold: float, permutations: int, found: float) -> int:
    """How many values of a sketch must agree for a pair to be proposed: as many as possible while
    pairs at the threshold are still proposed with probability ``found``.

    Example:
        >>> rows_of_a_band(0.7, 128, 0.95)
        5
    """
    for rows in range(permutations, 1, -1):
        if 1 - (1 - threshold**rows) ** (permutations // rows) >= found:
            return rows
    return 1


def _sketches(sets: Sequence[np.ndarray], permutations: int, seed: int) -> np.ndarray:
    """MinHash values, uint32 ``[n, permutations]``."""
    from datasketch import MinHash

    # Pieces are numbers already.
    new = MinHash(permutations, seed, hashfunc=_itself, scheme="affine32")
    found = np.empty((len(sets), permutations), np.uint32)
    start = new.hashvalues.copy()
    for number, each in enumerate(shown(sets, "sketch", "records")):
        new.hashvalues = start.copy()
        if len(each):
            new.update_batch((each >> np.uint64(32)).tolist())
        found[number] = new.hashvalues
    return found


def _itself(value: Any) -> Any:
    return value


def _bands(sketches: np.ndarray, rows: int) -> dict[int, list[tuple[int, int]]]:
    """Of each record the bands that it shares with another: ``(band, value)``."""
    shared: dict[int, list[tuple[int, int]]] = {}
    for band in range(sketches.shape[1] // rows):
        keys = row_hashes(sketches[:, band * rows : (band + 1) * rows])
        order = np.argsort(keys, kind="stable")
        ranked = keys[order]
        same = np.zeros(len(keys), bool)
        same[1:] = ranked[1:] == ranked[:-1]
        same[:-1] |= same[1:].copy()
        for place in order[same].tolist():
            shared.setdefault(place, []).append((band, int(keys[place])))
    return shared


def _twin(
    number: int,
    proposed: Sequence[int],
    sets: Sequence[np.ndarray],
    sketches: np.ndarray,
    threshold: float,
    slack: float,
) -> tuple[int | None, float]:
    """The first proposed record that is similar enough, and how similar."""
    if not proposed:
        return None, 0.0
    estimates = (sketches[proposed] == sketches[number]).mean(1)
    likely: Iterable[int] = np.asarray(proposed)[estimates >= threshold - slack].tolist()
    for other in likely:
        similarity = jaccard(sets[number], sets[other])
        if similarity >= threshold:
            return other, similarity
    return None, 0.0
