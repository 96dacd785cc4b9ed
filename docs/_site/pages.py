"""Pages as the site shows them: links as on GitHub lead to pages here, formulas are MathML."""

import logging
import re
from html import unescape
from pathlib import Path

from latex2mathml.converter import convert
from mkdocs.structure.files import File

LOG = logging.getLogger("mkdocs.hooks.pages")
ROOT = Path(__file__).parents[2]
BESIDE = ("CONTRIBUTING.md", "CHANGELOG.md")  # pages of the site that lie beside docs/
LINK = re.compile(r"(```.*?```|`[^`\n]*`)|(?<=\]\()([^)\s#]+)((?:#[^)\s]*)?\))", re.DOTALL)
FORMULA = re.compile(r'<(span|div) class="arithmatex">\\([(\[])(.*?)\\[)\]]</\1>', re.DOTALL)


def on_files(files, config):
    """Adds what the pages show and what lies outside of docs/."""
    pictures = (str(path.relative_to(ROOT)) for path in ROOT.glob("benchmarks/results/*.svg"))
    for name in (*BESIDE, *pictures):
        files.append(File(name, str(ROOT), config.site_dir, config.use_directory_urls))
    return files


def on_page_markdown(markdown, page, config, files):
    """Leads every relative link to a page of the site, or to the file in the repository."""
    here = Path(page.file.abs_src_path).parent

    def lead(found):
        code, link, rest = found.groups()
        if code or re.match(r"[a-z]+:", link):
            return found[0]
        there = (here / link).resolve()
        name = str(there.relative_to(ROOT))
        inside = name.removeprefix("docs/")
        if files.get_file_from_path(inside):
            depth = page.file.src_uri.count("/")
            return "../" * depth + inside + rest
        if there.exists():
            kind = "tree" if there.is_dir() else "blob"
            return f"{config.repo_url}/{kind}/main/{name}{rest}"
        return found[0]  # mkdocs says that it leads nowhere

    return LINK.sub(lead, markdown)


def on_page_content(html, page, config, files):
    """Writes formulas as MathML, which browsers show without a program, and bars of code in tables
    as GitHub does."""

    def mathml(found):
        formula = unescape(found[3]).strip()
        # What the converter does not know, as something that it does.
        formula = formula.replace(r"\arg", r"\mathrm{arg}\,")
        formula = re.sub(r"\\[bB]igl(?=\\)", r"\\left", formula)
        formula = re.sub(r"\\[bB]igr(?=\\)", r"\\right", formula)
        made = convert(formula, display="inline" if found[2] == "(" else "block")
        if "\\" in made:
            LOG.warning("%s: a formula is not understood: %s", page.file.src_uri, formula)
        return made

    html = re.sub(r"<code>[^<]*</code>", lambda code: code[0].replace(r"\|", "|"), html)
    return FORMULA.sub(mathml, html)
