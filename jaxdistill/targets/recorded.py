"""Targets that records carry: the most probable tokens of the teacher that wrote them."""

from __future__ import annotations

from jaxdistill._errors import unknown
from jaxdistill.records.conversations import TOP
from jaxdistill.targets.live import Targets


def recorded() -> Targets:
    """The most probable tokens that the teacher gave when it wrote the records.

    Returns:
        A function to ``{"out": {"ids": int32 [B, T, k], "log_probs": float32 [B, T, k]}}``, as a
        cache of some classes gives them; ``-inf`` is padding, and where a record has none there is
        nothing else.

    Raises:
        ValueError: while tracing, for records of teachers that gave none.
    """

    def targets(sources, batch, key, step):
        for name in TOP:
            if name not in batch:
                raise ValueError(
                    unknown("key of the batch", name, batch)
                    + " Records have it whose teacher was asked for its most probable tokens (top)."
                )
        ids, log_probs = (batch[name] for name in TOP)
        return {"out": {"ids": ids, "log_probs": log_probs}}

    return targets
