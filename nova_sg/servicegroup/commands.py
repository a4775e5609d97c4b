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

"""What operators command about members: in all backends of a process.

A secondary driver that misses a command is logged. If the command has no
effect without that driver, it is an error.
"""

from __future__ import annotations

from collections.abc import Callable

from oslo_log import log as logging

from nova_sg import exception
from nova_sg.backends import base
from nova_sg.liveness.model import FORCED_DOWN, NOT_A_MEMBER
from nova_sg.servicegroup import driver_calls
from nova_sg.servicegroup.shared import Shared

LOG = logging.getLogger(__name__)


def force_down(shared: Shared, host: str, group: str, forced: bool) -> None:
    """Declare a member down whatever it reports, or take that back.

    :raises MemberNotFound: no backend knows such a member
    :raises BackendError: the primary's backend was not told; or it is taken
        back and a backend was not told, which all others were
    """
    _execute(
        shared,
        host,
        group,
        lambda one: one.force_down(group, host, forced),
        # A member that is forced down in any backend is down.
        needs_all=not forced,
    )
    shared.note_own_action(group, host, FORCED_DOWN if forced else None)


def note_crash(shared: Shared, host: str, group: str) -> bool:
    """Note that a member's process has ended without leaving.

    :returns: whether a backend noted it, see Driver.note_crash()
    :raises BackendError: a backend was not told; all others were
    """
    calls = driver_calls.start(
        shared.observing(), lambda one: one.note_crash(group, host)
    )
    done = driver_calls.wait(calls)
    failed = [
        f"{call.driver.name}: {call.error}"
        for call in done
        if call.error is not None
    ]
    if failed:
        raise exception.BackendError("; ".join(failed))
    return any(call.answer for call in done)


def forget(shared: Shared, host: str, group: str) -> None:
    """Remove a member that is not up.

    :raises MemberNotFound: no backend knows such a member
    :raises MemberIsUp: it is up
    :raises ServiceGroupUnavailable: it is not known whether it is up
    :raises BackendError: a backend was not told
    """
    group_view = shared.view(group)
    group_view.refresh()
    host = group_view.observer.name_of(host)
    try:
        # Whether it reports, not whether it is forced down.
        alive = group_view.is_alive(host)
    except exception.MemberNotFound:
        # It may be there, and be too old to be listed.
        alive = False
    if alive:
        raise exception.MemberIsUp(
            f"{host} still reports to the group {group}; stop it first"
        )
    _execute(
        shared,
        host,
        group,
        lambda one: one.forget(group, host),
        # A member that any backend has is a member.
        needs_all=True,
    )
    shared.note_own_action(group, host, NOT_A_MEMBER)


def stale(shared: Shared, group: str, age: float) -> list[str]:
    """Return the names of members that are down for good, sorted.

    Also those that are not listed any more.

    :param age: seconds for which each of them has shown no life
    :raises ServiceGroupUnavailable: no backend has answered for
        service_down_time
    :raises BackendError: a backend does not answer
    """
    group_view = shared.view(group)
    found = set(group_view.stale(age))
    for driver in shared.observing():
        for host, silent in driver.unlisted(group).items():
            if silent >= age and not group_view.knows(host):
                found.add(host)
    return sorted(found)


def record_deleted(shared: Shared, host: str, group: str) -> None:
    """Remove a member whose record Nova has deleted.

    Also a member that is up: if its service runs, it reports again.

    :raises BackendError: a backend was not told; all others were
    """
    if not shared.observing():
        # The record was all that there was.
        return
    observer = shared.view(group).observer
    observer.keep_fresh()
    host = observer.name_of(host)
    calls = driver_calls.start(
        shared.observing(), lambda one: one.forget(group, host)
    )
    failed = [
        f"{call.driver.name}: {call.error}"
        for call in driver_calls.wait(calls)
        if call.error is not None
        and not isinstance(call.error, exception.MemberNotFound)
    ]
    if len(failed) < len(calls):
        shared.note_own_action(group, host, NOT_A_MEMBER)
    if failed:
        raise exception.BackendError("; ".join(failed))


def _execute(
    shared: Shared,
    host: str,
    group: str,
    command: Callable[[base.Driver], None],
    needs_all: bool,
) -> None:
    """Execute an operator's command about a member in all backends.

    :param needs_all: whether it has no effect before all backends have it
    :raises MemberNotFound: no backend knows such a member
    :raises BackendError: the primary's backend was not told; with needs_all
        also if another one was not told
    """
    calls = driver_calls.start(
        [one for one in shared.secondaries if one.observes], command
    )
    unknown = None
    told = False
    missed = []
    try:
        command(shared.driver)
        told = True
    except exception.MemberNotFound as error:
        unknown = error
        told = True
    finally:
        for call in driver_calls.wait(calls):
            if call.error is None:
                unknown = None
            elif not isinstance(call.error, exception.MemberNotFound):
                missed.append(
                    f"Backend {call.driver.name} missed the command for "
                    f"member {host} of group {group}: {call.error}. Repeat "
                    f"the command when {call.driver.name} is reachable"
                )
        if not (needs_all and told):
            for text in missed:
                LOG.warning("%s", text)
    if needs_all and missed:
        raise exception.BackendError("; ".join(missed))
    if unknown is not None:
        raise unknown
