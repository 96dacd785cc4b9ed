"""What published methods train between student and teacher that is more than one projector.

Each of the functions gives an :class:`~jaxdistill.objective.Objective` around a loss of
:mod:`jaxdistill.losses`, with the small nets, variances and memory banks of the method. None of
them is part of the result. ``student`` and ``target`` name arrays, see
:func:`jaxdistill.objective.lookup`; where there are several, they go from the first layer to the
last. :func:`extended` gives a trained net one more head, which a stage of its own trains.
"""

from jaxdistill.connectors.bank import contrastive
from jaxdistill.connectors.extended import Embedding, Paraphraser, extended, translator
from jaxdistill.connectors.methods import (
    flow,
    knowledge_review,
    overhauled,
    prime_aware,
    simple_recipe,
    variational,
)

__all__ = [
    "Embedding",
    "Paraphraser",
    "contrastive",
    "extended",
    "flow",
    "knowledge_review",
    "overhauled",
    "prime_aware",
    "simple_recipe",
    "translator",
    "variational",
]
