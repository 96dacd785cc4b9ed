"""The card of a student, in Markdown: what it is worth, what it costs, how to use it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

# What can be done with an output of a kind, for the snippet.
_TASKS = {"classes": "classification", "next": "text-generation", "features": "feature-extraction"}
_UNITS = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def card(said: Mapping[str, Any], form: str | None, module: str | None) -> str:
    """The card of a student.

    Args:
        said: what ``config.json`` says of it under ``"jaxdistill"``.
        form: its published form, or None.
        module: the class of its net, or None where it is none of this library.
    """
    parts = [
        _front(said, form),
        f"# {said['title']}",
        said["sentence"],
        _table(said),
        "## Use",
        _snippet(said),
        *(_elsewhere(said, form) if form else ()),
        *_function(said),
        "## What it is",
        _facts(said, form, module),
        *_made(said),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _front(said: Mapping[str, Any], form: str | None) -> str:
    """What hubs of models read."""
    kind = said["preprocessing"]["kind"]
    library = "timm" if (form or "").startswith("timm:") else "transformers" if form else None
    task = _TASKS.get(said["kind"])
    prefix = {"images": "image-", "texts": "text-"}.get(kind, "")
    if task and said["kind"] != "next":
        task = f"{prefix}{task}" if kind in ("images", "texts") else None
        if said["kind"] == "features" and kind == "texts":
            task = "feature-extraction"
    lines = ["---", f"library_name: {library or 'jaxdistill'}"]
    lines += [f"pipeline_tag: {task}"] if task else []
    return "\n".join([*lines, "tags:", "- distillation", "- jaxdistill", "---"])


def _table(said: Mapping[str, Any]) -> str:
    """Results and costs, the student beside its teachers."""
    names = list(said["costs"])
    rows = [
        [metric, *(_number(values.get(name)) for name in names)]
        for metric, values in said["results"].items()
    ]
    costs = said["costs"].values()
    rows += [
        ["parameters", *(_short(each["parameters"]) for each in costs)],
        ["size of the weights", *(f"{_short(each['bytes'], ' ')}B" for each in costs)],
        ["operations of a forward pass", *(_short(each["operations"]) for each in costs)],
        ["shortest time of a forward pass", *(_time(each["seconds"]) for each in costs)],
    ]
    heads = ["", *("student" if n == "student" else f"teacher: {n}" for n in names)]
    if len(names) == 2:
        heads = ["", "student", "teacher"]
    where = ", ".join(dict.fromkeys(each["device"] for each in costs))
    processor = said["environment"].get("processor", "")
    if "cpu" in where.lower() and processor:
        where = processor
    note = f"Of one example; times were measured on {where}, compiled, when this folder was made."
    return f"{_markdown(heads, rows)}\n\n{note}"


def _markdown(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heads, ["---", *("---:" for _ in heads[1:])], *rows]
    return "\n".join(f"| {' | '.join(map(_cell, line))} |" for line in lines)


def _cell(text: str) -> str:
    return str(text).replace("|", "\\|").replace("\n", " ")


def _snippet(said: Mapping[str, Any]) -> str:
    """Five lines that run in this folder."""
    seen, lines = said["preprocessing"], []
    if seen["kind"] == "texts":
        given = '("a text", "another one")' if seen["pairs"] else '"a text", "another one"'
        lines = [f"texts = [{given}]"]
        name = "texts"
    elif seen["kind"] == "images" and said["kind"] != "samples":
        shape = (1, *seen["size"], seen["channels"])
        lines = [f"images = np.zeros({shape}, np.uint8)  # of any size; or names of files"]
        name = "images"
    else:
        arrays = {
            key: f"np.zeros({(2, *about['shape'][1:])}, {about['dtype']!r})"
            for key, about in said["inputs"].items()
        }
        whole = "{" + ", ".join(f"{key!r}: {array}" for key, array in arrays.items()) + "}"
        name = "inputs"
        lines = [f"inputs = {arrays['inputs'] if list(arrays) == ['inputs'] else whole}"]
    numpy = ["import numpy as np"] if "np." in lines[0] else []
    call = "outputs" if said["kind"] == "samples" else "predict"
    code = [
        *numpy,
        "from jaxdistill import students",
        "",
        'student = students.load(".")  # this folder',
        *lines,
        f"print(student.{call}({name}))",
    ]
    words = {
        "classes": "Of each input the probabilities of the classes, the likeliest first.",
        "next": "Of each text the probabilities of the token that follows, the likeliest first.",
        "scores": "Of each input its scores.",
        "features": "Of each input its features, an array.",
        "samples": "The net's own inputs to its outputs: an array of standard normal noise becomes "
        "samples.",
    }
    return f"```python\n{chr(10).join(code)}\n```\n\n{words[said['kind']]}"


def _elsewhere(said: Mapping[str, Any], form: str) -> list[str]:
    """How other libraries open the same folder."""
    if form.startswith("timm:"):
        code = (
            "import timm\n\n"
            'model = timm.create_model("local-dir:.", pretrained=True).eval()  # this folder\n'
            "config = timm.data.resolve_model_data_config(model)\n"
            "transform = timm.data.create_transform(**config, is_training=False)"
        )
        return [f"[timm](https://github.com/huggingface/pytorch-image-models) opens it:\n\n"
                f"```python\n{code}\n```"]  # fmt: skip
    kind = said["preprocessing"]["kind"]
    processor = {"images": "AutoImageProcessor", "texts": "AutoTokenizer"}.get(kind)
    names = ", ".join(filter(None, (form, processor)))
    lines = [f"from transformers import {names}", ""]
    lines += [f'prepare = {processor}.from_pretrained(".")'] if processor else []
    lines += [f'model = {form}.from_pretrained(".").eval()  # this folder']
    code = "\n".join(lines)
    return [f"[Transformers](https://github.com/huggingface/transformers) opens it:\n\n"
            f"```python\n{code}\n```"]  # fmt: skip


def _function(said: Mapping[str, Any]) -> list[str]:
    inputs = ", ".join(
        f"`{name}` {about['dtype']} `[{', '.join(map(str, about['shape']))}]`"
        for name, about in said["inputs"].items()
    )
    code = (
        "from pathlib import Path\n\nimport jax.export\n\n"
        'content = Path("student.jaxexport").read_bytes()\n'
        "function = jax.export.deserialize(bytearray(content)).call"
    )
    return [
        "Without this library, with JAX alone, `student.jaxexport` is the net with its weights as "
        f"a function (StableHLO for CPU, CUDA and TPU) of {inputs}:\n\n```python\n{code}\n```"
    ]


def _facts(said: Mapping[str, Any], form: str | None, module: str | None) -> str:
    seen = said["preprocessing"]
    facts = [f"Net: {module or 'of another program'}" + (f", as `{form}`" if form else "") + "."]
    if seen["kind"] == "images":
        normalised = "not normalised"
        if seen["mean"] is not None:
            normalised = f"normalised by mean {seen['mean']} and deviation {seen['std']}"
        height, width = seen["size"]
        facts.append(
            f"Images: the square in the middle, resized to {height} x {width} (bicubic), "
            f"{seen['channels']} channel{'s' if seen['channels'] > 1 else ''}, in [0, 1], "
            f"{normalised}."
        )
    if seen["kind"] == "texts":
        written = seen["tokenizer"]
        facts.append(
            f"Texts: at most {seen['length']} tokens of {written['vocabulary']} "
            f"({'bytes' if written['name'] == 'bytes' else 'tokenizer.json'})."
        )
    names = list(said["class_names"])
    if names:
        shown = ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "")
        facts.append(f"{'Classes' if said['kind'] == 'classes' else 'Outputs'}: {shown}.")
    return "\n".join(f"- {fact}" for fact in facts)


def _made(said: Mapping[str, Any]) -> list[str]:
    """What made it, and with which versions."""
    versions = {k: said["environment"][k] for k in ("jax", "flax") if k in said["environment"]}
    words = ", ".join(f"{name} {version}" for name, version in versions.items())
    found = ["## How it was made"]
    if said["command"]:
        found.append(f"```bash\n{said['command']}\n```")
    return [*found, f"By jaxdistill {said['version']}, {words}."]


def _number(value: float | None) -> str:
    return "" if value is None else json.dumps(float(f"{value:.4g}"))


def _short(value: float | None, space: str = "") -> str:
    if not value:
        return "" if value is None else "0"
    for size, unit in _UNITS:
        if value >= size:
            return f"{value / size:.3g}{space}{unit}"
    return f"{value:.0f}{space}"


def _time(seconds: float | None) -> str:
    if seconds is None:
        return ""
    return f"{1e3 * seconds:.3g} ms" if seconds >= 1e-3 else f"{1e6 * seconds:.3g} µs"
