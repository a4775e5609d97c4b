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

"""Requests and answers: a WSGI application that can only be read.

Who may ask, what is escaped or compressed, and what a browser is told to
keep off are settled here, once, for every answer.
"""

from __future__ import annotations

import gzip
import hashlib
import hmac
import json
import urllib.parse
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from oslo_log import log as logging

from nova_sg import exception
from nova_sg.conf import CONF
from nova_sg.monitor import feed

LOG = logging.getLogger(__name__)

# Smaller answers are not worth it.
COMPRESS = 1400

PHRASES = {
    200: "OK",
    304: "Not Modified",
    400: "Bad Request",
    401: "Unauthorized",
    404: "Not Found",
    405: "Method Not Allowed",
    500: "Internal Server Error",
    503: "Service Unavailable",
}

# Scripts and styles are files of ours: nothing that comes from a member can
# be one, and nothing is loaded from anywhere else.
SAFETY = (
    (
        "Content-Security-Policy",
        "default-src 'none'; script-src 'self'; style-src 'self'; "
        "img-src 'self'; connect-src 'self'; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'",
    ),
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
    ("Referrer-Policy", "no-referrer"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
)


class Request(NamedTuple):
    """What is asked."""

    #: The words that stand in the path for the words in braces.
    words: dict[str, str]
    query: dict[str, str]
    accept: str


class Answer(NamedTuple):
    """What is answered; a body that is no bytes is sent as it comes."""

    body: bytes | feed.Stream
    type: str = "application/json"
    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    #: Whether a browser may ask again whether it has changed, by its digest.
    keep: bool = False


class Route(NamedTuple):
    """Who answers what."""

    #: A path, with words in braces for what stands there.
    path: str
    handler: Callable[[Request], Answer]
    #: Whether a token is needed, where one is set.
    guarded: bool = True


class Problem(Exception):
    """What is asked cannot be answered."""

    def __init__(
        self, status: int, text: str, *headers: tuple[str, str]
    ) -> None:
        super().__init__(text)
        self.status = status
        self.headers = headers


def as_json(data: Any, status: int = 200) -> Answer:
    """Answer with data as JSON."""
    # Nobody can take it for HTML.
    text = json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")
    return Answer(text.encode(), status=status)


def check_options() -> None:
    """See to it that a client can bring the token along.

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
    """A WSGI application that answers by its routes."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self._routes = [
            (route.path.split("/")[1:], route) for route in routes
        ]

    def __call__(self, environ: dict, start_response: Callable) -> Any:
        try:
            answer = self._answer(environ)
        except Problem as problem:
            answer = _explain(problem)
        except Exception:
            LOG.exception("A request could not be answered")
            answer = _explain(
                Problem(500, "Unexpected error; the log has more")
            )
        return _send(environ, start_response, answer)

    def _answer(self, environ: dict) -> Answer:
        # As it was sent: a name may have a slash in it, quoted.
        path = environ.get("RAW_PATH_INFO", environ["PATH_INFO"])
        segments = [_unquote(part) for part in path.split("/")[1:]]
        route, words = self._find(segments)
        if environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
            raise Problem(
                405,
                "Everything here is read-only: GET and HEAD",
                ("Allow", "GET, HEAD"),
            )
        if route.guarded and not _is_allowed(environ):
            raise Problem(
                401,
                "This needs the header Authorization: Bearer TOKEN, with "
                "[monitor] token",
                ("WWW-Authenticate", 'Bearer realm="nova-sg"'),
            )
        query = dict(
            urllib.parse.parse_qsl(
                environ.get("QUERY_STRING", ""), keep_blank_values=True
            )
        )
        return route.handler(
            Request(words, query, environ.get("HTTP_ACCEPT", ""))
        )

    def _find(self, segments: list[str]) -> tuple[Route, dict[str, str]]:
        for pattern, route in self._routes:
            if len(pattern) != len(segments):
                continue
            words = {}
            for expected, found in zip(pattern, segments, strict=True):
                if expected.startswith("{"):
                    words[expected[1:-1]] = found
                elif expected != found:
                    break
            else:
                return route, words
        raise Problem(404, "There is nothing here; see /openapi.json")


def _unquote(text: str) -> str:
    try:
        return urllib.parse.unquote(text, errors="strict")
    except UnicodeDecodeError:
        raise Problem(400, "The path is not UTF-8") from None


def _is_allowed(environ: dict) -> bool:
    token = CONF.monitor.token
    if token is None:
        return True
    scheme, _, given = environ.get("HTTP_AUTHORIZATION", "").partition(" ")
    return scheme.lower() == "bearer" and hmac.compare_digest(
        given.strip().encode("latin-1", "replace"), token.encode()
    )


def _explain(problem: Problem) -> Answer:
    answer = as_json(
        {"error": {"code": problem.status, "message": str(problem)}},
        problem.status,
    )
    return answer._replace(headers=tuple(problem.headers))


def _send(environ: dict, start_response: Callable, answer: Answer) -> Any:
    status, body = answer.status, answer.body
    headers = [("Content-Type", answer.type), *answer.headers, *SAFETY]
    if answer.keep:
        assert isinstance(body, bytes)
        tag = f'"{hashlib.sha256(body).hexdigest()[:24]}"'
        headers += [("Cache-Control", "no-cache"), ("ETag", tag)]
        if tag in environ.get("HTTP_IF_NONE_MATCH", ""):
            status, body = 304, b""
    else:
        headers.append(("Cache-Control", "no-store"))
    if isinstance(body, bytes) and status != 304:
        headers.append(("Vary", "Accept-Encoding"))
        coding = environ.get("HTTP_ACCEPT_ENCODING", "")
        if len(body) >= COMPRESS and "gzip" in coding:
            body = gzip.compress(body, 5)
            headers.append(("Content-Encoding", "gzip"))
        headers.append(("Content-Length", str(len(body))))
    if environ["REQUEST_METHOD"] == "HEAD" or status == 304:
        if not isinstance(body, bytes):
            body.close()
        body = b""
    start_response(f"{status} {PHRASES[status]}", headers)
    return [body] if isinstance(body, bytes) else body
