"""The site of docs/: `make docs` builds it, strictly and without a network."""

import sys
from importlib.metadata import version as version_of
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

project = "robust-rlhf"
author = copyright = "The robust-rlhf developers"
version = release = version_of("robust-rlhf")
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "made.docstrings", "made.directives"]
exclude_patterns = ["made"]
html_theme = "furo"
html_title = "robust-rlhf"
html_copy_source = False
html_static_path = ["made/static"]
html_css_files = ["site.css"]
html_last_updated_fmt = None

myst_heading_anchors = 4
myst_enable_extensions = ["colon_fence"]

autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_member_order = "bysource"
autodoc_inherit_docstrings = False
python_use_unqualified_type_names = True
napoleon_use_rtype = False
# Nothing is fetched, so names of other projects have no page to point to; ours must.
nitpick_ignore_regex = [("py:.*", r"^(?!(dro_core|synthetic|proofs_check|llm)\.).*")]


def setup(app):
    """Where CONTRIBUTING, which lies above the pages, is one of them."""

    def beside(app, docname, source):
        if docname != "contributing":
            source[0] = source[0].replace("../CONTRIBUTING.md", "contributing.md")

    app.connect("source-read", beside)
