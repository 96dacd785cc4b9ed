"""Own text: a published decoder taught to a smaller one on anybody's text.

No paper's recipe, but a start for most. A published decoder (Llama, Mistral, Qwen, Gemma, GPT-2; a
folder, or a name on the Hugging Face hub) and texts of one's own: a folder of .txt files, or a file
of JSON lines or Parquet (``--config.data.path``). On one device, or divided over all there are:

    python -m jaxdistill.main --config=configs/own_text.py --workdir=runs/own_text
        --config.teacher=Qwen/Qwen3-0.6B --config.student=half --config.data.dir=<folder>

The student is given the teacher's tokens and learns its distribution on the text, from its forward
passes or from disk (``--config.cached=True``), or on what it writes itself
(``--config.own_text=0.5`` of every batch). Students are ``half``, ``three_quarters`` or ``quarter``
of the teacher's layers, from which they start, or a new ``decoder_300m`` and its like. At the end
it drafts for its teacher, by speculative decoding. Without ``teacher`` a larger decoder is trained
on the text first. In minutes, on the source of Python's library if no text is given:

    python -m jaxdistill.main --config=configs/own_text.py:small --workdir=runs/own_text_small

Expect ``acceptance``, the share of its tokens that the teacher would have written, to say how close
it came; ``block_efficiency`` is how many tokens a call of the teacher then gives.
"""

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from jaxdistill import published as networks
from jaxdistill.presets import FULLY_SHARDED, chosen, language, own, recipe
from jaxdistill.presets.language import adamw, learning


def published(student, **flags) -> dict:
    """At the scale of a GPU or more."""
    student = student or ("half" if flags["teacher"] else "decoder_100m")
    larger = own.text_student("decoder_300m", "", None, None)["student"]
    return built(larger, 512, 5_000, 32, 16, student=student, **flags)


def small(data, student, **flags) -> dict:
    """Of minutes: few steps on short texts, and of a small decoder unless others are given."""
    student = student or ("half" if flags["teacher"] else language.decoder(64, 1))
    if not (data.get("dir") or data.get("path")):
        data = {**language.standard_library(), **data}
    flags |= {"data": data, "student": student}
    return built(language.decoder(128, 2), 64, 300, 32, 4, **flags)


def built(
    larger, length, most, batch, batches, *, teacher, student, data, batch_size, **flags
) -> dict:
    """The recipe for a teacher and texts; what is not said of them is read from its folder."""
    loss, own_text, cached = (flags[key] for key in ("loss", "own_text", "cached"))
    steps, length = flags["steps"] or most, data.get("length", length)
    batch = batch_size or batch
    about = networks.text_teacher(teacher) if teacher else None
    known = (about.vocabulary, about.depth) if about else (None, None)
    measured = {"loss": language.next_token(batch, batches)}
    stages = {"teacher": {"checkpoint": teacher}}
    if not teacher:
        how = {"evaluate": measured, "batch_size": batch}
        stages["teacher"] = learning(larger, most, adamw(1e-3, most // 10), **how)
    prompt = max(length // 4, 1)
    drafting = {"evaluator": "drafting", "against": "teacher", "prompt": prompt, "block": 4}
    drafting |= {"new": max(length // 2, 1), "batch_size": batch, "batches": batches}
    learns = {"frozen": ("teacher",), "divergence": {"name": loss, "weight": 1.0}}
    if own_text:
        learns["writing"] = {"prompt": prompt, "share": own_text}
    if cached:
        # Some draws of every distribution: what is learnt from them is unbiased.
        codec = {"codec": "sampled", "draws": 50, "missing": "sparse"}
        learns["cached"] = {"outputs": {"out": codec}}
        learns["divergence"]["missing"] = "sampled"
    there = own.text_student(student, teacher, *known)
    rate = 1e-4 if "initial" in there else 1e-3
    stages["distil"] = learning(
        distiller=learns,
        steps=steps,
        optimizer=adamw(rate, min(steps // 10, 500)),
        evaluate={**measured, "drafting": {**drafting, "sets": ("validation", "test")}},
        batch_size=batch,
        log_every=min(50, max(steps // 20, 1)),
        checkpoint_every=max(steps // 10, 1),
        **there,
    )
    return recipe(
        title=own.titled("Own text", teacher, student),
        sentence="A smaller decoder learns from a larger one on one's own text.",
        data=read(data, length, teacher),
        stages=stages,
        mesh=FULLY_SHARDED,
        rules=language.SHARED_OUT,
    )


def read(data, length, teacher) -> dict:
    """How texts are read: by what their place is called, in the tokens of the teacher."""
    path = data.get("path", "")
    kind = ("parquet" if path.endswith(".parquet") else "json_lines") if path else "text_files"
    tokenizer = {"name": "file", "path": teacher} if teacher else {"name": "bytes"}
    given = data.get("tokenizer") or {}
    tokenizer = dict(given) if "name" in given else {**tokenizer, **given}
    held_out = {"validation": 0.05, "test": 0.05}
    return {"name": kind, "length": length, **held_out, **data, "tokenizer": tokenizer}


VARIANTS = {"": published, "small": small}


def get_config(
    variant: str = "",
    *,
    teacher: str = "",
    student: str | Mapping[str, Any] | None = None,
    data: Mapping[str, Any] | None = None,
    loss: str = "forward_kl",
    own_text: float = 0.0,
    cached: bool = False,
    steps: int | None = None,
    batch_size: int | None = None,
) -> ConfigDict:
    """The recipe for one's teacher, student and text, or with ``small`` one of minutes."""
    flags = {"teacher": teacher, "student": student, "data": dict(data or {}), "loss": loss}
    flags |= {"own_text": own_text, "cached": cached, "steps": steps}
    flags["batch_size"] = batch_size
    return chosen(VARIANTS, variant, __file__, **flags)
