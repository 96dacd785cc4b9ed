"""Language models: writing text, speculative decoding, distillation on what the student writes."""

from jaxdistill.language.acceptance import (
    Acceptance,
    acceptance_probabilities,
    block_efficiency,
    wall_clock_factor,
)
from jaxdistill.language.answering import answered
from jaxdistill.language.capacity import CapacityLaw, fit_capacity_law
from jaxdistill.language.conversing import Play, conversed
from jaxdistill.language.evaluation import drafting, next_token
from jaxdistill.language.generation import Generated, empty_cache, generate
from jaxdistill.language.learning import Divergence, Teacher, language_model
from jaxdistill.language.objective import (
    divergence_per_token,
    labels_per_token,
    sparse_divergence_per_token,
    teacher_states,
)
from jaxdistill.language.on_policy import OnPolicyState, Writing, on_policy
from jaxdistill.language.rewarded import rewarded
from jaxdistill.language.sampling import Sampling, log_probabilities
from jaxdistill.language.speculative import Speculated, speculate
from jaxdistill.language.tasks import labels_per_task, multitask_token_ce
from jaxdistill.language.teacher import decoder_teacher

__all__ = [
    "Acceptance",
    "CapacityLaw",
    "Divergence",
    "Generated",
    "OnPolicyState",
    "Play",
    "Sampling",
    "Speculated",
    "Teacher",
    "Writing",
    "acceptance_probabilities",
    "answered",
    "block_efficiency",
    "conversed",
    "decoder_teacher",
    "divergence_per_token",
    "drafting",
    "empty_cache",
    "fit_capacity_law",
    "generate",
    "labels_per_task",
    "labels_per_token",
    "language_model",
    "log_probabilities",
    "multitask_token_ce",
    "next_token",
    "on_policy",
    "rewarded",
    "sparse_divergence_per_token",
    "speculate",
    "teacher_states",
    "wall_clock_factor",
]
