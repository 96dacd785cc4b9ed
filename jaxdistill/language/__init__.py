"""Language models: writing text, speculative decoding, distillation on what the student writes."""

from jaxdistill.language.capacity import CapacityLaw, fit_capacity_law
from jaxdistill.language.evaluation import drafting, next_token
from jaxdistill.language.generation import Generated, empty_cache, generate
from jaxdistill.language.objective import (
    divergence_per_token,
    labels_per_token,
    sparse_divergence_per_token,
    teacher_states,
)
from jaxdistill.language.on_policy import OnPolicyState, on_policy
from jaxdistill.language.sampling import Sampling, log_probabilities
from jaxdistill.language.speculative import (
    Acceptance,
    Speculated,
    acceptance_probabilities,
    block_efficiency,
    speculate,
    wall_clock_factor,
)

__all__ = [
    "Acceptance",
    "CapacityLaw",
    "Generated",
    "OnPolicyState",
    "Sampling",
    "Speculated",
    "acceptance_probabilities",
    "block_efficiency",
    "divergence_per_token",
    "drafting",
    "empty_cache",
    "fit_capacity_law",
    "generate",
    "labels_per_token",
    "log_probabilities",
    "next_token",
    "on_policy",
    "sparse_divergence_per_token",
    "speculate",
    "teacher_states",
    "wall_clock_factor",
]
