"""Published networks: read from safetensors, and written for other libraries to open."""

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
