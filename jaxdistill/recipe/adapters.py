"""The adapters of a run, as files of peft and diffusers."""

from __future__ import annotations

import shutil
from pathlib import Path

from jaxdistill import lora, registry
from jaxdistill._files import give_name
from jaxdistill.config import stage_settings
from jaxdistill.models import pretrained
from jaxdistill.models.pretrained.own import OURS
from jaxdistill.recipe.planned import Restored
from jaxdistill.recipe.running import restore
from jaxdistill.students.exporting import refuse_filled


def export_adapters(
    workdir: Path | str,
    out: Path | str,
    *,
    style: lora.Style = "peft",
    prefix: str = "transformer",
) -> Path:
    """Writes the adapters that a run's last stage has learnt, see :func:`lora.save_adapters`.

    Args:
        workdir: of the run.
        out: the folder to make; it must be empty or not be there.
        style: ``"peft"`` or ``"diffusers"``.
        prefix: of names for diffusers.

    Returns:
        The folder.

    Raises:
        ValueError: for a run whose last net is not ``lora``, for adapters of a net that has
            adapters itself, and a folder that is not empty.
    """
    out = refuse_filled(out)
    found = restore(workdir)
    settings = stage_settings(found.config)
    *_, last = found.config["recipe"]
    part = settings[last]["student"]
    stage = registry.adapts(part)
    if stage is None:
        raise ValueError(
            f"the student of {workdir} has no adapters, as its net is {part.get('net')!r}: those "
            "of the net 'lora' are for --to=peft and --to=diffusers"
        )
    if registry.shared(settings[stage]["student"]):
        raise ValueError(
            f"the adapters of {workdir} are of the net of {stage!r}, which shares its weights with "
            "others itself: no file of adapters can say so"
        )
    base = restore(workdir, stage)
    scale = lora.scale_of(**{k: part[k] for k in ("rank", "alpha", "scale") if k in part})
    own = lora.adapters_of((found.params["own"], found.state))
    checkpoint = settings[stage]["checkpoint"]
    name = str(checkpoint) if pretrained.is_published(checkpoint) else ""
    beside = out.with_name(f"{out.name}.part")
    shutil.rmtree(beside, ignore_errors=True)
    lora.save_adapters(beside, own, scale, _published(base), style=style, prefix=prefix, base=name)
    if out.is_dir():  # an empty one
        out.rmdir()
    give_name(beside, out)
    return out


def _published(base: Restored) -> lora.Published:
    """The net that adapters are of, by its first form in Transformers, or by its own paths."""
    module, variables = base.module, (base.params, base.state)
    if module is None:
        return lora.Published(None, variables, OURS)
    # Names are all that is asked for: positions that are computed may be of an image of any size.
    side = getattr(module, "patch", 1)
    form, arrays = pretrained.with_positions(module, variables, (side, side, 3))
    forms = (name for name in pretrained.forms_of(form, arrays).there if ":" not in name)
    architecture = next(forms, OURS)
    return (
        lora.Published(module, variables, OURS)
        if architecture == OURS
        else lora.Published(form, arrays, architecture)
    )
