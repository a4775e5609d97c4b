# Licensed under the Apache License, Version 2.0 (the "License"); you may
# not use this file except in compliance with the License. You may obtain
# a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the
# License for the specific language governing permissions and limitations
# under the License.

"""Sphinx configuration of the documentation."""

project = "nova_sg"
copyright = "nova_sg contributors"
extensions = [
    "cliff.sphinxext",
    "oslo_config.sphinxext",
    "sphinx.ext.autodoc",
]
root_doc = "index"
exclude_patterns = []
pygments_style = "sphinx"
html_theme = "alabaster"
# For the picture of how it works, and for wide tables.
html_theme_options = {"body_max_width": "920px", "page_width": "1200px"}
autodoc_member_order = "bysource"


def _without_field_numbers(app, what, name, obj, options, lines):
    # Python's text for a field of a named tuple that has no explanation.
    if lines and lines[0].startswith("Alias for field number"):
        lines.clear()


def setup(app):
    app.connect("autodoc-process-docstring", _without_field_numbers)
