"""The documentation site: `sphinx-build -W --keep-going -b html docs build/site`. Nothing is asked of the internet."""

import re
from pathlib import Path
from typing import Any

import transferscope

project = "transferscope"
author = "The transferscope developers"
copyright = author
release = transferscope.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
]
suppress_warnings = ["myst.header"]  # files that benchmarks wrote may leave out a level of headings

myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True
napoleon_google_docstring = False

copybutton_exclude = ".linenos, .gp, .go"
copybutton_only_copy_prompt_lines = True
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

html_theme = "pydata_sphinx_theme"
html_title = "transferscope"
html_static_path = ["static"]
html_css_files = ["pages.css"]
html_show_sourcelink = False
html_copy_source = False
html_theme_options = {
    "logo": {"text": "transferscope"},
    "header_links_before_dropdown": 7,
    "navbar_end": ["theme-switcher"],
    "footer_end": [],
    # Elsewhere there is room for wide tables and for what the terminal shows.
    "secondary_sidebar_items": {
        page: ["page-toc"] for page in ("api/*", "benchmarks/*", "methods", "numbers", "changelog")
    },
    "show_nav_level": 2,
    "show_toc_level": 2,
}
html_context = {"default_mode": "auto"}
html_sidebars = {"tutorial": [], "installation": [], "examples": []}


def _to_pages(_app: Any, _path: Path, _parent: str, content: list[str]) -> None:
    """Lead links between included files to the pages here that include them."""
    content[0] = re.sub(r"\]\((?:(?:\.\./)+|benchmarks/)?results/([\w-]+\.md)", r"](/benchmarks/\1", content[0])
    content[0] = content[0].replace("](groundtruth/README.md", "](/benchmarks/groundtruth-data.md")
    content[0] = re.sub(r"\]\((?:groundtruth/)?v2/README\.md", "](/benchmarks/groundtruth-v2-data.md", content[0])
    content[0] = content[0].replace("](benchmarks/README.md", "](/benchmarks/commands.md")
    content[0] = re.sub(r"\]\((?:\.\./)?docs/", "](/", content[0])


def setup(app: Any) -> None:
    """Register what is done with files on the way in."""
    app.connect("include-read", _to_pages)
