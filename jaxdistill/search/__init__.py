"""Work that trains nothing: what a later stage should weigh, select or start from."""

from jaxdistill.search.weights import guided_weights, transfer_weights

__all__ = ["guided_weights", "transfer_weights"]
