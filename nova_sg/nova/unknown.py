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

"""What Nova does while the state of members is not known.

It is not known if no backend has answered for service_down_time. What a
member is then taken for depends on what Nova is about to do:

* evacuate a host: Nova refuses, whatever the options. The instances of a host
  that may be alive must not be started a second time.
* delete an instance: the member is taken to be up, whatever the options. Its
  compute service deletes the instance, now or when it is back. Nova does not
  delete the instance in the database alone.
* place new work: [servicegroup] when_unknown_scheduling decides.
* all else, such as a list of services: [servicegroup] when_unknown decides.

Importing this module imports nothing of Nova.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
from collections.abc import Iterator
from typing import Any

from oslo_log import log as logging

from nova_sg import exception, trouble
from nova_sg.conf import CONF
from nova_sg.conf import servicegroup as options
from nova_sg.liveness.model import UP, Verdict

LOG = logging.getLogger(__name__)

#: What Nova is about to do.
ANYTHING, EVACUATE, DELETE = "anything", "evacuate", "delete"

_purpose: contextvars.ContextVar[str] = contextvars.ContextVar(
    "nova_sg_purpose", default=ANYTHING
)

# A state that no backend has shown, see taken_for().
_TAKEN_TO_BE_UP = Verdict(UP, "unknown")


@contextlib.contextmanager
def about_to(purpose: str) -> Iterator[None]:
    """Set for what the states are needed that this thread asks for."""
    token = _purpose.set(purpose)
    try:
        yield
    finally:
        _purpose.reset(token)


def taken_for(
    last: Verdict | None,
    error: exception.ServiceGroupUnavailable,
    scheduling: bool,
) -> Verdict:
    """Return the verdict to use for a member whose state is not known.

    :param last: the last one that was known; None: none ever was
    :param error: why the state is not known
    :param scheduling: whether the scheduler asks where to place new work
    :raises ServiceGroupUnavailable: the error, if no verdict may be used
    """
    purpose = _purpose.get()
    if purpose == EVACUATE:
        raise error
    if purpose == DELETE:
        return _TAKEN_TO_BE_UP
    wanted = (
        CONF.servicegroup.when_unknown_scheduling
        if scheduling
        else CONF.servicegroup.when_unknown
    )
    if last is None or wanted == options.RAISE:
        raise error
    return last


def guard_instances(module: Any, error: type[Exception]) -> None:
    """Have nova.compute.api tell for what it asks for a state.

    :param module: nova.compute.api
    :param error: nova.exception.ComputeServiceInUse, by which Nova refuses to
        evacuate a host that is up
    """

    class NotKnown(error):  # type: ignore[misc, valid-type]
        """The request to evacuate is refused."""

    api = module.API
    evacuate, delete = api.evacuate, api._delete

    @functools.wraps(evacuate)
    def guarded_evacuate(self: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            with about_to(EVACUATE):
                return evacuate(self, *args, **kwargs)
        except exception.ServiceGroupUnavailable as reason:
            refusal = (
                f"{reason}. It may be alive, so it is not evacuated. If it is "
                "certainly dead, force the service down, and try again."
            )
            LOG.warning("Refused to evacuate a host. %s", refusal)
            raise NotKnown(refusal) from reason

    @functools.wraps(delete)
    def guarded_delete(self: Any, *args: Any, **kwargs: Any) -> Any:
        with about_to(DELETE):
            return delete(self, *args, **kwargs)

    api.evacuate, api._delete = guarded_evacuate, guarded_delete


class Log:
    """Logs once when states become unknown, and once when they are known.

    One object for each process.
    """

    def __init__(self) -> None:
        self._groups: dict[str, trouble.TroubleLog] = {}
        #: The groups whose members' states are not known.
        self.groups: frozenset[str] = frozenset()

    def begins(
        self, group: str, error: exception.ServiceGroupUnavailable
    ) -> None:
        """Note that a member's state is not known."""
        self.groups |= {group}
        log = self._groups.setdefault(group, trouble.TroubleLog())
        if log.begins():
            LOG.warning(
                "States in the group %(group)s are not known: %(error)s. "
                "Nova goes on as [servicegroup] when_unknown = %(general)s "
                "and when_unknown_scheduling = %(scheduling)s have it, and "
                "evacuates no host unless it is forced down. Make the "
                "backend reachable again",
                {
                    "group": group,
                    "error": error,
                    "general": CONF.servicegroup.when_unknown,
                    "scheduling": CONF.servicegroup.when_unknown_scheduling,
                },
            )

    def ends(self, group: str) -> None:
        """Note that states in a group are known."""
        self.groups -= {group}
        if group in self._groups and self._groups[group].ends():
            LOG.info("States in the group %s are known again", group)
