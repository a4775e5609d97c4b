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

"""Makes requests from an OpenAPI file, and checks answers by it."""

import json
import re
import urllib.parse
from typing import NamedTuple

import jsonschema
from hypothesis import strategies as st

# The answer to this one does not end.
ENDLESS = "/v1/events"
#: Existing names, used beside many that do not exist.
NAMES = {"group": "compute", "host": "one"}


class Path(NamedTuple):
    template: str
    filled: str


class Description:
    """An API's description of itself."""

    def __init__(self, spec):
        self._spec = spec

    def paths(self):
        """Return the paths of the API."""
        return [path for path in self._spec["paths"] if path != ENDLESS]

    def existing(self, template):
        """Return (Path, query) of an existing resource at a path."""
        names = re.findall(r"\{(\w+)\}", template)
        filled = template.format(**{name: NAMES[name] for name in names})
        return Path(template, filled), ""

    def requests(self):
        """Return a strategy for (Path, query), right ones and wrong ones."""
        return st.sampled_from(self.paths()).flatmap(self._request)

    def _request(self, template):
        parameters = self._spec["paths"][template]["get"].get("parameters", [])
        words = {
            one["name"]: st.one_of(st.just(NAMES[one["name"]]), _words())
            for one in parameters
            if one["in"] == "path"
        }
        query = {
            one["name"]: st.one_of(_words(), self._right(one["schema"]))
            for one in parameters
            if one["in"] == "query"
        }
        return st.builds(
            lambda filled, asked: (
                Path(
                    template,
                    re.sub(
                        r"\{(\w+)\}",
                        lambda word: urllib.parse.quote(filled[word[1]], ""),
                        template,
                    ),
                ),
                f"?{urllib.parse.urlencode(asked)}" if asked else "",
            ),
            st.fixed_dictionaries(words),
            st.fixed_dictionaries({}, optional=query),
        )

    def _right(self, schema):
        schema = self._resolved(schema)
        if "enum" in schema:
            return st.sampled_from(schema["enum"])
        if schema["type"] == "integer":
            return st.integers(schema["minimum"], schema["maximum"])
        return _words()

    def _resolved(self, schema):
        if "$ref" not in schema:
            return schema
        return self._spec["components"]["schemas"][
            schema["$ref"].rpartition("/")[2]
        ]

    def check(self, template, answer):
        """Check that an answer is one of those described."""
        described = self._spec["paths"][template]["get"]["responses"]
        if str(answer.status) not in described:
            raise AssertionError(f"{template}: {answer.status} {answer.body}")
        content = described[str(answer.status)]["content"]
        kind = answer.headers["Content-Type"].partition(";")[0]
        if kind not in content:
            raise AssertionError(f"{template}: {kind}")
        if kind == "application/json":
            self._validate(content[kind]["schema"], json.loads(answer.body))

    def check_schema(self, name, data):
        """Check that data conforms to a schema."""
        self._validate({"$ref": f"#/components/schemas/{name}"}, data)

    def _validate(self, schema, data):
        jsonschema.Draft202012Validator(
            {**schema, "components": self._spec["components"]}
        ).validate(data)


def _words():
    # Without the parts of a path that clients resolve themselves.
    return st.text(min_size=1, max_size=12).filter(
        lambda text: text not in (".", "..") and _is_utf8(text)
    )


def _is_utf8(text):
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
