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

"""What responds to requests: the overview, the metrics, the page's files.

openapi.json describes each response.
"""

from __future__ import annotations

import importlib.resources
import urllib.parse
from typing import Any

from werkzeug import exceptions
from werkzeug.http import generate_etag
from werkzeug.wrappers import Request, Response

from nova_sg import metrics
from nova_sg.monitor import event_streams, overview
from nova_sg.monitor.application import Route, as_json
from nova_sg.servicegroup import description, events

# Members in one response, at most; the next ones are on the next page.
PAGE = 1000

FILES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
    "/map.js": ("map.js", "text/javascript; charset=utf-8"),
    "/updates.js": ("updates.js", "text/javascript; charset=utf-8"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
    "/openapi.json": ("openapi.json", "application/json"),
}


def own_routes() -> list[Route]:
    """Return the routes to what the process shows of itself."""
    return [
        Route("/metrics", _metrics),
        Route("/healthz", lambda request: as_json({"ok": True}), False),
    ]


def _metrics(request: Request) -> Response:
    body, content_type = metrics.render(request.headers.get("Accept", ""))
    return Response(body, content_type=content_type)


class Handlers:
    """Everything that nova-sg-monitor responds with."""

    def __init__(self, shown: overview.Overview) -> None:
        self._overview = shown

    def routes(self) -> list[Route]:
        """Return every path, and what responds to it."""
        folder = importlib.resources.files(__package__) / "static"
        files = [
            Route(path, _file((folder / name).read_bytes(), kind), False)
            for path, (name, kind) in FILES.items()
        ]
        return [
            *own_routes(),
            Route("/readyz", self._ready, False),
            Route("/v1/groups", self._groups),
            Route("/v1/groups/<group>", self._group),
            Route("/v1/groups/<group>/members", self._members),
            Route("/v1/groups/<group>/members/<host>", self._member),
            Route("/v1/events", self._events),
            *files,
        ]

    def _ready(self, request: Request) -> Response:
        missing = list(self._overview.not_ready())
        return as_json(
            {"ready": not missing, "missing": missing}, 503 if missing else 200
        )

    def _groups(self, request: Request) -> Response:
        return as_json(
            {"groups": [_summary(group) for group in self._overview.groups()]}
        )

    def _group(self, request: Request, group: str) -> Response:
        return as_json(_summary(self._find(group)))

    def _members(self, request: Request, group: str) -> Response:
        found = self._find(group)
        query = request.args.to_dict()
        limit = _limit(query)
        kind = query.get("kind")
        if kind is not None and kind not in overview.KINDS:
            raise exceptions.BadRequest(
                f"kind has to be one of {', '.join(overview.KINDS)}"
            )
        domain = query.get("failure_domain")
        marker = query.get("marker", "")
        hosts = sorted(
            host
            for host, one in found.kinds.items()
            if host > marker
            and kind in (None, one)
            and domain in (None, found.domains.get(host))
        )
        known = [found.view.recall(host) for host in hosts[:limit]]
        following = None
        if len(hosts) > limit:
            query["marker"] = hosts[limit - 1]
            following = (
                f"/v1/groups/{urllib.parse.quote(group, safe='')}/members"
                f"?{urllib.parse.urlencode(query)}"
            )
        return as_json(
            {
                "members": [_describe(one) for one in known if one],
                "next": following,
            }
        )

    def _member(self, request: Request, group: str, host: str) -> Response:
        member = self._find(group).view.recall(host)
        if member is None:
            raise exceptions.NotFound(
                f"The group {group} has no member {host}"
            )
        return as_json(_describe(member))

    def _find(self, name: str) -> overview.FollowedGroup:
        group = self._overview.group(name)
        if group is None:
            raise exceptions.NotFound(f"There is no group {name}")
        return group

    def _events(self, request: Request) -> Response:
        try:
            stream = self._overview.streams.subscribe()
        except event_streams.TooManyClients:
            raise exceptions.ServiceUnavailable(
                f"{event_streams.CLIENTS} clients are watching already",
                retry_after=30,
            ) from None
        # nginx must not wait for its end.
        headers = {"X-Accel-Buffering": "no"}
        return Response(
            stream, headers=headers, content_type="text/event-stream"
        )


def _file(content: bytes, kind: str):
    tag = generate_etag(content)

    def respond(request: Request) -> Response:
        response = Response(content, content_type=kind)
        # Weak, as it is that of the compressed file, too.
        response.set_etag(tag, weak=True)
        response.cache_control.no_cache = True
        return response

    return respond


def _limit(query: dict[str, str]) -> int:
    text = query.get("limit", str(PAGE))
    # int() would also take signs, underscores and other scripts.
    if text.isascii() and text.isdigit() and len(text) <= 9 and int(text):
        return min(int(text), PAGE)
    raise exceptions.BadRequest("limit has to be a number from 1 on")


def _summary(group: overview.FollowedGroup) -> dict[str, Any]:
    counts = group.counts()
    return {
        "group": group.name,
        "total": sum(counts.values()),
        "members": counts,
        "backends": group.backends(),
        "disagreements": group.disagreements(),
    }


def _describe(member: description.Member) -> dict[str, Any]:
    """Return what `nova-sg show` shows of a member."""
    fields = member._asdict()
    fields["kind"] = overview.kind(member.state, member.cause)
    fields["last_seen"] = events.iso(member.last_seen)
    fields["failure_domain"] = fields.pop("domain")
    if member.age is not None:
        fields["age"] = round(member.age, 3)
    return fields
