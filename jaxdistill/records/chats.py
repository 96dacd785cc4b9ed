"""Conversations as tokens: a template and a tokenizer together, and which tokens are learnt.

What is learnt is found from the offsets of the tokens in the rendered text, never by writing parts
of it anew. Special tokens inside of what somebody says are no special tokens: a prompt cannot leave
its turn.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxdistill.data.tokenizers import Tokenizer
from jaxdistill.records.canonical import identity
from jaxdistill.records.marking import Rendered, controls, is_thinking, opening, rendered
from jaxdistill.records.requests import Message
from jaxdistill.records.templates import Template

# A token that parts its neighbours and is taken out again; Unicode calls it no character.
_BREAK = "\U0010ffff"


class Encoded(NamedTuple):
    """A conversation as tokens.

    Attributes:
        tokens: int32 ``[n]``.
        learnt: bool ``[n]``, whether a student learns to write the token.
        spans: int ``[n, 2]``, its place in ``text``.
        text: the rendered conversation, with U+10FFFF inside of special tokens that were text.
    """

    tokens: np.ndarray
    learnt: np.ndarray
    spans: np.ndarray
    text: str


class Chat(NamedTuple):
    """How conversations become tokens; made by :func:`chat`.

    Attributes:
        tokenizer: whose tokens they are.
        template: how they are rendered.
        opens: the text that an answer begins behind, and with what the template leads it in.
        ends: the tokens that end an answer.
        closes: the text that the template closes an answer with, a token or not; may be empty.
        special: the tokenizer's special tokens, by their texts.
        words: what tells turns apart in the template, where it is no special token.
        write: ``text -> (tokens [n], spans [n, 2])``.
    """

    tokenizer: Tokenizer
    template: Template
    opens: tuple[str, str]
    ends: tuple[int, ...]
    closes: str
    special: Mapping[str, int]
    words: tuple[str, ...]
    write: Callable[[str], tuple[np.ndarray, np.ndarray]]

    @property
    def fingerprint(self) -> str:
        """A name for what it does."""
        return identity(self.tokenizer.fingerprint, self.template.fingerprint)

    def encode(self, messages: Sequence[Message]) -> Encoded:
        """A conversation with what a student learns of it.

        An answer that is learnt begins right behind what the template opens it with, and its last
        token is the one that ends the turn; where the template has none, the last answer is
        followed by the tokenizer's end. Of a message of another role what it says is learnt.

        Raises:
            ValueError: for what the template refuses, and where a message that is to be learnt is
                empty or left out.
        """
        said = [(each.role, self._escaped(each)) for each in messages]
        found = rendered(self.template, said)
        spans_learnt = [
            self._learnt(found, number, each) for number, each in enumerate(messages) if each.learn
        ]
        tokens, spans = self.write(found.text)
        self._refuse_special(tokens, spans, found, messages)
        learnt = np.zeros(len(tokens), bool)
        for start, end in spans_learnt:
            over = (spans[:, 0] < end) & (spans[:, 1] > start)
            empty = (spans[:, 0] == spans[:, 1]) & (start <= spans[:, 0]) & (spans[:, 0] < end)
            learnt |= over | empty
        if messages and messages[-1].learn and not self.closes:
            # Nothing of the template says that an answer is over: the end of a text does.
            tokens = np.append(tokens, np.int32(self.tokenizer.end))
            learnt = np.append(learnt, True)
            spans = np.concatenate([spans, np.full((1, 2), len(found.text))])
        return Encoded(tokens, learnt, spans, found.text)

    def prompt(self, messages: Sequence[Message]) -> np.ndarray:
        """The tokens that an answer is to follow, int32 ``[n]``."""
        said = [(each.role, self._escaped(each)) for each in messages]
        return self.write(self.template.text(said, generation=True))[0]

    def _escaped(self, message: Message) -> str:
        """A message in which no special token is one, and no word of the template is whole."""
        text = message.content
        if _BREAK in text:
            raise ValueError("a message has the character U+10FFFF, which no text has")
        # Thinking is part of an answer, whether its tags are special tokens or not.
        own = [w for w in self.special if message.role != "assistant" or not is_thinking(w)]
        for words, between in ((own, _BREAK), (self.words, " ")):
            if any(word in text for word in words):
                # Also where one begins inside another: each is broken behind its first letter.
                either = "|".join(map(re.escape, words))
                text = re.sub(f"(?={either}).", lambda m, b=between: m[0] + b, text, flags=re.S)
        return text

    def _learnt(self, found: Rendered, number: int, message: Message) -> tuple[int, int]:
        """Where the part of a message that is learnt lies in the text."""
        own = [piece for piece in found.pieces if piece.message == number]
        if not own:
            why = "the template leaves it out" if message.content.strip() else "it says nothing"
            raise ValueError(f"message {number} ({message.role}) is to be learnt, but {why}")
        start, end = own[0].start, own[-1].end
        if message.role != "assistant":
            return start, end
        text, (opens, lead) = found.text, self.opens
        before = max((p.end for p in found.pieces if p.end <= start), default=0)
        after = min((p.start for p in found.pieces if p.start >= end), default=len(text))
        if (place := text.rfind(opens, before, start)) >= 0 and opens:
            start = place + len(opens)
        elif start - len(lead) >= before and text.endswith(lead, 0, start):
            start -= len(lead)
        if (place := text.find(self.closes, end, after)) >= 0 and self.closes:
            end = place + len(self.closes)
        return start, end

    def _refuse_special(
        self,
        tokens: np.ndarray,
        spans: np.ndarray,
        found: Rendered,
        messages: Sequence[Message],
    ) -> None:
        """Some tokenizers find special tokens in what they have rewritten first."""
        inside = np.isin(tokens, list(self.special.values()))
        for token, (start, end) in zip(tokens[inside], spans[inside], strict=True):
            for piece in found.pieces:
                own = messages[piece.message].role == "assistant"
                if own and is_thinking(found.text[start:end]):
                    continue
                if piece.start <= start and end <= piece.end and start < end:
                    raise ValueError(
                        f"message {piece.message} ({messages[piece.message].role}) has the special "
                        f"token {int(token)} in {found.text[start:end]!r}, which cannot be escaped"
                    )


def chat(tokenizer: Tokenizer, template: Template) -> Chat:
    """A template and a tokenizer together.

    Args:
        tokenizer: one of Hugging Face's ``tokenizers``, or the bytes.
        template: of the conversations; ``eos_token`` is the tokenizer's end if it has none.

    Raises:
        ImportError: without the extra ``records``.
        ValueError: for a tokenizer that gives no offsets.

    Example:
        >>> from jaxdistill.data.tokenizers import byte_tokenizer
        >>> from jaxdistill.records.templates import plain
        >>> said = [Message("user", "2+3?"), Message("assistant", "5", learn=True)]
        >>> found = chat(byte_tokenizer(), plain()).encode(said)
        >>> found.tokens[found.learnt].tolist(), byte_tokenizer().decode(found.tokens)
        ([53, 256], '2+3?\\n5')
    """
    write, special, names = _writer(tokenizer)
    end = names.get(tokenizer.end, "")
    if end and "eos_token" not in template.special:
        template = dataclasses.replace(template, special={**template.special, "eos_token": end})
    words = tuple(sorted(controls(template) - special.keys()))
    probe = rendered(template, [("user", "a"), ("assistant", "b")])
    either = "|".join(map(re.escape, sorted((*special, *words), key=len, reverse=True)))
    closed = re.compile(f"\\s*({either or '(?!)'})").match(probe.text, probe.pieces[-1].end)
    closes = closed[1] if closed else ""
    ends = {tokenizer.end, special.get(closes, tokenizer.end)}
    return Chat(
        tokenizer, template, opening(template), tuple(sorted(ends)), closes, special, words, write
    )


def _writer(tokenizer: Tokenizer) -> tuple[Any, dict[str, int], dict[int, str]]:
    """What writes text with breaks as tokens with their places, the special tokens, and the texts
    of all that were added."""
    try:
        import tokenizers
    except ImportError as fault:
        raise ImportError("chat templates need: pip install 'jaxdistill[records]'") from fault
    if not tokenizer.definition:
        raise ValueError(
            "this tokenizer gives no offsets, so what is learnt cannot be told from what is not: "
            "take one of file_tokenizer, or byte_tokenizer"
        )
    given = tokenizers.Tokenizer.from_str(tokenizer.definition)
    given.no_truncation()
    given.no_padding()
    added = given.get_added_tokens_decoder()
    special = {each.content: number for number, each in added.items() if each.special}
    # Post-processors add special tokens and cut whitespace off from offsets.
    given.post_processor = tokenizers.processors.Sequence([])
    given.add_special_tokens([tokenizers.AddedToken(_BREAK, normalized=False, special=True)])
    parting = given.token_to_id(_BREAK)

    def write(text: str) -> tuple[np.ndarray, np.ndarray]:
        found = given.encode(text, add_special_tokens=False)
        tokens = np.asarray(found.ids, np.int32)
        spans = np.asarray(found.offsets, np.int64).reshape(-1, 2)
        kept = tokens != parting
        return tokens[kept], spans[kept]

    return write, special, {number: each.content for number, each in added.items()}
