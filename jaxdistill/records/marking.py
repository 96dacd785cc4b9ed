"""Where messages lie in a rendered conversation, found by marking them.

A conversation is rendered twice, with marks around what messages say and without. Where the two
differ in more than the marks nothing is guessed: the template is refused.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from typing import NamedTuple

from jaxdistill._errors import listed
from jaxdistill.records.templates import Template

# Two planes of characters that nobody assigns: one of them marks where messages begin and end.
_PLANES = (0xF0000, 0x100000)
_MOST = 0x7FFE
# What templates look for at the edges of a message, or take it apart by: marks stay inside.
_TAG, _LAST_TAG = re.compile(r"</?[A-Za-z_]+>"), re.compile(r"</?[A-Za-z_]+>\Z")
_THINKING = re.compile(r"</?think>")
# How templates write what tells turns apart.
_CONTROL = re.compile(r"<\|[^<>|\s]+\|>|</?[A-Za-z_]+>|\[/?[A-Z_]+\]|<</?[A-Z]+>>")


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
        >>> from jaxdistill.records.templates import chatml
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
        >>> from jaxdistill.records.templates import chatml
        >>> opening(chatml())
        ('<|im_start|>assistant\\n', '')
    """
    asked, said = [("user", "a")], [("user", "a"), ("assistant", "b")]
    short, long = template.text(asked), template.text(asked, generation=True)
    whole = rendered(template, said)
    opens = long[len(short) :] if long.startswith(short) else ""
    lead = whole.text[len(long) : whole.pieces[-1].start] if whole.text.startswith(long) else ""
    return opens, lead


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
