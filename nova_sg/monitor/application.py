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

"""Requests and responses: a WSGI application that can only be read.

Which requests are allowed, what is escaped or compressed, and what a browser
must not do with a response are settled here, once, for every response.
"""

from __future__ import annotations

import gzip
import hmac
import json
import urllib.parse
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from oslo_log import log as logging
from werkzeug import exceptions, routing
from werkzeug.wrappers import Request, Response

from nova_sg import exception
from nova_sg.conf import CONF

LOG = logging.getLogger(__name__)

# Compressing a response that is smaller, in bytes, is not worth it.
COMPRESS = 1400
METHODS = ("GET", "HEAD")

# Scripts and styles are files of this package: nothing that a member sends
# can be one, and nothing is loaded from another site.
SAFETY = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; "
        "img-src 'self'; connect-src 'self'; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}


class Route(NamedTuple):
    """A path, and what responds to requests for it."""

    #: As werkzeug has it: a part <name> is given to the handler by its name.
    path: str
    handler: Callable[..., Response]
    #: Whether a token is needed, where one is set.
    guarded: bool = True


def as_json(data: Any, status: int = 200) -> Response:
    """Return data as a response."""
    # No browser can take it for HTML.
    text = json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")
    return Response(text, status, content_type="application/json")


def check_options() -> None:
    """Check that a client can send the token.

    :raises ConfigError: it cannot
    """
    token = CONF.monitor.token
    if token is not None and not (
        token.isascii() and token.isprintable() and " " not in token and token
    ):
        raise exception.ConfigError(
            "[monitor] token: it has to be made of letters, digits and "
            "punctuation of ASCII, without spaces. Leave the line out to "
            "have none"
        )


class Application:
    """A WSGI application that responds by its routes."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self._routes = routing.Map(
            [routing.Rule(route.path, endpoint=route) for route in routes],
            merge_slashes=False,
        )

    def __call__(self, environ: dict, start_response: Callable) -> Any:
        request = Request(environ)
        try:
            response = self._respond(request)
        except exceptions.HTTPException as error:
            response = _explain(error)
        except Exception:
            LOG.exception("A request could not be answered")
            response = _explain(
                exceptions.InternalServerError(
                    "Unexpected error; the log has more"
                )
            )
        response.headers.extend(SAFETY)
        # A browser may keep a response that has a tag, and asks whether it
        # is still the same.
        response.cache_control.no_store = "ETag" not in response.headers
        if response.is_sequence:
            _compress(request, response)
            response.make_conditional(request)
        if request.method == "HEAD":
            # A stream would never end.
            response.close()
        return response(environ, start_response)

    def _respond(self, request: Request) -> Response:
        route, names = self._find(request)
        if request.method not in METHODS:
            raise exceptions.MethodNotAllowed(
                METHODS, "Everything here is read-only: GET and HEAD"
            )
        if route.guarded and not _is_allowed(request):
            raise exceptions.Unauthorized(
                "This needs the header Authorization: Bearer TOKEN, with "
                "[monitor] token"
            )
        return route.handler(request, **names)

    def _find(self, request: Request) -> tuple[Route, dict[str, str]]:
        # Not unquoted: there may be a slash in a name, as %2F.
        path = request.environ.get("REQUEST_URI", request.path)
        try:
            route, names = self._routes.bind("").match(path.partition("?")[0])
            return route, {
                name: urllib.parse.unquote_to_bytes(
                    quoted.encode("latin-1")
                ).decode()
                for name, quoted in names.items()
            }
        except exceptions.NotFound:
            raise exceptions.NotFound(
                "There is nothing here; see /openapi.json"
            ) from None
        except UnicodeError:
            raise exceptions.BadRequest("The path is not UTF-8") from None


def _is_allowed(request: Request) -> bool:
    token = CONF.monitor.token
    if token is None:
        return True
    given = request.headers.get("Authorization", "")
    scheme, _, given = given.partition(" ")
    return scheme.lower() == "bearer" and hmac.compare_digest(
        given.strip().encode("latin-1", "replace"), token.encode()
    )


def _explain(error: exceptions.HTTPException) -> Response:
    code = error.code or 500
    response = as_json(
        {"error": {"code": code, "message": error.description}}, code
    )
    for name, value in error.get_headers():
        if name != "Content-Type":
            response.headers[name] = value
    if code == 401:
        response.headers["WWW-Authenticate"] = 'Bearer realm="nova-sg"'
    return response


def _compress(request: Request, response: Response) -> None:
    response.vary.add("Accept-Encoding")
    accepted, body = request.accept_encodings, response.get_data()
    if (
        len(body) >= COMPRESS
        and accepted["gzip"] > 0
        and accepted["gzip"] >= accepted["identity"]
    ):
        response.set_data(gzip.compress(body, 5))
        response.content_encoding = "gzip"
