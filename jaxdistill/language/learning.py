"""A language model as a distiller: what it learns from, and who writes what it reads."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import jax
import optax

from jaxdistill import targets
from jaxdistill._errors import listed, unknown
from jaxdistill.distiller import Distiller, model_to_model
from jaxdistill.language.objective import (
    HIDDEN,
    Missing,
    Name,
    divergence_per_token,
    is_fused,
    labels_per_token,
    sparse_divergence_per_token,
    teacher_states,
)
from jaxdistill.language.on_policy import Writing, on_policy
from jaxdistill.language.tasks import labels_per_task
from jaxdistill.net import Net
from jaxdistill.records.server import Server
from jaxdistill.settings import Count, Fraction, NonNegative, Positive, Scheduled, Share, checked
from jaxdistill.store import Codec


class Teacher(NamedTuple):
    """Whom a student learns from.

    Attributes:
        net: a decoder.
        name: of its variables in the frozen ones.
        codecs: of its outputs, where they are read from disk; None where it runs in the step.
    """

    net: Net
    name: str
    codecs: Mapping[str, Codec] | None = None


class Divergence(NamedTuple):
    """How far a student is from its teacher. None is the default of the loss.

    Attributes:
        name: of the loss, see :func:`~jaxdistill.language.divergence_per_token`.
        weight: a number or a schedule.
        beta: of ``"jsd"``.
        temperature: of the divergence; of a cache of some classes the one that it was written with.
        skew: of ``"skewed_forward_kl"`` and ``"skewed_reverse_kl"``.
        reverse_weight: of ``"symmetric_kl"``.
        unlike: what is done about vocabularies of different sizes.
        missing: what becomes of the classes that a cache of some classes does not know, see
            :func:`~jaxdistill.losses.linear_sparse_kl`.
    """

    name: Name = "forward_kl"
    weight: Scheduled[NonNegative] = 1.0
    beta: Share | None = None
    temperature: Positive | None = None
    skew: Share | None = None
    reverse_weight: Share | None = None
    unlike: Literal["refuse", "zero_mass"] | None = None
    missing: Missing = "tail"

    def hyper(self) -> dict[str, Any]:
        """The keywords of the loss that are given."""
        names = ("beta", "temperature", "skew", "reverse_weight", "unlike")
        given = {name: getattr(self, name) for name in names}
        return {name: value for name, value in given.items() if value is not None}


class Lesson(NamedTuple):
    """What a step learns from: three arguments of :func:`~jaxdistill.distiller.model_to_model`.

    Attributes:
        targets: see :mod:`jaxdistill.targets`.
        objective: over the student's output and the targets.
        taps: which of the student's features it reads.
    """

    targets: Callable[..., Any]
    objective: Callable[..., Any]
    taps: tuple[str, ...]


@checked
def language_model(
    net: Net,
    tx: optax.GradientTransformation,
    teacher: Teacher | None = None,
    prepare: Callable[[Any, jax.Array], Any] | None = None,
    initial: str | None = None,
    student_cap: float | None = None,
    end: int | None = None,
    task_names: Sequence[str] = (),
    *,
    divergence: Divergence | None = None,
    ce_weight: Scheduled[NonNegative] = 0.0,
    teacher_cap: Positive | None = None,
    chunk: Count = 256,
    writing: Writing | None = None,
    served: Server | None = None,
    top: Count = 20,
    recorded: bool = False,
    tasks: Mapping[str, Scheduled[NonNegative]] | None = None,
    accumulate: Count = 1,
    ema: Scheduled[Fraction] | None = None,
    returns: Literal["student", "ema"] = "student",
) -> Distiller:
    """A decoder that learns from labels, from a teacher, or from both; of texts as they are, or of
    what it or its teacher writes.

    Args:
        net: the student.
        tx: its optimizer.
        teacher: without one it learns from labels alone.
        prepare: ``(batch, key) -> batch`` with ``batch["student"]`` and ``batch["teacher"]``.
        initial: the name in the frozen variables that it starts from.
        student_cap: soft cap of its logits.
        end: the token that ends a text, where ``writing`` names none.
        task_names: of the tasks of records, in the order of their numbers.
        divergence: from the teacher; None for forward KL where there is one.
        ce_weight: of the labels where there is a teacher, a number or a schedule.
        teacher_cap: soft cap of the teacher's logits.
        chunk: tokens for which there are logits at a time.
        writing: who continues prompts; None for texts as they are.
        served: a server whose model is the teacher, asked within the step for its ``top`` most
            probable tokens, see :func:`~jaxdistill.targets.served`.
        top: so many tokens at each place.
        recorded: learn from the most probable tokens that records carry, see
            :func:`~jaxdistill.targets.recorded`.
        tasks: of labels a mean for each task of the records, and what it is worth; without it one
            mean over all tokens.
        accumulate: microbatches.
        ema: decay of a running average, a number or a schedule.
        returns: whether the result is the student or its running average.

    Raises:
        ValueError: for settings of a teacher where there is none, or of one that is to write but is
            read from disk; for an unknown divergence, or a keyword that it does not have; for one
            other than forward KL where some classes of each token are on disk.

    Example:
        >>> from jaxdistill.frameworks.linen import from_linen
        >>> from jaxdistill.models import Decoder
        >>> net = from_linen(Decoder(vocabulary=11, width=8, depth=1, heads=2))
        >>> tokens = jax.numpy.array([[1, 2, 3, 4]])
        >>> inputs = {"tokens": tokens}
        >>> batch = {"label": tokens, "counted": tokens > 0, "student": inputs, "teacher": inputs}
        >>> teacher = net.init(jax.random.key(0), inputs)
        >>> distiller = language_model(
        ...     net, optax.sgd(0.1), Teacher(net, "teacher"), divergence=Divergence("reverse_kl")
        ... )
        >>> state = distiller.init(jax.random.key(1), {"teacher": teacher}, batch)
        >>> state, metrics = distiller.step(state, {"teacher": teacher}, batch)
        >>> sorted(metrics)
        ['distillation', 'loss']
    """
    _refuse_several(teacher=teacher, served=served, recorded=recorded or None, tasks=tasks)
    if teacher is None:
        of_some = served is not None or recorded
        _refuse_untaught(divergence=None if of_some else divergence, teacher_cap=teacher_cap)
    elif teacher.codecs is not None and writing is not None:
        _refuse_unread(writing)
    if recorded and writing is not None:
        raise ValueError("recorded is True: no record has the tokens of what is written in a step")
    divergence = divergence or Divergence()
    if tasks is not None:
        objective = labels_per_task(task_names, tasks, student_cap=student_cap, chunk=chunk)
        lesson = Lesson(_nothing, objective, (HIDDEN,))
    elif served is not None or recorded:
        known = targets.served(served, top=top) if served is not None else targets.recorded()
        lesson = _from_some(known, divergence, ce_weight, student_cap, chunk)
    else:
        lesson = _lesson(teacher, divergence, ce_weight, student_cap, teacher_cap, chunk)
    inner = model_to_model(
        net,
        lesson.targets,
        lesson.objective,
        tx,
        inputs="student",
        taps=lesson.taps,
        prepare=prepare,
        ema=ema,
        accumulate=accumulate,
        initial=initial,
        returns=returns,
    )
    if writing is None:
        return inner
    if writing.stop is None and end is not None:
        writing = writing._replace(stop=(end,))
    return on_policy(inner, net, writing, teacher[:2] if teacher else None)


def from_labels(student_cap: float | None = None, chunk: int = 256) -> Lesson:
    """The next token alone."""
    return Lesson(_nothing, labels_per_token(student_cap=student_cap, chunk=chunk), (HIDDEN,))


def from_teacher(
    teacher: Teacher,
    divergence: Divergence,
    ce_weight: Any = 0.0,
    student_cap: float | None = None,
    teacher_cap: float | None = None,
    chunk: int = 256,
) -> Lesson:
    """A teacher that runs within the step: its hidden states where the divergence is taken from
    them, else its logits."""
    objective = divergence_per_token(
        divergence.name,
        divergence_weight=divergence.weight,
        ce_weight=ce_weight,
        student_cap=student_cap,
        teacher_cap=teacher_cap,
        chunk=chunk,
        **divergence.hyper(),
    )
    fused = is_fused(divergence.name)
    states = teacher_states(teacher.net, teacher.name, dense=not fused)
    return Lesson(states, objective, (HIDDEN,) if fused else ())


def from_cache(
    teacher: Teacher,
    divergence: Divergence,
    ce_weight: Any = 0.0,
    student_cap: float | None = None,
    chunk: int = 256,
) -> Lesson:
    """A teacher that is read from disk: its logits, or some classes of each token.

    Raises:
        ValueError: for any divergence of some classes but forward KL, and for keywords that it
            does not have.
    """
    assert teacher.codecs is not None
    known = targets.cached(teacher.codecs, teacher.name)
    if is_sparse(teacher.codecs[f"{teacher.name}/out"]):
        return _from_some(known, divergence, ce_weight, student_cap, chunk)
    weights: dict[str, Any] = {"divergence_weight": divergence.weight, "ce_weight": ce_weight}
    objective = divergence_per_token(divergence.name, dense=True, **weights, **divergence.hyper())
    return Lesson(known, objective, ())


def _from_some(
    known: Callable[..., Any],
    divergence: Divergence,
    ce_weight: Any,
    student_cap: float | None,
    chunk: int,
) -> Lesson:
    """A teacher of whom some classes of each token are known."""
    if divergence.name != "forward_kl":
        raise ValueError(
            f"of some classes of each token there is 'forward_kl' alone, not {divergence.name!r}: "
            "store 'out' with the codec 'dense' or 'quantised'"
        )
    for key in divergence.hyper().keys() - {"temperature"}:
        raise ValueError(unknown("key of divergence 'forward_kl'", key, ("temperature",)))
    objective = sparse_divergence_per_token(
        missing=divergence.missing,
        temperature=1.0 if divergence.temperature is None else divergence.temperature,
        student_cap=student_cap,
        chunk=chunk,
        divergence_weight=divergence.weight,
        ce_weight=ce_weight,
    )
    return Lesson(known, objective, (HIDDEN,))


def is_sparse(codec: Codec) -> bool:
    """Whether a codec gives some classes of each token."""
    fields = {
        name: jax.ShapeDtypeStruct((1, *spec.shape), spec.dtype)
        for name, spec in codec.fields.items()
    }
    return isinstance(jax.eval_shape(codec.decode, fields), Mapping)


def _lesson(
    teacher: Teacher | None,
    divergence: Divergence,
    ce_weight: Any,
    student_cap: float | None,
    teacher_cap: float | None,
    chunk: int,
) -> Lesson:
    if teacher is None:
        return from_labels(student_cap, chunk)
    if teacher.codecs is not None:
        return from_cache(teacher, divergence, ce_weight, student_cap, chunk)
    return from_teacher(teacher, divergence, ce_weight, student_cap, teacher_cap, chunk)


def _refuse_several(**given: Any) -> None:
    """Refuses two things to learn from."""
    there = [name for name, value in given.items() if value is not None]
    if len(there) > 1:
        raise ValueError(f"a student learns from one of {listed(there)}: leave out all but one")


def _refuse_untaught(**settings: Any) -> None:
    for name, value in settings.items():
        if value is not None:
            raise ValueError(f"{name} is {value}, but there is no teacher: name one in 'frozen'")


def _refuse_unread(writing: Writing) -> None:
    for name in ("share", "teacher_share", "teacher_mixing"):
        if value := getattr(writing, name):
            raise ValueError(f"{name} is {value}: no cache has read what is written in a step")


def _nothing(sources: Any, batch: Any, key: Any, step: Any) -> dict[str, Any]:
    """The targets of a net that learns from its batches alone."""
    return {}
