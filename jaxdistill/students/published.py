"""What timm and Transformers want to know beside config and weights: classes, pixels, tokens."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from jaxdistill.data.tokenizers import Tokenizer
from jaxdistill.published import Preprocessing, timm_preprocessing, transformers_preprocessor
from jaxdistill.students.seeing import Images, Seeing, Texts

# Classes of Transformers that have no names for what they tell apart.
_WRITING = ("ForCausalLM", "LMHeadModel")
_NAMELESS = ("Model", "ForMaskedLM", "ForPreTraining", *_WRITING)


def about(architecture: str, class_names: Sequence[str], seeing: Seeing) -> dict[str, Any]:
    """Entries of ``config.json`` besides those that follow from the net.

    Args:
        architecture: its name in ``pretrained.FAMILIES``.
        class_names: in order; empty where there are none.
        seeing: what the net sees.
    """
    if not architecture.startswith("timm:"):
        if isinstance(seeing, Texts) and architecture.endswith(_WRITING):
            # Without them a class takes those of its first release, and stops at another token.
            end, start = seeing.tokenizer.end, seeing.tokenizer.start
            return {"bos_token_id": end if start is None else start, "eos_token_id": end}
        if not class_names or architecture.endswith(_NAMELESS):
            return {}
        return {
            "id2label": {str(number): name for number, name in enumerate(class_names)},
            "label2id": {name: number for number, name in enumerate(class_names)},
        }
    found: dict[str, Any] = {"label_names": list(class_names)} if class_names else {}
    if isinstance(seeing, Images):
        found["pretrained_cfg"] = timm_preprocessing(_preprocessing(seeing))
    return found


def files(seeing: Seeing) -> dict[str, str]:
    """The further files that Transformers reads, by name: how images or texts are prepared."""
    if isinstance(seeing, Images):
        return {"preprocessor_config.json": _as_text(_processor(seeing))}
    if isinstance(seeing, Texts) and seeing.tokenizer.definition:
        return {
            "tokenizer.json": _with_ends(seeing),
            "tokenizer_config.json": _as_text(_tokenizer_config(seeing)),
        }
    return {}


def token_name(definition: str, number: int) -> str:
    """How a token is written, by its number.

    Raises:
        ValueError: for a number that no token has.
    """
    said = json.loads(definition)
    for token in said.get("added_tokens") or ():
        if token["id"] == number:
            return token["content"]
    vocabulary = said["model"].get("vocab") or {}
    pairs = (
        vocabulary.items()
        if isinstance(vocabulary, dict)
        else ((name, place) for place, (name, _) in enumerate(vocabulary))
    )
    for name, place in pairs:
        if place == number:
            return name
    raise ValueError(f"the tokenizer has no token {number}")


def _preprocessing(seeing: Images) -> Preprocessing:
    """What is done to images, as others say it: of nothing mean 0 and deviation 1."""
    size, none = min(seeing.size), seeing.mean is None or seeing.std is None
    resize = seeing.stored if seeing.cut and seeing.stored else size
    mean = (0.0,) * seeing.channels if none else tuple(seeing.mean or ())
    std = (1.0,) * seeing.channels if none else tuple(seeing.std or ())
    return Preprocessing(size, resize, seeing.fit == "stretch", mean, std, seeing.resample)


def _processor(seeing: Images) -> dict[str, Any]:
    height, width = seeing.size
    return {
        "image_processor_type": "CLIPImageProcessor",  # resizes, then cuts the middle
        **transformers_preprocessor(_preprocessing(seeing)),
        "do_center_crop": True,
        "crop_size": {"height": height, "width": width},
        "do_normalize": seeing.mean is not None,
        "do_convert_rgb": seeing.channels == 3,
    }


def _with_ends(seeing: Texts) -> str:
    """A ``tokenizer.json`` that puts start and end tokens where the student saw them."""
    written: Tokenizer = seeing.tokenizer
    said = json.loads(written.definition)
    said["truncation"] = said["padding"] = None
    end = token_name(written.definition, written.end)
    number = written.end if written.start is None else written.start
    start = token_name(written.definition, number)

    def token(name: str, kind: int) -> dict[str, Any]:
        return {"SpecialToken": {"id": name, "type_id": kind}}

    def text(name: str, kind: int) -> dict[str, Any]:
        return {"Sequence": {"id": name, "type_id": kind}}

    one = [token(start, 0), text("A", 0)]
    two = [*one, text("B", 0)]
    if seeing.form == "whole":
        one = [*one, token(end, 0)]
        two = [*one, text("B", 1), token(end, 1)]
    ids = {start: number, end: written.end}
    marks = {name: {"id": name, "ids": [i], "tokens": [name]} for name, i in ids.items()}
    template = {"type": "TemplateProcessing", "single": one, "pair": two, "special_tokens": marks}
    known = said.get("post_processor")
    if known and known["type"] == "Sequence":
        kept = [part for part in known["processors"] if part["type"] == "ByteLevel"]
    else:
        kept = [known] if known and known["type"] == "ByteLevel" else []
    said["post_processor"] = (
        {"type": "Sequence", "processors": [*kept, template]} if kept else template
    )
    return json.dumps(said, ensure_ascii=False)


def _tokenizer_config(seeing: Texts) -> dict[str, Any]:
    written = seeing.tokenizer
    end = token_name(written.definition, written.end)
    names = ["input_ids", "attention_mask"]
    found = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": seeing.length,
        "pad_token": end,
        "padding_side": "right",
        "clean_up_tokenization_spaces": False,
        "model_input_names": [*names, *(["token_type_ids"] if seeing.pairs else [])],
    }
    if written.start is None:
        return {**found, "eos_token": end, "bos_token": end}
    start = token_name(written.definition, written.start)
    return {**found, "sep_token": end, "cls_token": start}


def _as_text(data: Any) -> str:
    return json.dumps(data, indent=2, allow_nan=False) + "\n"
