"""What notebooks show of a run; needs nothing but a browser."""

from __future__ import annotations

import html
from pathlib import Path


class Page:
    """A page of HTML within a notebook.

    Args:
        text: the page.
        height: in pixels.
    """

    def __init__(self, text: str, height: int = 700):
        self._text, self._height = text, height

    def _repr_html_(self) -> str:
        page = html.escape(self._text)
        style = f'width="100%" height="{self._height}" style="border: 0"'
        return f'<iframe srcdoc="{page}" {style}></iframe>'


def report(workdir: Path | str, height: int = 700) -> Page:
    """The report of a run, or the answer of a claim, to be the last line of a notebook's cell.

    Args:
        workdir: where the run left it.
        height: in pixels.

    Raises:
        FileNotFoundError: if there is none.

    Example:
        >>> report("runs/nothing")
        Traceback (most recent call last):
        FileNotFoundError: runs/nothing holds no report.html and no claim.html...
    """
    for name in ("report.html", "claim.html"):
        if (path := Path(workdir) / name).exists():
            return Page(path.read_text(encoding="utf-8"), height)
    raise FileNotFoundError(
        f"{workdir} holds no report.html and no claim.html: the run is not done, or elsewhere"
    )
