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

"""The check of nova-sg doctor that several backends agree.

Every member of every group is compared. A difference is a finding if it stays
for longer than reports and refreshes explain.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

from nova_sg import exception
from nova_sg.backends.base import Finding
from nova_sg.conf import CONF
from nova_sg.servicegroup import compare, disagreements, process
from nova_sg.servicegroup.shared import Shared

# Members that are named for each kind of difference; the rest are counted.
NAMED = 20

REMEDIES = {
    compare.UP_DOWN: "It has to report to {secondary}, too: check "
    "[servicegroup] secondary_drivers of its service, and its log",
    compare.DOWN_UP: "It has to report to {primary}, too: check [DEFAULT] "
    "servicegroup_driver of its service, and its log",
    compare.FORCED_NOT: "Run: nova-sg force-down {host} --group {group}; or "
    "the same with --unset",
}
REMEDIES[compare.UP_UNKNOWN] = REMEDIES[compare.UP_DOWN]
REMEDIES[compare.UNKNOWN_UP] = REMEDIES[compare.DOWN_UP]
REMEDIES[compare.NOT_FORCED] = REMEDIES[compare.FORCED_NOT]

#: (group, host, secondary): the kind.
Differences = dict[tuple[str, str, str], str]


def check(names: list[str]) -> Iterator[Finding]:
    """Compare the drivers in use.

    :param names: the drivers, the primary first
    """
    subject = f"drivers {', '.join(names)}"
    with contextlib.ExitStack() as stack:
        shareds = []
        for name in names:
            try:
                shared = Shared(process.load(name))
            except Exception:
                # The check of that driver has reported it.
                continue
            stack.callback(shared.close)
            shareds.append(shared)
        if len(shareds) < 2 or shareds[0].driver.name != names[0]:
            return
        try:
            groups = {g for one in shareds for g in one.groups()}
            found, members = _differences(shareds, groups)
            # A member may be up in one backend and not yet in another.
            give_up = time.monotonic() + disagreements.settling_time()
            while found and time.monotonic() < give_up:
                time.sleep(max(1.0, CONF.servicegroup.view_refresh_interval))
                now, members = _differences(shareds, groups)
                found = {
                    key: kind
                    for key, kind in found.items()
                    if now.get(key) == kind
                }
        except exception.NovaSGError as error:
            yield Finding(
                False,
                subject,
                f"they cannot be compared: {error}",
                "Repair the backend that does not answer, then run this again",
            )
            return
    if not found:
        yield Finding(
            True,
            subject,
            f"they agree: members {members}, groups {len(groups)}",
        )
        return
    yield from _findings(found, names[0])


def _differences(
    shareds: list[Shared], groups: set[str]
) -> tuple[Differences, int]:
    """Refresh all groups from all drivers.

    :returns: the differences, and the number of members
    :raises BackendError: a driver does not answer
    """
    differences: Differences = {}
    members = 0
    for group in sorted(groups):
        views = [one.view(group) for one in shareds]
        for view in views:
            view.refresh()
            if not view.answering():
                raise exception.BackendError(f"{view.name}: {view.trouble}")
        _, *others = views
        verdicts = [view.verdicts() for view in views]
        hosts = set().union(*verdicts)
        members += len(hosts)
        for other, theirs in zip(others, verdicts[1:], strict=True):
            for host in sorted(hosts):
                kind = compare.kind(verdicts[0].get(host), theirs.get(host))
                if kind is not None:
                    differences[group, host, other.name] = kind
    return differences, members


def _findings(found: Differences, primary: str) -> Iterator[Finding]:
    named: dict[tuple[str, str], int] = {}
    for (group, host, other), kind in found.items():
        count = named[other, kind] = named.get((other, kind), 0) + 1
        if count > NAMED:
            continue
        names = {"primary": primary, "secondary": other}
        yield Finding(
            False,
            f"member {host} of {group}",
            compare.KINDS[kind].format(**names),
            REMEDIES[kind].format(host=host, group=group, **names),
        )
    for (other, kind), count in named.items():
        if count > NAMED:
            names = {"primary": primary, "secondary": other}
            yield Finding(
                False,
                f"drivers {primary}, {other}",
                f"{count - NAMED} more members are "
                + compare.KINDS[kind].format(**names),
            )
