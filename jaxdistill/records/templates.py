"""Chat templates: a conversation as one text, and which parts of it are whose.

Published tokenizers carry a template in Jinja. It is run in a sandbox that has no clock and no
files, so that the same conversation is the same text every time. Where a message lies in the text
is found by marking it, rendering, and taking the marks out again; a template that says something
else when there are marks is refused, so a place is never guessed.
"""

from __future__ import annotations

import dataclasses
import datetime
import functools
import itertools
import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jaxdistill._errors import listed, unknown
from jaxdistill._hub import folder_of
from jaxdistill.data.documents import json_of, text_of
from jaxdistill.records.canonical import identity
from jaxdistill.records.requests import Message

_FILES = ("tokenizer_config.json", "chat_template.jinja", "chat_template.json")
_SPECIAL = ("bos_token", "eos_token", "pad_token", "unk_token")
# Two planes of characters that nobody assigns: one of them marks where messages begin and end.
_PLANES = (0xF0000, 0x100000)
_MOST = 0x7FFE
# What templates look for at the edges of a message, or take it apart by: marks stay inside.
_TAG, _LAST_TAG = re.compile(r"</?[A-Za-z_]+>"), re.compile(r"</?[A-Za-z_]+>\Z")
_THINKING = re.compile(r"</?think>")
# How templates write what tells turns apart.
_CONTROL = re.compile(r"<\|[^<>|\s]+\|>|</?[A-Za-z_]+>|\[/?[A-Z_]+\]|<</?[A-Z]+>>")


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


class Piece(NamedTuple):
    """A part of a text that a message says."""

    message: int
    start: int
    end: int


class Rendered(NamedTuple):
    """A conversation as one text.

    Attributes:
        text: all of it.
        pieces: where messages say what they say, in order. A message that the template takes apart
            (thinking and answer) has several, one that it leaves out none.
    """

    text: str
    pieces: tuple[Piece, ...]


def rendered(template: Template, said: Sequence[tuple[str, str]]) -> Rendered:
    """A conversation as one text, with the place of every message.

    Args:
        template: how.
        said: role and content of every message.

    Raises:
        ValueError: if the template says something else once messages are marked, or says one twice.

    Example:
        >>> each = "[{{ m.role }}] {{ m.content|trim }}"
        >>> template = Template("{% for m in messages %}" + each + "{% endfor %}")
        >>> found = rendered(template, [("user", "Hello! ")])
        >>> found.text, found.pieces
        ('[user] Hello!', (Piece(message=0, start=7, end=13),))
    """
    base = _free_plane(said)
    owners: list[int] = []
    marked = [(role, _marked(each, base, owners, n)) for n, (role, each) in enumerate(said)]
    whole, text = template.text(marked), template.text(said)
    marks = f"[{chr(base)}-{chr(base + 2 * _MOST + 1)}]"
    plain = re.split(marks, whole)
    if "".join(plain) != text:
        raise ValueError(
            f"{template.name} changes what messages say by what they begin or end with: where they "
            f"lie in the text is not known (roles {listed([role for role, _ in said])})"
        )
    places = itertools.accumulate(map(len, plain))
    pieces, begun = [], {}
    for mark, place in zip(re.findall(marks, whole), places, strict=False):
        number, closes = divmod(ord(mark) - base, 2)
        if closes:
            pieces.append((number, begun[number], place))
        elif number in begun:
            raise ValueError(f"{template.name} says message {owners[number]} twice")
        else:
            begun[number] = place
    found: list[Piece] = []
    for number, start, end in pieces:
        owner = owners[number]
        edges = re.split(marks, marked[owner][1])
        if number == 0 or owners[number - 1] != owner:
            start = _back(text, start, edges[0], found[-1].end if found else 0)
        if number == len(owners) - 1 or owners[number + 1] != owner:
            end = _forth(text, end, edges[-1])
        found.append(Piece(owner, start, end))
    return Rendered(text, tuple(found))


def _back(text: str, start: int, edge: str, least: int) -> int:
    """Where a message begins that has an edge before its first mark, which may be cut."""
    for lead in (edge, edge.lstrip()):
        if start - len(lead) >= least and text.endswith(lead, 0, start):
            return start - len(lead)
    return start


def _forth(text: str, end: int, edge: str) -> int:
    for tail in (edge, edge.rstrip()):
        if text.startswith(tail, end):
            return end + len(tail)
    return end


def controls(template: Template) -> frozenset[str]:
    """The words by which a template tells turns apart, such as ``<|im_start|>`` and ``[INST]``.

    Found in what it says around an exchange of plain words; thinking tags are none.

    Example:
        >>> sorted(controls(chatml()))
        ['<|im_end|>', '<|im_start|>']
    """
    found: set[str] = set()
    exchange = [("user", "a"), ("assistant", "b"), ("user", "c")]
    for said in (exchange, [("system", "d"), *exchange]):
        for generation in (False, True):
            try:
                found |= set(_CONTROL.findall(template.text(said, generation=generation)))
            except ValueError:
                continue  # a role that it does not have
    return frozenset(each for each in found if not is_thinking(each))


def is_thinking(word: str) -> bool:
    """Whether a word opens or closes the thinking of an answer."""
    return _THINKING.fullmatch(word) is not None


def opening(template: Template) -> tuple[str, str]:
    """What a template ends a prompt with so that an answer follows, and what else it puts before
    the answer once that is there.

    Example:
        >>> opening(chatml())
        ('<|im_start|>assistant\\n', '')
    """
    asked, said = [("user", "a")], [("user", "a"), ("assistant", "b")]
    short, long = template.text(asked), template.text(asked, generation=True)
    whole = rendered(template, said)
    opens = long[len(short) :] if long.startswith(short) else ""
    lead = whole.text[len(long) : whole.pieces[-1].start] if whole.text.startswith(long) else ""
    return opens, lead


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


def _free_plane(said: Sequence[tuple[str, str]]) -> int:
    """The first character of a plane of which no message has any."""
    for base in _PLANES:
        inside = re.compile(f"[{chr(base)}-{chr(base + 0xFFFD)}]")
        if not any(inside.search(content) for _, content in said):
            return base
    raise ValueError("a conversation has characters of both private planes of Unicode")


def _marked(content: str, base: int, owners: list[int], number: int) -> str:
    """A message with marks around what it says, inside of what templates look for."""
    tags = [match.span() for match in _THINKING.finditer(content)]
    parts, last = [], 0
    for start, end in (*tags, (len(content), len(content))):
        parts.append(_core(content, last, start))
        last = end
    # Nothing but tags: a template that looks for them will say so.
    parts = [each for each in parts if each[0] < each[1]] or [_stripped(content, 0, len(content))]
    found, last = [], 0
    for start, end in parts:
        if start < end:
            opened = base + 2 * len(owners)
            owners.append(number)
            found += [content[last:start], chr(opened), content[start:end], chr(opened + 1)]
            last = end
    if len(owners) > _MOST:
        raise ValueError(f"a conversation of more than {_MOST} parts")
    return "".join(found) + content[last:]


def _core(content: str, start: int, end: int) -> tuple[int, int]:
    """A part of a message without whitespace and a tag at the edges of the whole."""
    start, end = _stripped(content, start, end)
    if not content[:start].strip() and (tag := _TAG.match(content, start, end)):
        start = tag.end()
    if not content[end:].strip() and (tag := _LAST_TAG.search(content, max(start, end - 60), end)):
        end = tag.start()
    return _stripped(content, start, end)


def _stripped(content: str, start: int, end: int) -> tuple[int, int]:
    part = content[start:end]
    left = len(part) - len(part.lstrip())
    return start + left, max(start + left, start + len(part.rstrip()))


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
