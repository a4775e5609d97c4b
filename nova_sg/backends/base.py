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

"""A driver: it reports this process's members and observes all of a group.

A driver never judges. It translates between one backend and the observations
of nova_sg.liveness, and raises BackendError, with a text for
operators, for whatever goes wrong on the way. Its methods may be called from
several threads at once.

What a driver did not foresee becomes a BackendError here, in one place: see
Driver.__init_subclass__.
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
from nova_sg.liveness.model import Facts, Observation, Refresh, ServerOutage


@dataclasses.dataclass(eq=False)
class Membership:
    """What this process has joined: one member of one group."""

    host: str
    group: str
    binary: str
    #: Whatever joined: Nova's Service, ours, or a stand-in.
    service: Any
    #: Seconds between two reports.
    interval: float
    #: Whether it is about to stop: no new work is to be placed there.
    draining: bool = False
    #: What the driver keeps of this membership between two reports.
    state: dict = dataclasses.field(default_factory=dict)
    #: Monotonic: since and until when its reports did not get through, while
    #: that is worth telling observers.
    away: tuple[float, float] | None = None


class Characteristics(NamedTuple):
    """What a driver promises, in words for operators."""

    detects: str
    bound: str
    blind: str


class Finding(NamedTuple):
    """One line of `nova-sg doctor`."""

    ok: bool
    #: What was looked at.
    subject: str
    #: What was found.
    text: str
    #: What to do about it, if it is not ok.
    remedy: str = ""


class Record(NamedTuple):
    """What a services record says."""

    #: When the last report was written, as it stands there; None: never.
    stamp: Any
    #: report_count, as it stands there.
    count: Any
    #: Seconds since the last report or, without one, the registration; by
    #: the stamp.
    age: float
    #: Whether the member left by itself and has not reported since.
    left: bool = False
    #: Whether its process ended without leaving, as its crash guard saw.
    crashed: bool = False


class Driver(abc.ABC):
    """One backend.

    Whatever a method of a subclass raises that is not among what is
    documented here, its caller gets as an UnexpectedError, which is a
    BackendError; the same goes for an answer that is none.
    """

    #: The name that servicegroup_driver knows it by.
    name: str
    characteristics: Characteristics
    #: Whether several processes that join as one member leave one by one;
    #: otherwise the member has left once any of them says so.
    apart = False
    #: Whether groups can be observed; otherwise it reports, and reads the
    #: records that callers bring along.
    observes = True

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for name, check in _ANSWERS.items():
            if name in vars(cls):
                setattr(cls, name, _translated(vars(cls)[name], check))

    @abc.abstractmethod
    def report(self, membership: Membership) -> None:
        """Report that a member is alive, now; register it if need be.

        :raises MemberVanished: the record was removed while it ran
        :raises BackendError: the report did not get through
        """

    @abc.abstractmethod
    def withdraw(self, membership: Membership) -> None:
        """Report that a member has left; its last report stays known.

        :raises BackendError: the backend was not told
        """

    @abc.abstractmethod
    def observe(self, group: str) -> Refresh:
        """Ask about all members of a group.

        :raises BackendError: there is no answer
        """

    def backend_of(self, group: str) -> Hashable:
        """Return what keeps a group; the same for groups that share it.

        Where the reports to one group do not get through, those to another
        that is kept by the same do not either.
        """
        return self.name

    def follow(self, group: str, wake: Callable[[], None]) -> None:  # noqa: B027
        """Have wake() called, quickly and from any thread, for each change.

        Only for backends that tell; others are polled. To call it again with
        the same wake does nothing more.
        """

    def unfollow(self, group: str, wake: Callable[[], None]) -> None:  # noqa: B027
        """Have wake() called no longer, if it is; see follow()."""

    def outage(self, group: str, since: float) -> ServerOutage | None:
        """Return an outage that the backend's server itself tells of.

        A server may answer questions and take no reports. It is asked only
        while no member has reported for longer than members take, and then
        after each refresh. What is returned is evidence: in that time no
        silence counts against a member.

        :param since: the last report of any member, monotonic
        :returns: None: the server works, or does not say
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
        """Declare a member down, or take that back.

        :raises MemberNotFound: the group has no such member
        :raises BackendError: the backend was not told
        """

    @abc.abstractmethod
    def forget(self, group: str, host: str) -> None:
        """Remove a member for good.

        :raises MemberNotFound: the group has no such member
        :raises BackendError: the backend was not told
        """

    @abc.abstractmethod
    def check(self) -> list[Finding]:
        """Check the backend: what `nova-sg doctor` prints."""

    def read_record(self, member: Mapping) -> Record | None:
        """Return what a services record says that the caller brings along.

        None: this backend has to be asked.
        """
        return None

    def updated_time(self, member: Mapping) -> Any:
        """Return when the caller's record was updated, as it stands there."""
        return member["updated_at"]

    @abc.abstractmethod
    def close(self) -> None:
        """Give back connections and threads. Reports no longer work."""


def _translated(
    method: Callable, check: Callable[[Any], Any] | None
) -> Callable:
    """Return a driver's method that raises nothing its callers do not know.

    :param check: returns the method's answer, or raises
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
    """Return what observe() returned, if it can be judged by.

    Half an answer must not be judged by: what has been taken in cannot be
    taken back.

    :raises TypeError: it is no refresh, or an observation in it is none
    :raises ValueError: a time in it is not a number
    """
    if not isinstance(answer, Refresh):
        raise TypeError(f"observe() returned {answer!r:.100}")
    for name in ("asked", "rejoin"):
        value = getattr(answer, name)
        _check_types(f"Refresh.{name}", [value], (float, int))
        if not math.isfinite(value):
            raise ValueError(f"Refresh.{name} is {value}")
    _check_types("Refresh.observations", [answer.observations], (list,))
    _check_types("an observation", answer.observations, (Observation,))
    for name, types in _OBSERVATION.items():
        column = list(map(operator.attrgetter(name), answer.observations))
        _check_types(f"Observation.{name}", column, types)
    if len({one.host for one in answer.observations}) < len(
        answer.observations
    ):
        raise ValueError("a host is observed twice")
    _check_marks([one.mark for one in answer.observations])
    # Most of them are one and the same.
    said = {id(one.facts): one.facts for one in answer.observations}
    for facts in said.values():
        _check_types("Facts.outage", [facts.outage], (tuple, _MAYBE))
        if facts.outage is not None:
            begin, end = facts.outage
            _check_types("Facts.outage", [begin, end], (float, int))
    return answer


def _check_marks(marks: list) -> None:
    """Check that marks can be compared: numbers, or tuples of whole ones."""
    _check_types("Observation.mark", marks, (float, int, tuple, _MAYBE))
    several = [mark for mark in marks if isinstance(mark, tuple)]
    if several:
        if any(isinstance(mark, (float, int)) for mark in marks):
            raise TypeError("Observation.mark: a tuple, and a number")
        parts = list(itertools.chain.from_iterable(several))
        _check_types("a part of Observation.mark", parts, (int,))


def _check_types(what: str, values: list, types: tuple[type, ...]) -> None:
    # By columns, as there may be many thousands.
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


def _check_findings(answer: Any) -> list[Finding]:
    findings = list(answer)
    _check_types("a finding", findings, (Finding,))
    return findings


_MAYBE = type(None)

# The fields that verdicts are found by.
_OBSERVATION: dict[str, tuple[type, ...]] = {
    "host": (str,),
    "reported": (float, int, _MAYBE),
    "registered": (float, int, _MAYBE),
    "last_seen": (datetime.datetime, _MAYBE),
    "facts": (Facts,),
}

# The methods that ask a backend or tell it something, and what their answers
# have to be; None: there is none.
_ANSWERS: dict[str, Callable[[Any], Any] | None] = {
    "report": None,
    "withdraw": None,
    "observe": check_refresh,
    "follow": None,
    "outage": _check_outage,
    "groups": _check_groups,
    "force_down": None,
    "forget": None,
    "check": _check_findings,
}


def field(member: Mapping, name: str) -> Any:
    """Return what an asker's record has under a name; None: nothing."""
    try:
        return member[name]
    except Exception:
        # Nova's objects raise this and that for a field that is not set,
        # unless they are asked so, which takes them ten times as long.
        return member.get(name, None)
