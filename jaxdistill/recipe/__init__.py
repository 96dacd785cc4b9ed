"""Recipes: an ordered list of stages from a config, each handing its result on to later ones.

A stage's folder is named by a hash of all that its result depends on (its own part of the config,
the data, the seed, and the stages it builds on), so that arms and runs that share a stage share its
result.
"""

from jaxdistill.recipe.adapters import export_adapters
from jaxdistill.recipe.arms import check_claim, metrics
from jaxdistill.recipe.planned import Plan, Planned, Restored, folder
from jaxdistill.recipe.planning import plan, refuse_too_large, shapes, step_flops
from jaxdistill.recipe.resolving import resolve, settled
from jaxdistill.recipe.running import finished, restore, run
from jaxdistill.recipe.stage_cache import cache_of, cached_stages, open_cache, write_cache
from jaxdistill.recipe.stages import stage_of
from jaxdistill.recipe.student import costs_of, write_student
from jaxdistill.recipe.summary import summary, table

__all__ = [
    "Plan",
    "Planned",
    "Restored",
    "cache_of",
    "cached_stages",
    "check_claim",
    "costs_of",
    "export_adapters",
    "finished",
    "folder",
    "metrics",
    "open_cache",
    "plan",
    "refuse_too_large",
    "resolve",
    "restore",
    "run",
    "settled",
    "shapes",
    "stage_of",
    "step_flops",
    "summary",
    "table",
    "write_cache",
    "write_student",
]
