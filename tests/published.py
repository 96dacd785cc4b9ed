"""The networks of goldens/pretrained, and how to ask them; see make.py there.

    python tests/published.py FOLDER ...

asks folders that make.py wrote, such as those of networks of full size, and prints how far their
answers are from the original's, relative to the largest absolute value of each array.
"""

import importlib.util
import json
import shutil
import sys
import tempfile
from functools import cache, partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from safetensors.numpy import save_file

from jaxdistill import models
from jaxdistill.frameworks.linen import from_linen
from jaxdistill.models.decoder import Decoder
from jaxdistill.models.resnet import ResNet

GOLDENS = Path(__file__).parent / "goldens" / "pretrained"
NAMES = sorted(folder.name for folder in GOLDENS.iterdir() if (folder / "case.npz").exists())
# Encoders whose outputs there are hidden states, here the mean of them if nothing else is asked.
BARE = ("BertModel", "RobertaModel", "DistilBertModel", "ElectraModel", "ModernBertModel")
TEMPORARY = tempfile.TemporaryDirectory()
UNREAD = ("pooler.*",)


@cache
def folder(name):
    """The folder of a network; weights that are not stored are drawn anew from their names."""
    if not (GOLDENS / name / "shapes.json").exists():
        return GOLDENS / name  # a name that is a folder elsewhere stays it
    spec = importlib.util.spec_from_file_location("make", GOLDENS / "make.py")
    make = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(make)
    found = Path(TEMPORARY.name) / name
    found.mkdir()
    shutil.copy(GOLDENS / name / "config.json", found)
    shapes = json.loads((GOLDENS / name / "shapes.json").read_text())
    weights = {key: make.drawn(key, tuple(shape)) for key, shape in shapes.items()}
    save_file(weights, found / "model.safetensors")
    return found


def opened(name, **settings):
    names = json.loads((folder(name) / "config.json").read_text()).get("architectures", ())
    bare = {"head": "none"} if set(names) & set(BARE) else {}
    return models.load(folder(name), allow=UNREAD, **{**bare, **settings})


def opened_in_bfloat16(name):
    """With weights and computation in bfloat16."""
    found = opened(name, dtype=jnp.bfloat16)
    return found._replace(net=from_linen(found.module.clone(dtype=jnp.bfloat16)))


def case(name):
    """What a network was given and what it answered."""
    there = dict(np.load(GOLDENS / name / "case.npz"))
    names = json.loads((GOLDENS / name / "config.json").read_text()).get("architectures", ())
    if set(names) & {"ViTModel", "DeiTModel"}:  # without a head the output is what is pooled
        there["out"] = there["out"][:, 0]
    return there


def asked(found, there, dtype=None):
    """The taps by the names of answers, the inputs, and a mask of where answers are compared."""
    module = found.module
    given = {key: there[key] for key in ("image", "tokens", "mask", "types") if key in there}
    where = there.get("mask")
    if dtype is not None and "image" in given:
        given["image"] = given["image"].astype(dtype)
    if "noise" in there:
        given["keep"] = np.argsort(there["noise"], axis=1)[:, :4]
    if isinstance(module, models.CLIP):
        taps = {
            f"{tower}_hidden_{i}": f"{tower}/{inside}block_{i}"
            for tower, inside in (("image", "encoder/"), ("text", ""))
            for i in range(getattr(module, tower)["depth"])
        }
        return taps, given, where
    if isinstance(module, models.MobileNetV3):
        paths = [f"stage_{i + 1}" for i in range(len(module.stages()))]
    elif isinstance(module, ResNet | models.ConvNeXt):
        paths = [f"stage_{i + 1}" for i in range(len(module.blocks))]
    elif isinstance(module, models.ModernBert):
        paths = [f"block_{i}" for i in range(module.depth - 1)] + ["norm"]
    elif isinstance(module, Decoder):
        del given["mask"]
        # The last state is published behind the norm.
        paths = [f"layers_{i}" for i in range(module.depth - 1)] + ["norm"]
    else:
        inside = "encoder/" if "image" in there else ""
        paths = [f"{inside}block_{i}" for i in range(module.depth)]
    return {f"hidden_{i}": path for i, path in enumerate(paths)}, given, where


def outputs(out):
    """What a net says, by the names of answers."""
    if not isinstance(out, dict):
        return {"out": out}
    names = {"logits": "logits", "image": "image_embedding", "text": "text_embedding"}
    return {names.get(key, "out"): value for key, value in out.items() if key != "tokens"}


def answers(found, there, dtype=None):
    """The output and the hidden states of a network, and a mask of where they are compared."""
    taps, given, where = asked(found, there, dtype)
    apply = jax.jit(partial(found.net.apply, taps=tuple(taps.values())))
    forward = apply(found.params, found.state, given)
    return {key: forward.taps[tap] for key, tap in taps.items()} | outputs(forward.out), where


def largest_error(mine, theirs, where=None):
    """Relative to the largest absolute value of theirs."""
    mine, theirs = np.asarray(mine, np.float32), np.asarray(theirs)
    if where is not None and theirs.shape[:2] == where.shape:
        mine, theirs = mine[where], theirs[where]
    return np.abs(mine - theirs).max() / np.abs(theirs).max()


def main():
    for name in map(Path, sys.argv[1:]):
        there = case(name.resolve())
        for kind, found in (("float32", opened), ("bfloat16", opened_in_bfloat16)):
            dtype = jnp.bfloat16 if kind == "bfloat16" else None
            arrays, where = answers(found(name.resolve()), there, dtype)
            errors = {key: largest_error(array, there[key], where) for key, array in arrays.items()}
            worst = max(errors, key=errors.get)
            out = max(errors[key] for key in errors if "hidden" not in key)
            print(
                f"{name.name:40} {kind:8} {len(errors):3} arrays, output {out:.1e}, "
                f"worst {worst} {errors[worst]:.1e}",
                flush=True,
            )


if __name__ == "__main__":
    main()
