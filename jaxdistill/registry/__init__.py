"""The only place where names in a config become functions.

A config is data. Every name in it is looked up in a table of entries, functions ``(context, *,
keywords)``: the context is what the runner has to offer, the keywords are the keys of a config, and
each is checked against its domain before anything is computed. A misspelt name or key is refused
with the nearest valid one.
"""

from jaxdistill.registry.condense import KERNELS, kernel_named
from jaxdistill.registry.context import Context
from jaxdistill.registry.data import DATA, data
from jaxdistill.registry.distillers import DISTILLERS, distiller
from jaxdistill.registry.entries import checked, named, record, schedule, without
from jaxdistill.registry.evaluators import BATCH, EVALUATORS, Evaluated, evaluated, evaluator
from jaxdistill.registry.language import TOKENIZERS
from jaxdistill.registry.nets import NETS, adapts, lifted, net, net_module, shared
from jaxdistill.registry.objectives import (
    CRITICS,
    LOSSES,
    PROJECTORS,
    TARGETS,
    match,
    stored,
    student_taps,
    target,
    target_paths,
)
from jaxdistill.registry.optimizers import OPTIMIZERS, transformation
from jaxdistill.registry.record_steps import EMBEDDERS, STEPS, steps
from jaxdistill.registry.record_teachers import TEACHERS
from jaxdistill.registry.records import pool, records
from jaxdistill.registry.samplers import BACKBONES, DENSITIES
from jaxdistill.registry.schedules import SCHEDULES
from jaxdistill.registry.tasks import MEASURES, PLAYS, SCORES, SCRIPTS, TASKS
from jaxdistill.registry.views import (
    AUGMENTATIONS,
    MASKS,
    MIXES,
    OF_A_BATCH,
    fixed_view,
    seen,
    view,
)
from jaxdistill.registry.works import BETWEEN, WORKS, between, needed, work

TABLES = {
    "augmentation": AUGMENTATIONS,
    "backbone": BACKBONES,
    "critic": CRITICS,
    "data set": DATA,
    "density": DENSITIES,
    "distiller": DISTILLERS,
    "embedder": EMBEDDERS,
    "evaluator": EVALUATORS,
    "kernel": KERNELS,
    "kind of targets": TARGETS,
    "loss": LOSSES,
    "mask": MASKS,
    "measure of records": MEASURES,
    "mix": MIXES,
    "net": NETS,
    "optimizer": OPTIMIZERS,
    "play": PLAYS,
    "projector": PROJECTORS,
    "schedule": SCHEDULES,
    "score of answers": SCORES,
    "script": SCRIPTS,
    "step of records": STEPS,
    "task": TASKS,
    "teacher of records": TEACHERS,
    "tokenizer": TOKENIZERS,
    "work": WORKS,
    "work between steps": BETWEEN,
}
"""Every table of names, by what its names are names of."""

__all__ = [
    "BATCH",
    "DATA",
    "OF_A_BATCH",
    "TABLES",
    "Context",
    "Evaluated",
    "adapts",
    "between",
    "checked",
    "data",
    "distiller",
    "evaluated",
    "evaluator",
    "fixed_view",
    "kernel_named",
    "lifted",
    "match",
    "named",
    "needed",
    "net",
    "net_module",
    "pool",
    "record",
    "records",
    "schedule",
    "seen",
    "shared",
    "steps",
    "stored",
    "student_taps",
    "target",
    "target_paths",
    "transformation",
    "view",
    "without",
    "work",
]
