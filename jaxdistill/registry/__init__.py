"""The only place where names in a config become functions.

A config is data. Every name in it is looked up in a table, and every key is checked before anything
is computed: a misspelt one is refused with the nearest valid name.
"""

from jaxdistill.registry._names import named, without
from jaxdistill.registry.condense import KERNELS, SETS, kernel_named
from jaxdistill.registry.distillers import DISTILLERS, distiller
from jaxdistill.registry.evaluators import BATCH, EVALUATORS, evaluator
from jaxdistill.registry.language import BETWEEN, TOKENIZERS, between
from jaxdistill.registry.objectives import (
    LOSSES,
    PROJECTORS,
    match,
    stored,
    student_taps,
    target,
    target_paths,
)
from jaxdistill.registry.records import (
    AUGMENTATIONS,
    DATA,
    MIXES,
    data,
    fixed_view,
    pool,
    records,
    seen,
    view,
)
from jaxdistill.registry.schedules import SCHEDULES, schedule
from jaxdistill.registry.training import NETS, OPTIMIZERS, module, net, transformation

__all__ = [
    "AUGMENTATIONS",
    "BATCH",
    "BETWEEN",
    "DATA",
    "DISTILLERS",
    "EVALUATORS",
    "KERNELS",
    "LOSSES",
    "MIXES",
    "NETS",
    "OPTIMIZERS",
    "PROJECTORS",
    "SCHEDULES",
    "SETS",
    "TOKENIZERS",
    "between",
    "data",
    "distiller",
    "evaluator",
    "fixed_view",
    "kernel_named",
    "match",
    "module",
    "named",
    "net",
    "pool",
    "records",
    "schedule",
    "seen",
    "stored",
    "student_taps",
    "target",
    "target_paths",
    "transformation",
    "view",
    "without",
]
