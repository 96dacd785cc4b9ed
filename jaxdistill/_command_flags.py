"""Flags that several commands have."""

from absl import flags

OUT = flags.DEFINE_string("out", None, "the file or folder that is written")
