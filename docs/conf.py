"""Configures Sphinx: pages in Markdown, the API from docstrings, no notebook executed.

python -m sphinx -W --keep-going docs docs/_build
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # the pages are those of this checkout

from dsd_jax.version import __version__

project = "dsd_jax"
author = "the dsd_jax maintainers"
project_copyright = "the dsd_jax maintainers, Apache-2.0"
release = version = __version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
]
exclude_patterns = ["_build", "requirements.txt"]

nb_execution_mode = "off"
myst_enable_extensions = ["alert", "colon_fence", "deflist"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 70
highlight_language = "text"  # of blocks that name none
default_role = "code"  # what docstrings have in single backticks
napoleon_use_rtype = False

html_theme = "sphinx_book_theme"
html_title = "dsd_jax"
html_static_path = ["_static"]
html_css_files = ["pages.css"]
html_theme_options = {
    "use_download_button": False,
    "use_fullscreen_button": False,
    "navbar_persistent": [],  # the sidebar has the search
    "show_toc_level": 2,
}
