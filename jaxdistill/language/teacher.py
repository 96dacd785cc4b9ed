"""A decoder of this library as a teacher that writes records."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxdistill.language.generation import Variables, generate
from jaxdistill.language.sampling import Sampling
from jaxdistill.net import Net
from jaxdistill.records.answers import Teacher
from jaxdistill.records.canonical import identity
from jaxdistill.records.chats import Chat
from jaxdistill.records.requests import Question, Response, TopTokens
from jaxdistill.records.teachers import failed
from jaxdistill.settings import Count, Natural, checked
from jaxdistill.training.checkpoint import fingerprint
from jaxdistill.training.sharding import batch_sharding, on_mesh

_SHORTEST = 16  # prompts are filled up to this, and to twice as many from there
_DIGITS = 5  # of a log-probability that is kept


class _Form(NamedTuple):
    """What one compiled program serves: questions that differ in their tokens alone."""

    prompt: int
    new: int
    temperature: float
    top_p: float


@checked
def decoder_teacher(
    net: Net,
    variables: Variables,
    chat: Chat,
    *,
    name: str,
    revision: str = "",
    context: Count = 2048,
    batch_size: Count = 16,
    top: Natural = 0,
    mesh: Mesh | None = None,
) -> Teacher:
    """A decoder as a teacher: questions of like length are written in one batch, inside of jit.

    Each answer has draws of its own, so it does not depend on which questions share its batch: a
    run that was stopped and goes on writes what an unbroken one would have written, up to what
    rounding makes of another place in a batch.

    Args:
        net: see :func:`~jaxdistill.language.empty_cache`.
        variables: its ``(params, state)``, wherever they lie on a mesh.
        chat: its tokenizer and template, see :func:`jaxdistill.records.chat`.
        name: of the teacher.
        revision: of its weights; by default a hash of all of them.
        context: the most tokens of prompt and answer; a prompt that leaves no room for its
            ``max_tokens`` has failed.
        batch_size: questions at a time; the axes of the mesh that share a batch out divide it.
        top: how many of the most probable tokens to keep at each place, with the log-probabilities
            that the net itself gives them (temperature 1, nothing cut off). They cost one more
            forward pass, and its logits.
        mesh: the devices that share the work; one process.

    Raises:
        ValueError: for a tokenizer of more tokens than the net has, and a batch that the mesh does
            not divide.

    Example:
        >>> from jaxdistill.data.tokenizers import byte_tokenizer
        >>> from jaxdistill.frameworks.linen import from_linen
        >>> from jaxdistill.models import Decoder
        >>> from jaxdistill.records import Request, chat, plain
        >>> from jaxdistill.records import Sampling as Drawn
        >>> net = from_linen(Decoder(vocabulary=257, width=8, depth=1, heads=2))
        >>> variables = net.init(jax.random.key(0), jnp.zeros((1, 1), int))
        >>> teacher = decoder_teacher(
        ...     net, variables, chat(byte_tokenizer(), plain()), name="tiny", context=64
        ... )
        >>> request = Request.of("2 + 3?", sampling=Drawn(max_tokens=4, n=2))
        >>> [each.finish for each in teacher.answer(request.questions())]
        ['length', 'length']
    """
    _refuse_small(net, variables, chat)
    if mesh is not None:
        batch_sharding(mesh).shard_shape((batch_size,))  # raises where the mesh does not divide it
    settings = identity(chat.fingerprint, context, top)[:12]
    revision = revision or fingerprint(variables)[:12]
    pad = chat.tokenizer.end

    @functools.lru_cache(64)
    def writer(form: _Form) -> Callable[..., Any]:
        drawn = Sampling(form.temperature, top_p=None if form.top_p == 1 else form.top_p)
        write = functools.partial(_written, net, drawn, form.new, chat.ends, pad, top)
        return jax.jit(write if mesh is None else on_mesh(write, mesh))

    def answer(questions: Sequence[Question]) -> Iterator[Response]:
        forms: dict[_Form, list[tuple[Question, np.ndarray]]] = {}
        for question in sorted(questions, key=lambda each: (each.id, each.sample)):
            prompt, drawn = chat.prompt(question.messages), question.sampling
            room = context - drawn.max_tokens
            if not 0 < len(prompt) <= room:
                why = f"a prompt of {len(prompt)} tokens, and the context leaves room for {room}"
                yield failed(question, why)
                continue
            size = min(max(_SHORTEST, 1 << (len(prompt) - 1).bit_length()), room)
            form = _Form(size, drawn.max_tokens, float(drawn.temperature), float(drawn.top_p))
            forms.setdefault(form, []).append((question, prompt))
        for form, own in sorted(forms.items()):
            for start in range(0, len(own), batch_size):
                part = own[start : start + batch_size]
                given = _batch(part, form, batch_size, pad, mesh)
                found = jax.device_get(writer(form)(variables, *given))
                for row, (question, _) in enumerate(part):
                    each = {name: value[row] for name, value in found.items()}
                    yield _response(question, chat, each)

    return Teacher(name, f"{revision}+{settings}", answer)


def _written(
    net: Net,
    sampling: Sampling,
    new: int,
    stop: tuple[int, ...],
    pad: int,
    top: int,
    variables: Variables,
    prompts: jax.Array,
    lengths: jax.Array,
    seeds: jax.Array,
) -> dict[str, jax.Array]:
    """What is written behind prompts, ``[B, new]``, and the most probable tokens there."""
    keys = jax.vmap(jax.random.key)(seeds)
    done = generate(
        net, variables, prompts, lengths, keys, new=new, sampling=sampling, stop=stop, pad=pad
    )
    places = lengths[:, None] + jnp.arange(new)[None]
    found = {
        "tokens": jnp.take_along_axis(done.tokens, places, 1),
        "length": done.lengths - lengths,
        "stopped": done.stopped,
    }
    if top:
        params, state = variables
        logits = net.apply(params, state, {"tokens": done.tokens}).out
        behind = jnp.take_along_axis(logits, places[..., None] - 1, 1)
        wide = behind.astype(jnp.promote_types(behind.dtype, jnp.float32))
        log_probs, ids = jax.lax.top_k(jax.nn.log_softmax(wide), top)
        found |= {"ids": ids, "log_probs": log_probs}
    return found


def _batch(
    part: Sequence[tuple[Question, np.ndarray]],
    form: _Form,
    rows: int,
    pad: int,
    mesh: Mesh | None,
) -> tuple[Any, ...]:
    """Prompts, lengths and seeds of a batch; its last question fills it up."""
    prompts, lengths = np.full((rows, form.prompt), pad, np.int32), np.ones(rows, np.int32)
    seeds = np.zeros(rows, np.uint32)
    for row in range(rows):
        question, prompt = part[min(row, len(part) - 1)]
        prompts[row, : len(prompt)], lengths[row] = prompt, len(prompt)
        seeds[row] = question.seed
    given = (prompts, lengths, seeds)
    return given if mesh is None else jax.device_put(given, batch_sharding(mesh))


def _response(question: Question, chat: Chat, found: Mapping[str, np.ndarray]) -> Response:
    tokens = [int(each) for each in found["tokens"][: int(found["length"])]]
    finish = "stop" if found["stopped"] else "length"
    decode = chat.tokenizer.decode
    text = decode(tokens[:-1] if found["stopped"] else tokens)
    stops = [*question.sampling.stop]
    if chat.closes not in chat.special and chat.closes:
        stops.append(chat.closes)
    places = [place for place in map(text.find, stops) if place >= 0]
    if places:
        text, finish = text[: min(places)], "stop"
        # Tokens up to the first with which the text is complete.
        tokens = next(
            (tokens[:n] for n in range(len(tokens)) if len(decode(tokens[:n])) >= len(text)), tokens
        )
    top = None
    if "ids" in found:
        rows = range(len(tokens))
        known = [np.isfinite(found["log_probs"][row]) for row in rows]
        top = TopTokens(
            tuple(tokens),
            tuple(tuple(found["ids"][row][known[row]].tolist()) for row in rows),
            tuple(
                tuple(round(float(v), _DIGITS) for v in found["log_probs"][row][known[row]])
                for row in rows
            ),
        )
    text = text.removeprefix(chat.opens[1])
    return Response(question.id, question.sample, text, finish, top=top)


def _refuse_small(net: Net, variables: Variables, chat: Chat) -> None:
    params, state = variables
    tokens = jax.ShapeDtypeStruct((1, 1), jnp.int32)
    out = jax.eval_shape(lambda p, s, t: net.apply(p, s, t).out, params, state, tokens)
    if out.shape[-1] < chat.tokenizer.vocabulary:
        raise ValueError(
            f"the tokenizer has {chat.tokenizer.vocabulary} tokens, the net {out.shape[-1]}"
        )
