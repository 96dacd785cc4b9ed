"""Arrays on disk, one row of bytes a record: what a teacher gave, or anything else that is dear to
compute.

A store is written once, part by part, and read in any order. It knows whose arrays it holds: every
row carries the identity of its record, and the manifest says of which teacher, data, preprocessing
and codec it is, so that opening it for anything else is refused.
"""

from jaxdistill.store.codecs import CODECS, Codec, densify
from jaxdistill.store.containers import CONTAINERS, Container
from jaxdistill.store.layout import Layout
from jaxdistill.store.reader import Damaged, Store, open_store
from jaxdistill.store.writer import Unfinished, begin

__all__ = [
    "CODECS",
    "CONTAINERS",
    "Codec",
    "Container",
    "Damaged",
    "Layout",
    "Store",
    "Unfinished",
    "begin",
    "densify",
    "open_store",
]
