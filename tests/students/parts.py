"""Students of every kind, in small."""

import jax
import numpy as np
from PIL import Image

import jaxdistill as jd
from jaxdistill import models, students
from jaxdistill.data.text import byte_tokenizer

DRAW = np.random.default_rng(0)
BYTES = byte_tokenizer()
NAMES_OF_TWO = ("cat", "dog")
TEXT = {"vocabulary": 257, "width": 8, "depth": 2, "heads": 2}
DECODER = {"decoder_width": 8, "decoder_depth": 1, "decoder_heads": 2}
IMAGE = DRAW.uniform(size=(1, 8, 8, 3)).astype(np.float32)


def started(module, inputs):
    shapes = jax.eval_shape(module.init, jax.random.key(0), inputs)
    whole = jax.tree.map(lambda x: DRAW.normal(0, 0.3, x.shape).astype(x.dtype), shapes)
    return whole.pop("params"), whole


def saved(root, module, inputs, about, name="student"):
    """A folder of a Linen module with weights of its own."""
    result = started(module, inputs)
    net = jd.from_linen(module)
    return students.save(root / name, net, result, inputs, about, module=module), net, result


def image_file(path, size=(12, 9), seed=1):
    """A smooth picture as a file."""
    small = np.random.default_rng(seed).integers(0, 256, (3, 4, 3)).astype(np.uint8)
    Image.fromarray(small).resize(size, Image.Resampling.BICUBIC).save(path)
    return path


SEEN = students.Images((8, 8), 3, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
VIT = models.ViT(patch=4, width=8, depth=1, heads=2, classes=2, pool="mean")
CLASSIFIER = students.About("classes", class_names=NAMES_OF_TWO, seeing=SEEN, title="Cats")


KINDS = {
    "mae": (
        models.MAE(patch=4, width=8, depth=1, heads=2, **DECODER), IMAGE,
        students.About(read="out/tokens", seeing=students.Images((8, 8), 3)), IMAGE, (8,),
    ),
    "maps": (
        models.ConvNeXt(blocks=(1,), widths=(4,), classes=0, patch=2), IMAGE,
        students.About(read="stage_1", seeing=students.Images((8, 8), 3)), IMAGE, (4,),
    ),
    "text": (
        models.TextEncoder(**TEXT, positions=16, head="classes", classes=2),
        {"tokens": np.zeros((1, 12), np.int32), "mask": np.ones((1, 12), bool)},
        students.About("classes", class_names=NAMES_OF_TWO,
                       seeing=students.Texts(12, "whole", False, BYTES)),
        ["a text", "another one, too long to be seen as a whole"], {*NAMES_OF_TWO},
    ),
    "masked": (
        models.TextEncoder(**TEXT, positions=16, head="masked"),
        {"tokens": np.zeros((1, 12), np.int32), "mask": np.ones((1, 12), bool)},
        students.About(read="block_1", seeing=students.Texts(12, "whole", False, BYTES)),
        "a text", (8,),
    ),
    "pairs": (
        models.TextEncoder(**TEXT, positions=16, head="classes", classes=1),
        {"tokens": np.zeros((1, 12), np.int32), "mask": np.ones((1, 12), bool),
         "types": np.zeros((1, 12), np.int32)},
        students.About("scores", class_names=("score",),
                       seeing=students.Texts(12, "whole", True, BYTES)),
        [("a", "b"), ("a text", "another")], {"score"},
    ),
    "decoder": (
        models.Decoder(**TEXT), np.zeros((1, 12), np.int32),
        students.About("next", seeing=students.Texts(12, "beginning", False, BYTES)),
        ["a text", "a much longer text than the net can see"], 5,
    ),
    "vectors": (
        models.MLP(widths=(4,), classes=2), np.zeros((1, 5), np.float32),
        students.About("scores", class_names=("a", "b")), np.ones((3, 5), np.float32), {"a", "b"},
    ),
}  # fmt: skip
