"""How `script/docs` makes a site of these pages; they read well on a forge too."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from pygments.lexers.special import TextLexer
from sphinx.application import Sphinx
from sphinx.search.en import SearchEnglish

DOCS = Path(__file__).resolve().parent
#: A link of Markdown to a place in this repository.
LINK = re.compile(r"(?<!!)\[(?P<text>[^\]]+)\]\((?P<target>\.\./[^)#\s]+)(?P<anchor>#[^)\s]*)?\)")

project = "Channels"
html_title = "Channels"
root_doc = "index"
# The contents as a forge shows them; `index` is the site's.
exclude_patterns = ["README.md"]
extensions = ["myst_parser", "sphinx_copybutton"]
myst_heading_anchors = 4
# A flag keeps both of its dashes, and a message that is looked up its quotes.
smartquotes = False
html_theme = "furo"
html_show_sphinx = False
html_show_copyright = False
html_copy_source = False
html_show_sourcelink = False
html_static_path = ["_static"]
html_css_files = ["site.css"]
# Behind the theme's own search, which it adds to.
html_js_files = [("site.js", {"defer": "defer"})]
# Only what is typed is copied: no prompt, no answer.
copybutton_prompt_text = r"\$ |>>> "
copybutton_prompt_is_regexp = True


class SearchWithNumbers(SearchEnglish):
    """Close codes, statuses and ports are words; see site.js for the other half."""

    def word_filter(self, word: str) -> bool:
        return (word.isdigit() and len(word) > 2) or super().word_filter(word)


def name_what_is_outside(_app: Sphinx, page: str, source: list[str]) -> None:
    """Put a path in the place of a link that leaves the pages: the site has no such file."""
    folder = (DOCS / page).parent

    def shown(found: re.Match[str]) -> str:
        target = (folder / found["target"]).resolve()
        if target.is_relative_to(DOCS):
            return found[0]
        text = found["text"].replace("`", "")
        path = target.relative_to(DOCS.parent)
        return f"`{path}`" if text == str(path) else f"{text} (`{path}`)"

    source[0] = LINK.sub(shown, source[0])


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("source-read", name_what_is_outside)
    app.add_search_language(SearchWithNumbers)
    app.add_lexer("haproxy", TextLexer)
    return {"parallel_read_safe": True}
