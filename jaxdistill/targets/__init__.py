"""What a student learns from.

Every target is one function ``targets(sources, batch, key, step) -> {name: array}``: ``sources``
holds the frozen teachers and, from the state of the run, ``"ema"`` and ``"self"``. The step cannot
tell a live teacher from an ensemble, an average of itself, or labels.
"""

from jaxdistill.targets.cached import attach, cached
from jaxdistill.targets.live import ensemble, labels, live, merge, snapshot_every
from jaxdistill.targets.recorded import recorded
from jaxdistill.targets.served import served

__all__ = [
    "attach",
    "cached",
    "ensemble",
    "labels",
    "live",
    "merge",
    "recorded",
    "served",
    "snapshot_every",
]
