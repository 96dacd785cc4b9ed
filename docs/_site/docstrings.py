"""Docstrings as the site shows them: the roles and directives of their one style as Markdown."""

import logging
import re
from textwrap import dedent, indent

import griffe

REPOSITORY = "https://github.com/jaxdistill/jaxdistill/blob/main"
LOG = logging.getLogger("mkdocs.docstrings")
ROLE = re.compile(r":(?:class|func|meth|mod|data|attr):`~?([\w.]+)`")
MATH = re.compile(r"^( *)\.\. math::(.*\n(?:\1 +\S.*\n|[ \t]*\n(?=\1 +\S))*)", re.MULTILINE)
PAPERS = re.compile(r"^References:\n((?: +\S.*\n?|\n(?= ))+)", re.MULTILINE)


class AsMarkdown(griffe.Extension):
    """Rewrites every docstring when all of the package is known."""

    def on_object(self, *, obj: griffe.Object, loader: griffe.GriffeLoader, **_) -> None:
        if obj.docstring:
            obj.docstring.value = as_markdown(obj.docstring.value + "\n", obj) + _source(obj)


def as_markdown(text: str, obj: griffe.Object) -> str:
    """A docstring with links, formulas and headings in Markdown."""
    text = MATH.sub(_formula, text)
    text = re.sub(r":math:`([^`]+)`", r"$\1$", text)
    text = PAPERS.sub(lambda found: "**References:**\n\n" + _papers(found[1]), text)
    text = re.sub(r"^Example:$", "Examples:", text, flags=re.MULTILINE)
    text = re.sub(r"::\n\n(?= )", ":\n\n", text)
    return ROLE.sub(lambda found: _link(found[1], obj), text)


def _source(obj: griffe.Object) -> str:
    """Where a function or a class is written; methods are in their class."""
    if not (obj.is_function or obj.is_class) or not obj.parent.is_module:
        return ""
    place = f"{obj.relative_package_filepath}#L{obj.lineno}-L{obj.endlineno}"
    return f"\n[Source]({REPOSITORY}/{place}){{ .source }}\n"


def _formula(found: re.Match) -> str:
    lines = [line.strip() for line in found[2].strip().splitlines()]
    return indent("\n$$\n" + "\n".join(lines) + "\n$$\n\n", found[1])


def _papers(block: str) -> str:
    """One paper a line: one that ends with a full stop ends a paper."""
    return re.sub(r"\.\n(?=\S)", ".<br>\n", dedent(block).strip()) + "\n"


def _link(name: str, obj: griffe.Object) -> str:
    """A link to a name of the package; plain code for a name of another one."""
    short = name.rsplit(".", 1)[-1]
    try:
        path = name if name.startswith("jaxdistill.") else obj.resolve(name)
    except griffe.NameResolutionError:
        if "." not in name:
            LOG.warning("%s: nothing is called %s", obj.path, name)
        return f"`{short if '.' not in name else name}`"
    if not path.startswith("jaxdistill"):
        return f"`{name}`"
    return f'<autoref optional identifier="{path}"><code>{short}</code></autoref>'
