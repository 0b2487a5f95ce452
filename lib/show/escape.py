"""Names from outside in HTML and Markdown: shown as they are, never read as markup."""

import html
from urllib.parse import quote

# What Markdown and MathJax would read; as character references all of them show it as it is.
_MARKUP = str.maketrans({character: f"&#{ord(character)};" for character in "`*[]\\|~$\n\r"})


def escape(text: object) -> str:
    """Return text for HTML (attributes in quotes too) and for Markdown outside of code spans.

    Names of classes, videos, runs, studies and lists, and messages that hold them, may be anything
    that a file system allows. A line break in them starts no new paragraph of Markdown.
    """
    return html.escape(str(text)).translate(_MARKUP)


def escape_url(path: object) -> str:
    """Return a relative path for a link in HTML or Markdown."""
    return quote(str(path), safe="/")
