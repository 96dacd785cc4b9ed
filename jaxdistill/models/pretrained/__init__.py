"""Published networks: read from safetensors, and written for other libraries to open."""

from jaxdistill.models.pretrained.differences import DIFFERENCES
from jaxdistill.models.pretrained.exporting import Forms, export, forms_of, with_positions
from jaxdistill.models.pretrained.families import FAMILIES
from jaxdistill.models.pretrained.loading import Pretrained, is_published, load, module_of
from jaxdistill.models.pretrained.own import OURS

__all__ = [
    "DIFFERENCES",
    "FAMILIES",
    "OURS",
    "Forms",
    "Pretrained",
    "export",
    "forms_of",
    "is_published",
    "load",
    "module_of",
    "with_positions",
]
