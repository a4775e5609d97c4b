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

"""The command and the webhook, as ways to act upon an event."""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.parse
import urllib.request
from typing import Any

from nova_sg import command, exception, version
from nova_sg.actions import schedule
from nova_sg.actions.engine import Failed, Handler
from nova_sg.servicegroup import events

# Characters of a failed command's output that are logged: the last ones.
_OUTPUT = 500


def body(job: schedule.Job) -> bytes:
    """Return an event as JSON, with the job's id and the attempt."""
    fields = events.as_dict(job.event)
    fields |= {"id": job.id, "attempt": job.attempts}
    return json.dumps(fields).encode()


class Command(Handler):
    """Runs a program for each event.

    :param line: the program and its arguments, quoted as for a shell
    :param limit: seconds after which it is killed
    :raises ConfigError: the line cannot be read
    """

    def __init__(self, line: str, limit: float) -> None:
        self._words = command.split(line, "[events] exec")
        self._limit = limit
        self.longest = limit
        self.name = f"the command {os.path.basename(self._words[0])}"

    def act(self, job: schedule.Job) -> None:
        event = job.event
        variables = {
            "TYPE": event.type,
            "GROUP": event.group,
            "HOST": event.host,
            "CAUSE": event.cause,
            "REASON": event.reason,
            "ID": job.id,
            "FAILURE_DOMAIN": event.domain or "",
        }
        try:
            # Several may run at a time.
            ended = command.Command(self._words).run(
                self._limit,
                body(job),
                {f"NOVA_SG_{name}": text for name, text in variables.items()},
            )
        except (command.CannotRun, command.TimeIsOver) as error:
            raise Failed(str(error)) from None
        if ended.status:
            text = ended.output[-_OUTPUT:]
            raise Failed(f"status {ended.status}: {text}")


class Webhook(Handler):
    """Posts each event to a URL.

    :param limit: seconds for the connection, and for the answer
    :param token: a token for the webhook; None: it gets none
    :raises ConfigError: the URL is wrong
    """

    def __init__(self, url: str, limit: float, token: str | None) -> None:
        parts = urllib.parse.urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise exception.ConfigError(
                "[events] webhook: not a URL that begins with http:// or "
                "https://"
            )
        self._url = url
        self._limit = limit
        # The connection, the request and the answer.
        self.longest = 3 * limit
        self._token = token
        # The rest of the URL may hold secrets.
        self.name = f"the webhook at {parts.hostname}"
        self._opener = urllib.request.build_opener(_NoRedirects)

    def act(self, job: schedule.Job) -> None:
        headers = {
            "Content-Type": "application/json",
            "User-Agent": f"nova-sg/{version.version_string()}",
        }
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        request = urllib.request.Request(
            self._url, data=body(job), headers=headers, method="POST"
        )
        try:
            with self._opener.open(request, timeout=self._limit) as answer:
                status = answer.status
        except urllib.error.HTTPError as error:
            error.close()
            raise Failed(f"it answers {error.code}") from None
        except urllib.error.URLError as error:
            raise Failed(str(error.reason)) from error
        except (OSError, ValueError) as error:
            raise Failed(str(error) or type(error).__name__) from error
        except Exception as error:
            # http.client raises various errors for an invalid answer.
            raise Failed(f"{type(error).__name__}: {error}") from error
        if not 200 <= status < 300:
            raise Failed(f"it answers {status}")


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Makes a redirection an error."""

    def redirect_request(self, *args: Any) -> None:
        return None
