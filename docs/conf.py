"""The documentation as a site: `make docs`. Its source folder is that of the repository, so that
links between pages and to files are those that a reader of the repository follows."""

from __future__ import annotations

from importlib import metadata

project = "vkemu"
release = metadata.version("vkemu")
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.doctest"]
root_doc = "docs/index"
include_patterns = ["*.md", "docs/*.md", "**/README.md"]
exclude_patterns = [".*", "runs", "dist", "docs/_build"]
html_theme = "furo"
html_title = "vkemu"

myst_heading_anchors = 3  # links to headings, as GitHub makes them
autodoc_typehints = "none"  # the docstrings give shapes and units
autodoc_member_order = "bysource"
