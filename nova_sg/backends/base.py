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

"""A driver: it reports the members of this process, and observes groups.

A driver makes no verdicts. It translates between one backend and the
observations of nova_sg.liveness. For every error it raises BackendError, with
a text for operators. Several threads may call its methods at the same time.

Exceptions that a driver did not expect become a BackendError here, in one
place: see Driver.__init_subclass__.
"""

from __future__ import annotations

import abc
import dataclasses
import datetime
import functools
import itertools
import math
import operator
from collections.abc import Callable, Hashable, Mapping
from typing import Any, NamedTuple

from nova_sg import exception
from nova_sg.liveness.model import (
    Attributes,
    Changes,
    Observation,
    Refresh,
    ServerOutage,
)

#: Seconds since its last sign of life after which a member that is not alive
#: is no longer listed: a week. A member that is forced down stays listed.
LISTED = 7 * 24 * 3600.0
#: Seconds for which a process that has listed a member must have seen no sign
#: of life itself before it stops listing it: a clock may have been set.
UNCHANGED = 3600.0


@dataclasses.dataclass(eq=False, slots=True)
class Membership:
    """A member that this process has joined to one group."""

    host: str
    group: str
    binary: str
    #: The service that joined: Nova's, that of nova-sg-agent, or a substitute.
    service: Any
    #: Seconds between two reports.
    interval: float
    #: Whether it is about to stop, so that it accepts no new work.
    draining: bool = False
    #: Why it cannot do its work, as a clause; empty: it can.
    unwell: str = ""
    #: Its failure domain, such as its rack; None: not known.
    domain: str | None = None
    #: What the driver keeps of this membership between two reports.
    state: dict = dataclasses.field(default_factory=dict)
    #: The last outage in which its reports failed, from when to when
    #: (monotonic), for as long as reports tell observers of it.
    reported_outage: tuple[float, float] | None = None


class Characteristics(NamedTuple):
    """What a driver detects, as text for operators."""

    #: The failures that it detects.
    detects: str
    #: Within which time.
    bound: str
    #: The failures that it cannot detect.
    blind: str


class Finding(NamedTuple):
    """One line of `nova-sg doctor`."""

    ok: bool
    #: What was checked.
    subject: str
    #: The result.
    text: str
    #: What to do if it is not ok.
    remedy: str = ""


class Lock(NamedTuple):
    """A group's lock, as a backend shows it: see Driver.acquire()."""

    #: The process that holds it; empty: no process does.
    holder: str
    #: Whether this call took the lock, and the holder before has released it.
    #: If not, a holder before may still rely on it.
    clean: bool = False
    #: Whether the holder had the lock already, and the backend has not lost
    #: it meanwhile.
    renewed: bool = False


class Record(NamedTuple):
    """A record of the services table that a caller brings along."""

    #: When the last report was written, unchanged from the record; None:
    #: never.
    stamp: Any
    #: report_count, unchanged from the record.
    count: Any
    #: Seconds since the last report by the stamp or, without a report, since
    #: the registration.
    age: float
    #: Whether the member left by itself and has not reported since.
    left: bool = False
    #: Whether its process ended without leaving, as its crash guard noted.
    crashed: bool = False


class Driver(abc.ABC):
    """One backend.

    If a method of a subclass raises an exception that is not documented here,
    or returns a value of a wrong type, the caller gets an UnexpectedError,
    which is a BackendError.
    """

    #: Its name in the option servicegroup_driver.
    name: str
    characteristics: Characteristics
    #: Whether each of several processes that join as one member is a member
    #: of its own to this backend, and leaves by itself. If not, the member
    #: has left once any of them leaves.
    apart = False
    #: Whether it can observe groups. If not, it reports, and reads the
    #: records that callers bring along.
    observes = True

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for name, check in _ANSWERS.items():
            if name in vars(cls):
                setattr(cls, name, _translated(vars(cls)[name], check))

    @abc.abstractmethod
    def report(self, membership: Membership) -> None:
        """Report that a member is alive, now; register it first if needed.

        :raises MemberVanished: its record was removed while it ran
        :raises BackendError: the report failed
        """

    @abc.abstractmethod
    def withdraw(self, membership: Membership) -> None:
        """Report that a member has left; its last report is kept.

        :raises BackendError: the backend was not told
        """

    @abc.abstractmethod
    def observe(self, group: str) -> Refresh:
        """Return all members of a group.

        :raises BackendError: there is no answer
        """

    def backend_of(self, group: str) -> Hashable:
        """Return what stores a group: equal values for the same storage.

        If reports to one group fail, so do reports to another group in the
        same storage.
        """
        return self.name

    def follow(self, group: str, wake: Callable[[], None]) -> None:  # noqa: B027
        """Call wake(), at once and from any thread, for each change.

        Only for backends that notify; others are polled. A second call with
        the same function changes nothing.
        """

    def unfollow(self, group: str, wake: Callable[[], None]) -> None:  # noqa: B027
        """Stop calling wake(), see follow()."""

    def outage(self, group: str, since: float) -> ServerOutage | None:
        """Return an outage that the backend's server itself shows.

        A server may answer questions and take no reports. This is called
        after each refresh while the next report of a member is overdue. The
        result is evidence: silence during the outage does not count against
        members.

        :param since: the last report of any member, monotonic
        :returns: None: the server works, or does not show its state
        :raises BackendError: there is no answer
        """
        return None

    @abc.abstractmethod
    def groups(self) -> list[str]:
        """Return the names of the groups that have, or had, members.

        :raises BackendError: there is no answer
        """

    @abc.abstractmethod
    def force_down(self, group: str, host: str, forced: bool) -> None:
        """Declare a member down, or cancel that.

        :raises MemberNotFound: the group has no such member
        :raises BackendError: the backend was not told
        """

    @abc.abstractmethod
    def forget(self, group: str, host: str) -> None:
        """Remove a member for good.

        :raises MemberNotFound: the group has no such member
        :raises BackendError: the backend was not told
        """

    def note_crash(self, group: str, host: str) -> bool:
        """Note that a member's process has ended without leaving.

        As a crash guard does. The caller knows that no process of the member
        runs: a report that comes later makes it up again.

        :returns: whether it was noted; False: the group has no such member,
            or it has left, or its crash is known
        :raises BackendError: the backend was not told
        """
        raise exception.BackendError(
            f"the driver {self.name} cannot note a crash"
        )

    def acquire(self, group: str, holder: str, seconds: float) -> Lock:
        """Take the lock of a group, or renew it.

        Of several processes one holds it. It becomes free when its holder
        releases it, or no longer renews it: after `seconds`, or when the
        holder's session ends. A backend may also lose it earlier. So

        * a holder relies on it for `seconds`, counted on its own monotonic
          clock from before this call, and
        * a holder that has not just `renewed` it relies on it only `seconds`
          after this call returned, unless the lock is `clean`.

        Then two processes never rely on it at once, whatever the clocks show,
        if all use the same `seconds`.

        :param holder: what identifies this process, and shows people which
            it is
        :returns: the lock now: `holder` has it, or another process has
        :raises BackendError: it is not known whether it was taken
        """
        raise exception.BackendError(f"the driver {self.name} has no locks")

    def release(self, group: str, holder: str) -> None:
        """Give the lock of a group back, if this process holds it.

        Only for a holder that relies on it: the next one is told that it is
        clean.

        :raises BackendError: the backend was not told; it becomes free as if
            this process had died
        """
        raise exception.BackendError(f"the driver {self.name} has no locks")

    def read_note(self, group: str) -> str:
        """Return the note that is kept with a group; empty: there is none.

        :raises BackendError: there is no answer
        """
        return ""

    def write_note(self, group: str, text: str) -> None:
        """Keep a note with a group, in the place of the one before.

        :param text: short and printable; empty: no note
        :raises BackendError: the backend was not told
        """
        raise exception.BackendError(f"the driver {self.name} has no notes")

    @abc.abstractmethod
    def check(self) -> list[Finding]:
        """Check the backend, for `nova-sg doctor`."""

    def unlisted(self, group: str) -> dict[str, float]:
        """Return the members that observe() leaves out as too old.

        :returns: by host the seconds since the last sign of life; infinite:
            it is not known, but LISTED at least
        :raises BackendError: there is no answer
        """
        return {}

    def read_record(self, member: Mapping) -> Record | None:
        """Read the services record that a caller brings along.

        None: records say nothing about this backend.
        """
        return None

    def updated_time(self, member: Mapping) -> Any:
        """Return when the caller's record was updated, as it has it."""
        return member["updated_at"]

    @abc.abstractmethod
    def close(self) -> None:
        """Close connections and end threads. Reports no longer work."""


def _translated(
    method: Callable, check: Callable[[Any], Any] | None
) -> Callable:
    """Return a driver's method that raises only documented exceptions.

    :param check: checks the method's answer: returns it, or raises
    """

    @functools.wraps(method)
    def call(self: Driver, *args: Any, **kwargs: Any) -> Any:
        try:
            answer = method(self, *args, **kwargs)
            return answer if check is None else check(answer)
        except (exception.BackendError, exception.MemberNotFound):
            raise
        except Exception as error:
            where = f"the driver {self.name}"
            raise exception.as_backend_error(error, where) from error

    return call


def check_refresh(answer: Any) -> Refresh:
    """Check and return the answer of observe().

    All of it is checked before any of it is used: what has been taken in
    cannot be undone.

    :raises TypeError: it, or a part of it, is of a wrong type
    :raises ValueError: a time in it is not a number, or a host is there twice
    """
    if not isinstance(answer, Refresh):
        raise TypeError(f"observe() returned {answer!r:.100}")
    for name in ("asked", "rejoin"):
        value = getattr(answer, name)
        _check_types(f"Refresh.{name}", [value], (float, int))
        if not math.isfinite(value):
            raise ValueError(f"Refresh.{name} is {value}")
    _check_types("Refresh.observations", [answer.observations], (list,))
    observations = answer.observations
    _check_types("Refresh.changes", [answer.changes], (Changes, _MAYBE))
    if answer.changes is not None:
        if not answer.complete:
            raise ValueError("a refresh with changes is not complete")
        # The others were checked when they were new.
        observations = answer.changes.observations
        _check_types("Changes.observations", [observations], (list,))
        _check_types("Changes.gone", [answer.changes.gone], (list,))
        _check_types("Changes.gone", answer.changes.gone, (str,))
    _check_types("an observation", observations, (Observation,))
    for name, types in _OBSERVATION.items():
        column = list(map(operator.attrgetter(name), observations))
        _check_types(f"Observation.{name}", column, types)
    if len({one.host for one in observations}) < len(observations):
        raise ValueError("a host is observed twice")
    _check_report_numbers([one.report_number for one in observations])
    # Most observations share one Attributes object.
    distinct = {id(one.attributes): one.attributes for one in observations}
    for attributes in distinct.values():
        _check_types("Attributes.outage", [attributes.outage], (tuple, _MAYBE))
        if attributes.outage is not None:
            begin, end = attributes.outage
            _check_types("Attributes.outage", [begin, end], (float, int))
    return answer


def _check_report_numbers(numbers: list) -> None:
    """Check that numbers of reports can be compared.

    They are all numbers, or all tuples of whole numbers.
    """
    _check_types(
        "Observation.report_number", numbers, (float, int, tuple, _MAYBE)
    )
    several = [one for one in numbers if isinstance(one, tuple)]
    if several:
        if any(isinstance(one, (float, int)) for one in numbers):
            raise TypeError("Observation.report_number: a tuple, and a number")
        parts = list(itertools.chain.from_iterable(several))
        _check_types("a part of Observation.report_number", parts, (int,))


def _check_types(what: str, values: list, types: tuple[type, ...]) -> None:
    # A whole column at a time, as there may be many thousands of values.
    for kind in set(map(type, values)):
        if not issubclass(kind, types):
            raise TypeError(f"{what} is a {kind.__name__}")
    if float in types and any(map(operator.ne, values, values)):
        raise ValueError(f"{what} is not a number")


def _check_outage(answer: Any) -> ServerOutage | None:
    if answer is None:
        return None
    if not isinstance(answer, ServerOutage):
        raise TypeError(f"outage() returned {answer!r:.100}")
    _check_types("a time of an outage", list(answer[:2]), (float, int))
    _check_types("the reason of an outage", [answer.reason], (str,))
    return answer


def _check_groups(answer: Any) -> list[str]:
    groups = list(answer)
    _check_types("the name of a group", groups, (str,))
    return groups


def _check_lock(answer: Any) -> Lock:
    if not isinstance(answer, Lock):
        raise TypeError(f"acquire() returned {answer!r:.100}")
    return answer


def _check_note(answer: Any) -> str:
    if not isinstance(answer, str):
        raise TypeError(f"read_note() returned {answer!r:.100}")
    return answer


def _check_findings(answer: Any) -> list[Finding]:
    findings = list(answer)
    _check_types("a finding", findings, (Finding,))
    return findings


_MAYBE = type(None)

# The fields on which verdicts depend, and their types.
_OBSERVATION: dict[str, tuple[type, ...]] = {
    "host": (str,),
    "reported": (float, int, _MAYBE),
    "registered": (float, int, _MAYBE),
    "last_seen": (datetime.datetime, _MAYBE),
    "attributes": (Attributes,),
}

# The methods that call a backend, and the check of their answer; None: there
# is no answer.
_ANSWERS: dict[str, Callable[[Any], Any] | None] = {
    "report": None,
    "withdraw": None,
    "observe": check_refresh,
    "follow": None,
    "outage": _check_outage,
    "groups": _check_groups,
    "unlisted": None,
    "force_down": None,
    "forget": None,
    "note_crash": None,
    "acquire": _check_lock,
    "release": None,
    "read_note": _check_note,
    "write_note": None,
    "check": _check_findings,
}


class LockingDriver(Driver):
    """A driver that keeps locks and notes, in a `Locks` of its backend."""

    #: Has the four methods below.
    _locks: Any

    def acquire(self, group: str, holder: str, seconds: float) -> Lock:
        return self._locks.acquire(group, holder, seconds)

    def release(self, group: str, holder: str) -> None:
        self._locks.release(group, holder)

    def read_note(self, group: str) -> str:
        return self._locks.read_note(group)

    def write_note(self, group: str, text: str) -> None:
        self._locks.write_note(group, text)


def field(member: Mapping, name: str) -> Any:
    """Return a field of a caller's record; None: it has no such field."""
    try:
        return member[name]
    except Exception:
        # Nova's objects raise various exceptions for a field that is not set.
        # get() does not, but takes ten times as long.
        return member.get(name, None)
