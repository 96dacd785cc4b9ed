"""Networks that somebody has trained: read from safetensors, written for others to open."""

from jaxdistill.models.pretrained.differences import DIFFERENCES
from jaxdistill.models.pretrained.loading import (
    FAMILIES,
    Pretrained,
    export,
    is_published,
    load,
    module_of,
)

__all__ = [
    "DIFFERENCES",
    "FAMILIES",
    "Pretrained",
    "export",
    "is_published",
    "load",
    "module_of",
]
