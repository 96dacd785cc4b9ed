"""What the runner has to offer to whatever a config names."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import optax

from jaxdistill._errors import unknown
from jaxdistill.distiller import Student
from jaxdistill.net import Net


@dataclasses.dataclass(frozen=True)
class Context:
    """What the runner has to offer: entries of the tables read it, a config never sets it.

    Attributes:
        student_net: the net of the stage or None, see :attr:`net`.
        student: what the config says of that net.
        nets: those of earlier stages, by name.
        frozen: the names of the earlier stages whose results the stage's algorithm holds.
        initial: the name in ``frozen`` of what the net starts from, or None.
        transformation: the stage's optimizer, see :attr:`tx`.
        optimizer: what the config says of it.
        steps: of the stage.
        seed: of the stage, the run's and its own together; for data and evaluations the run's.
        prepare: the view: ``(batch, key) -> batch``.
        inputs: which entry of the batch a net sees.
        sets: all sets of the stage's data.
        info: what is known of the data: ``classes``, ``image_shape``, ``vocabulary`` ...
        codecs: of the outputs of earlier stages that are read from disk; None where they run.
        paths: the names of targets that the objective reads.
        term: the name of the entry of the objective that is made.
        scale: what its weight is multiplied by.
        teacher: what a sampler learns from, or the net that an evaluation compares with, where
            there is just one.
        teacher_name: its stage.
        validation: the share of records that is held out for validation.
        test: the share that is held out for the test, where there is no official set.
        by: what decides which set a record goes to.
    """

    student_net: Student | None = None
    student: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    nets: Mapping[str, Net] = dataclasses.field(default_factory=dict)
    frozen: Sequence[str] = ()
    initial: str | None = None
    transformation: optax.GradientTransformation | None = None
    optimizer: Mapping[str, Any] | None = None
    steps: int = 0
    seed: int = 0
    prepare: Any = None
    inputs: str = "image"
    sets: Any = dataclasses.field(default_factory=dict)
    info: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    codecs: Mapping[str, Any] | None = None
    paths: Sequence[str] = ()
    term: str = ""
    scale: float = 1.0
    teacher: Any = None
    teacher_name: str = ""
    validation: float = 0.1
    test: float = 0.2
    by: Literal["id", "content"] = "id"

    @property
    def tx(self) -> optax.GradientTransformation:
        """The stage's optimizer.

        Raises:
            ValueError: if the stage names none.
        """
        if self.transformation is None:
            raise ValueError("what is trained needs the stage's 'optimizer'")
        return self.transformation

    @property
    def net(self) -> Any:
        """The net of the stage; where it shares weights with earlier ones, for its training, a
        function of what is frozen to it.

        Raises:
            ValueError: if the stage names none.
        """
        if self.student_net is None:
            raise ValueError("there is no net here: give it by 'student'")
        return self.student_net

    @property
    def classes(self) -> Any:
        """How many classes the data has, or None."""
        return self.info.get("classes")

    @property
    def image_shape(self) -> Any:
        """(height, width, channels) of the data's images, or None."""
        return self.info.get("image_shape")

    @property
    def channels(self) -> Any:
        """The channels of the data's images, or None."""
        return (self.image_shape or (None,))[-1]

    @property
    def vocabulary(self) -> Any:
        """How many tokens the data knows, or None."""
        return self.info.get("vocabulary")

    def net_of(self, stage: str, kind: str = "earlier stage") -> Net:
        """The net of an earlier stage.

        Raises:
            ValueError: if there is none of that name before this one.
        """
        if stage not in self.nets:
            raise ValueError(unknown(kind, stage, self.nets))
        return self.nets[stage]

    def groups(self) -> tuple[str, ...]:
        """The domains of the training texts.

        Raises:
            ValueError: for data that has none.
        """
        found = tuple(self.info.get("groups", ()))
        if not found:
            raise ValueError(
                f"{self.sets['train'].name!r} has no domains: take data of several, such as "
                "'domains'"
            )
        return found


OFFERED = (
    *(field.name for field in dataclasses.fields(Context)),
    "net",
    "tx",
    "classes",
    "image_shape",
    "channels",
    "vocabulary",
)
