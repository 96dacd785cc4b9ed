"""The only place where names in a config become functions.

A config is data. Every name in it is looked up in a table, and every key is checked before anything
is computed: a misspelt one is refused with the nearest valid name.
"""

from jaxdistill.build._names import named, without
from jaxdistill.build.condense import KERNELS, SETS, kernel_named
from jaxdistill.build.distillers import DISTILLERS, distiller
from jaxdistill.build.evaluators import BATCH, EVALUATORS, evaluator
from jaxdistill.build.language import BETWEEN, TOKENIZERS, between
from jaxdistill.build.objectives import (
    LOSSES,
    PROJECTORS,
    match,
    stored,
    student_taps,
    target,
    target_paths,
)
from jaxdistill.build.records import (
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
from jaxdistill.build.schedules import SCHEDULES, schedule
from jaxdistill.build.training import NETS, OPTIMIZERS, module, net, transformation

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
