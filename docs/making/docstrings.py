"""Docstrings as Markdown: what is written there for ``help()`` and doctest, in the form that the pages need."""

from __future__ import annotations

import re
from typing import Any

import griffe

_ROLE = re.compile(r":(?:class|func|meth|mod):`([\w.]+)`")
_LITERAL = re.compile(r"::$", flags=re.MULTILINE)
_TOGETHER = re.compile(r"^( +)(\*{0,2}\w+(?:, \*{0,2}\w+)+)(: .*\n(?:\1 +\S.*\n)*)", flags=re.MULTILINE)
_DOCTEST = re.compile(r"(?<=\n)( *)>>> .*\n(?:\1\S.*\n?)*")


def as_markdown(text: str) -> str:
    """A docstring whose roles are code, whose literal blocks are Markdown's, and whose doctests are examples.

    Arguments that are documented together have an entry each, with the same words.

    Args:
        text: in Google's style, without the indentation of its place.
    """
    text = _LITERAL.sub(":", _ROLE.sub(r"`\1`", text))
    text = _TOGETHER.sub(_apart, text + "\n")
    return _DOCTEST.sub(_example, text).rstrip("\n")


def with_links(text: str) -> str:
    """Text with its addresses, and the numbers of arXiv, as links."""
    text = re.sub(r"(?<![<(/])(https?://[^\s,;)]+[^\s,;).])", r"<\1>", text)
    return re.sub(r"arXiv (\d{4}\.\d{5})", r"[arXiv \1](https://arxiv.org/abs/\1)", text)


def _apart(match: re.Match[str]) -> str:
    indent, names, rest = match.groups()
    return "".join(f"{indent}{name}{rest}" for name in names.split(", "))


def _example(match: re.Match[str]) -> str:
    if match[1]:  # within a section already
        return match[0]
    return "Examples:\n" + "".join(f"    {line}\n" for line in match[0].splitlines())


class AsMarkdown(griffe.Extension):
    """Applies ``as_markdown`` to every docstring that is read."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Called by griffe for each object that it has read."""
        if obj.docstring is not None:
            obj.docstring.value = as_markdown(obj.docstring.value)
