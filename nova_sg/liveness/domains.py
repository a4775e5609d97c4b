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

"""Failure domains: which members fail together, such as those of a rack."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nova_sg.liveness.model import Member


# How many answers are remembered; with more, all are forgotten.
MOST = 100_000


class Domains:
    """The failure domains of hosts, as an operator's map names them.

    A member's own report counts first. Immutable, apart from what it
    remembers of its own answers.

    :param lines: in the order of the map: a host's name, or a shell pattern,
        and the domain. The first line that matches counts
    """

    def __init__(self, lines: Iterable[tuple[str, str]] = ()) -> None:
        # By host: the number of its line, and the domain.
        self._hosts: dict[str, tuple[int, str]] = {}
        self._patterns: list[tuple[int, re.Pattern[str], str]] = []
        # Answers that took a pattern, by host.
        self._answers: dict[str, str | None] = {}
        for number, (host, domain) in enumerate(lines):
            if any(sign in host for sign in "*?["):
                pattern = re.compile(fnmatch.translate(host))
                self._patterns.append((number, pattern, domain))
            else:
                self._hosts.setdefault(host, (number, domain))

    def of(self, member: Member) -> str | None:
        """Return a member's failure domain; None: it is not known."""
        own = reported(member)
        return own if own is not None else self.of_host(member.host)

    def of_host(self, host: str) -> str | None:
        """Return the domain of a host by the map; None: it has none."""
        if not self._patterns:
            found = self._hosts.get(host)
            return None if found is None else found[1]
        answers = self._answers
        if host not in answers:
            if len(answers) >= MOST:
                answers = self._answers = {}
            answers[host] = self._match(host)
        return answers[host]

    def _match(self, host: str) -> str | None:
        number, domain = self._hosts.get(host, (None, None))
        for at, pattern, other in self._patterns:
            if number is not None and at > number:
                break
            if pattern.match(host):
                return other
        return domain


def reported(member: Member) -> str | None:
    """Return the domain that a member reports; None: it reports none.

    Of several backends the one with its newest report counts.
    """
    histories = member.histories
    if len(histories) == 1:
        known = histories[0]
        return None if known is None else known.domain
    newest = max(
        (one for one in histories if one is not None and one.domain),
        key=lambda one: one.report,
        default=None,
    )
    return None if newest is None else newest.domain


#: No host has a domain by a map.
NO_DOMAINS = Domains()
