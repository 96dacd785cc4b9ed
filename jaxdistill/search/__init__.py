"""Work that trains nothing: what a later stage should weigh, select or start from."""

from jaxdistill.search.selection import class_selection, joint_selection, selection_precision
from jaxdistill.search.weights import guided_weights, transfer_weights

__all__ = [
    "class_selection",
    "guided_weights",
    "joint_selection",
    "selection_precision",
    "transfer_weights",
]
