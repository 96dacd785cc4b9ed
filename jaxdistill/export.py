"""Takes the student of a run elsewhere.

    jaxdistill export runs/mae --to=timm --out=runs/mae_for_timm
    jaxdistill export runs/mae --to=stablehlo --raw --out=runs/mae_function
    jaxdistill export runs/text --to=peft --out=runs/text_adapter

For timm and Transformers it makes a folder that these open, with classes and preprocessing or
tokenizer; for safetensors the arrays by their paths in this library, with the settings of the net;
for StableHLO the net with its weights as one function, which JAX alone can run. For peft and
diffusers it makes a folder with the adapters alone of a run whose student is the net ``lora``.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from absl import app, flags

from jaxdistill._command_flags import OUT
from jaxdistill._errors import unknown
from jaxdistill.main import guarded, parsed

TO = flags.DEFINE_string(
    "to", None, "timm, transformers, safetensors, stablehlo, or, of adapters, peft or diffusers"
)
RAW = flags.DEFINE_bool("raw", False, "of stablehlo: a function of uint8 images of any size")
PREFIX = flags.DEFINE_string(
    "prefix", "transformer", "of diffusers: the part of a pipeline, such as unet"
)


def main(argv: list[str]) -> None:
    """The command line."""
    sys.exit(guarded(lambda: _export(argv[1:])))


def _export(words: Sequence[str]) -> int:
    if len(words) != 1:
        raise ValueError("which student? jaxdistill export <workdir> --to=... --out=<folder>")
    from jaxdistill import lora, recipe, students

    targets = (*students.TARGETS, *lora.STYLES)
    if TO.value is None or OUT.value is None:
        missing = "--out=<folder>" if TO.value else f"--to=<{', '.join(targets)}>"
        raise ValueError(f"where to? Give {missing}")
    if TO.value not in targets:
        raise ValueError(unknown("target of an export", TO.value, targets))
    if TO.value in lora.STYLES:
        style: lora.Style = "peft" if TO.value == "peft" else "diffusers"
        folder = recipe.export_adapters(words[0], OUT.value, style=style, prefix=PREFIX.value)
    else:
        folder = students.export(words[0], to=TO.value, out=OUT.value, raw=RAW.value)
    print(f"{folder}:", *sorted(file.name for file in folder.iterdir()))
    return 0


if __name__ == "__main__":
    app.run(main, flags_parser=parsed)
