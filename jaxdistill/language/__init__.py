"""Language models: writing text, speculative decoding, distillation on what the student writes."""

from jaxdistill.language.generation import Generated, empty_cache, generate
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
    "Generated",
    "Sampling",
    "Speculated",
    "acceptance_probabilities",
    "block_efficiency",
    "empty_cache",
    "generate",
    "log_probabilities",
    "speculate",
    "wall_clock_factor",
]
