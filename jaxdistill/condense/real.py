"""The real records that a set is condensed from, whole on the device."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdistill.data.augment import to_float
from jaxdistill.data.records import Source
from jaxdistill.evaluation.batches import frozen_entry


class Real(NamedTuple):
    """Images ``[N, H, W, C]``, floating, and labels ``[N]``."""

    images: jax.Array
    labels: jax.Array


def real_set(frozen: Mapping[str, Any], name: str, classes: int) -> Real:
    """The records under a name in the frozen variables, or of a set that can be read whole.

    Raises:
        ValueError: if there are none, or they have no ``image`` and ``label``.
    """
    records: Any = frozen_entry(frozen, name)
    if isinstance(records, Source):
        records = records.gather(np.arange(len(records)))
    for key in ("image", "label"):
        if key not in records:
            raise ValueError(f"records {name!r} have no {key!r}: they hold {sorted(records)}")
    labels = jnp.asarray(records["label"])
    if not jnp.issubdtype(labels.dtype, jnp.integer) or labels.ndim != 1 or classes < 2:
        raise ValueError(
            "data sets are condensed by their classes: labels must be integers [N] of 2 classes "
            f"or more, got {labels.dtype} {labels.shape} of {classes}"
        )
    return Real(to_float(records["image"]), labels)
