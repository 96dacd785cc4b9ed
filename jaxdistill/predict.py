"""Asks the student of a run.

    jaxdistill predict runs/mae cat.png photos/
    jaxdistill predict runs/bert "a text" notes.txt

A student of images takes files and folders of them. A student of texts takes texts, and files, of
which each line is one; of pairs the two texts are parted by a tab.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import app, flags

from jaxdistill._columns import aligned
from jaxdistill.main import guarded, parsed

JSON = flags.DEFINE_bool("json", False, "print JSON, all that is said, in place of a table")
TOP = flags.DEFINE_integer("top", 3, "how many classes a line of the table names", lower_bound=1)
BATCH = flags.DEFINE_integer("batch_size", 64, "so many are run at once", lower_bound=1)


def main(argv: list[str]) -> None:
    """The command line."""
    sys.exit(guarded(lambda: _predict(argv[1:])))


def _predict(words: Sequence[str]) -> int:
    if len(words) < 2:
        raise ValueError("of what? jaxdistill predict <workdir> <images or texts>")
    from jaxdistill import students

    student = students.load(words[0])
    found = student.predict(_given(student, words[1:]), batch_size=BATCH.value)
    print(as_json(found) if JSON.value else table(found, TOP.value))
    return 0


def _given(student: Any, words: Sequence[str]) -> list[Any]:
    """What stands on the command line as the student takes it."""
    from jaxdistill.students import Texts

    if not isinstance(student.seeing, Texts):
        return list(words)
    texts = []
    for word in words:
        path = Path(word)
        # What is too long for a name of a file is a text.
        is_file = len(word) < 256 and path.is_file()
        texts += path.read_text().splitlines() if is_file else [word]
    return [tuple(text.split("\t")) for text in texts] if student.seeing.pairs else texts


def table(predictions: Sequence[Any], top: int = 3) -> str:
    """Predictions as text, a line each.

    Example:
        >>> from jaxdistill.students import Prediction
        >>> print(table([Prediction("a.png", "classes", {"cat": 0.9, "dog": 0.1})]))
          a.png  cat 90.0 %  dog 10.0 %
    """
    rows = []
    for name, kind, values in predictions:
        if kind == "features":
            shown = " ".join(f"{value:.3f}" for value in values[:6])
            rows.append(
                [name, f"{shown}{' ...' if len(values) > 6 else ''} ({len(values)} numbers)"]
            )
        elif kind == "scores":
            rows.append([name, *(f"{key} {value:.4f}" for key, value in values.items())])
        else:
            said = list(values.items())[:top]
            names = ((repr(k) if kind == "next" else k, v) for k, v in said)
            rows.append([name, *(f"{key} {100 * value:.1f} %" for key, value in names)])
    return aligned(rows)


def as_json(predictions: Sequence[Any]) -> str:
    """Predictions as JSON, a list of ``{"input", "kind", "values"}``.

    Example:
        >>> from jaxdistill.students import Prediction
        >>> as_json([Prediction("a.png", "scores", {"score": 0.5})])
        '[{"input": "a.png", "kind": "scores", "values": {"score": 0.5}}]'
    """
    rows = []
    for name, kind, values in predictions:
        plain = values.tolist() if kind == "features" else values
        rows.append({"input": name, "kind": kind, "values": plain})
    return json.dumps(rows, ensure_ascii=False)


if __name__ == "__main__":
    app.run(main, flags_parser=parsed)
