"""Claims of configs: what they ask, what measured arms answer, and what is kept and said of it."""

from jaxdistill.claims.answered import answer, finite_values
from jaxdistill.claims.asked import (
    arms_of,
    candidates_of,
    margin_of,
    metric_of,
    refuse,
    refuse_others,
    refuse_unmeasured,
)
from jaxdistill.claims.seeds import (
    digest_of,
    environments,
    read_seed,
    refuse_other_configs,
    write_seed,
)
from jaxdistill.claims.text import ENOUGH, TUNING_SEED, notes, table

__all__ = [
    "ENOUGH",
    "TUNING_SEED",
    "answer",
    "arms_of",
    "candidates_of",
    "digest_of",
    "environments",
    "finite_values",
    "margin_of",
    "metric_of",
    "notes",
    "read_seed",
    "refuse",
    "refuse_other_configs",
    "refuse_others",
    "refuse_unmeasured",
    "table",
    "write_seed",
]
