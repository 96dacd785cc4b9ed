"""Low-rank adapters: what the kernels of a trained net gain, as pairs of thin matrices.

A student of :func:`adapted` is its frozen teacher and such pairs beside its layers. The weights of
the teacher exist once, and only the pairs are trained, checkpointed and kept. :func:`merged` adds
them to the weights for good, :func:`together` makes one set of several, and
:func:`save_adapters` and :func:`load_adapters` write and read the files of peft and diffusers.
"""

from jaxdistill.lora.files import CONFIG, STYLES, Published, Style, load_adapters, save_adapters
from jaxdistill.lora.students import BASES, adapted, adapters_of, scale_of
from jaxdistill.lora.trees import (
    Kernel,
    check_fit,
    kernels,
    merged,
    numbers,
    start,
    together,
    unmerged,
)

__all__ = [
    "BASES",
    "CONFIG",
    "STYLES",
    "Kernel",
    "Published",
    "Style",
    "adapted",
    "adapters_of",
    "check_fit",
    "kernels",
    "load_adapters",
    "merged",
    "numbers",
    "save_adapters",
    "scale_of",
    "start",
    "together",
    "unmerged",
]
