"""Chat templates: a conversation as one text.

Published tokenizers carry a template in Jinja. It is run in a sandbox that has no clock and no
files, so that the same conversation is the same text every time.
"""

from __future__ import annotations

import dataclasses
import datetime
import functools
import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxdistill._errors import listed, unknown
from jaxdistill._hub import folder_of
from jaxdistill.data.documents import json_of, text_of
from jaxdistill.records.canonical import identity
from jaxdistill.records.requests import Message

_FILES = ("tokenizer_config.json", "chat_template.jinja", "chat_template.json")
_SPECIAL = ("bos_token", "eos_token", "pad_token", "unk_token")


@dataclasses.dataclass(frozen=True)
class Template:
    """How a conversation becomes one text.

    Attributes:
        source: in Jinja, over ``messages``, ``add_generation_prompt`` and the special tokens.
        special: tokens by the names that it uses, such as ``{"eos_token": "</s>"}``.
        variables: what else it reads, such as ``{"enable_thinking": False}``.
        today: the date, where it asks for one; there is no clock.
        name: what errors call it.

    Raises:
        ImportError: without the extra ``records``.
        ValueError: if it is no Jinja, or reads no roles.

    Example:
        >>> each = "{{ m.role }}: {{ m.content }}\\n"
        >>> template = Template("{% for m in messages %}" + each + "{% endfor %}")
        >>> template.render([Message("user", "Hello!")])
        'user: Hello!\\n'
    """

    source: str
    special: Mapping[str, str] = dataclasses.field(default_factory=dict)
    variables: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    today: datetime.date | None = None
    name: str = "chat template"

    def __post_init__(self):
        _compiled(self.source, self.name)
        if not re.search(r"\brole\b", self.source):
            raise ValueError(
                f"{self.name} has no roles: it does not read message.role, so nothing would tell "
                "whose text is whose"
            )

    @property
    def fingerprint(self) -> str:
        """A name for what it does."""
        day = self.today.isoformat() if self.today else ""
        return identity(self.source, self.special, self.variables, day)

    def render(self, messages: Sequence[Message], *, generation: bool = False) -> str:
        """The text of a conversation.

        Args:
            messages: the conversation.
            generation: whether it ends with what an answer begins with.

        Raises:
            ValueError: for what the template refuses, such as two messages of one role in a row.
        """
        said = [(each.role, each.content) for each in messages]
        return self.text(said, generation=generation)

    def text(self, said: Sequence[tuple[str, str]], *, generation: bool = False) -> str:
        """The same of role and content of every message."""
        from jinja2 import TemplateError

        given = {
            **self.special,
            **self.variables,
            "messages": [{"role": role, "content": content} for role, content in said],
            "add_generation_prompt": generation,
        }
        if self.today is not None:
            given["strftime_now"] = self.today.strftime
        try:
            return _compiled(self.source, self.name).render(given)
        except (TemplateError, TypeError, AttributeError, KeyError, IndexError) as fault:
            hint = ""
            if "strftime_now" in str(fault):
                hint = ": it asks for a date, give it one by today=datetime.date(...)"
            raise ValueError(
                f"{self.name} refuses this conversation of {listed([r for r, _ in said])}: "
                f"{fault}{hint}"
            ) from fault


def template_of(
    path: str | os.PathLike,
    *,
    name: str = "default",
    variables: Mapping[str, Any] | None = None,
    today: datetime.date | None = None,
) -> Template:
    """The template that a published tokenizer carries.

    Args:
        path: its folder, or ``owner/name`` on the hub (extra ``hf``).
        name: which one, where it carries several.
        variables: what the template reads besides.
        today: the date, where it asks for one.

    Raises:
        FileNotFoundError: if the folder has no template.
        ValueError: for an unknown ``name``, and a template that is none.
    """
    folder = folder_of(path, _FILES)
    said = _said(folder / "tokenizer_config.json")
    found = _sources(folder, said)
    if not found:
        raise FileNotFoundError(
            f"{folder} carries no chat template: neither chat_template.jinja nor 'chat_template' "
            "in tokenizer_config.json; records.chatml() is one, Template(...) makes another"
        )
    if name not in found:
        raise ValueError(unknown(f"template of {folder}", name, found))
    special = {}
    for key in _SPECIAL:
        token = said.get(key)
        token = token.get("content") if isinstance(token, dict) else token
        if token:
            special[key] = token
    return Template(
        found[name], special, variables or {}, today, name=f"the chat template of {folder}"
    )


def _sources(folder: Path, said: Mapping[str, Any]) -> dict[str, str]:
    alone = folder / "chat_template.jinja"
    if alone.is_file():
        return {"default": text_of(alone)}
    given = _said(folder / "chat_template.json").get("chat_template") or said.get("chat_template")
    if isinstance(given, str):
        return {"default": given}
    if given is not None and not isinstance(given, list):
        raise ValueError(f"{folder}: 'chat_template' is {given!r}, neither text nor a list")
    return {each["name"]: each["template"] for each in given or ()}


def _said(path: Path) -> dict[str, Any]:
    said = json_of(text_of(path), str(path)) if path.is_file() else {}
    if not isinstance(said, dict):
        raise ValueError(f"{path} is no JSON object")
    return said


@functools.lru_cache(64)
def _compiled(source: str, name: str) -> Any:
    environment = _environment()
    from jinja2 import TemplateSyntaxError

    try:
        return environment.from_string(source)
    except TemplateSyntaxError as fault:
        raise ValueError(f"{name} is no Jinja, line {fault.lineno}: {fault.message}") from fault


@functools.cache
def _environment() -> Any:
    """A sandbox with what templates of published tokenizers use."""
    try:
        from jinja2 import TemplateError
        from jinja2.ext import Extension
        from jinja2.sandbox import ImmutableSandboxedEnvironment
    except ImportError as fault:
        raise ImportError("chat templates need: pip install 'jaxdistill[records]'") from fault

    class Generation(Extension):
        """``{% generation %}``, by which some mark what an assistant says: we find it ourselves."""

        tags = {"generation"}  # noqa: RUF012

        def parse(self, parser: Any) -> Any:
            next(parser.stream)
            return parser.parse_statements(("name:endgeneration",), drop_needle=True)

    def refuse(message: str) -> None:
        raise TemplateError(message)

    def as_json(value: Any, indent: int | None = None, **more: Any) -> str:
        return json.dumps(value, ensure_ascii=False, indent=indent, **more)

    found = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, "jinja2.ext.loopcontrols"]
    )
    found.filters["tojson"] = as_json
    found.globals["raise_exception"] = refuse
    return found


def chatml() -> Template:
    """The form of ChatML, for tokenizers that carry no template.

    Example:
        >>> print(chatml().render([Message("user", "Hello!")]), end="")
        <|im_start|>user
        Hello!<|im_end|>
    """
    return Template(
        "{% for message in messages %}"
        "<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n"
        "{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
        name="ChatML",
    )


def plain() -> Template:
    """Messages as they are, a line each, answers closed by ``eos_token``: for small students.

    Nothing tells turns apart but lines and that token, so a prompt of several lines can look like
    several prompts.

    Example:
        >>> said = [Message("user", "2 + 3?"), Message("assistant", "5")]
        >>> dataclasses.replace(plain(), special={"eos_token": "</s>"}).render(said)
        '2 + 3?\\n5</s>'
    """
    return Template(
        "{% for message in messages %}"
        "{{ message.content }}{{ eos_token if message.role == 'assistant' else '\n' }}"
        "{% endfor %}",
        name="the plain template",
    )
