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


"""Whether the members of this process can do their work.

A member has checks: a command of the operator's ([servicegroup]
health_check), and inside Nova a message to its own RPC server
(nova_sg/nova/rpc_health.py). Each check has a thread of its own, so that no
report waits for it. While a check fails the member goes on reporting, unwell:
up, and without new work.
"""

from __future__ import annotations

import abc
import os
import random
import shutil
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from oslo_log import log as logging

from nova_sg import command, exception, threads, trouble
from nova_sg.conf import CONF

LOG = logging.getLogger(__name__)

# A check is repeated up to this fraction of its interval earlier, at random,
# so that the checks of many hosts are not made in step.
JITTER = 0.2
# Seconds from a check that failed to the next one: the end of the trouble is
# to be noticed soon.
RETRY = 5.0
# Seconds that a check may take to say itself that its time is over.
SLACK = 1.0
# Characters of a command's output in the reason why a member is unwell.
_OUTPUT = 150

_OPTION = "[servicegroup] health_check"


class Check(abc.ABC):
    """What a member needs to do its work.

    :param interval: seconds from one run to the next
    :param limit: seconds after which a run that has not ended has failed
    :param delay: seconds before the first run at most
    """

    #: Its name in metrics and on the page /health.
    name = ""
    #: What it checks, at the beginning of a reason.
    subject = ""

    def __init__(
        self, interval: float, limit: float, delay: float = 0.0
    ) -> None:
        self.interval = interval
        self.limit = limit
        self.delay = delay

    @abc.abstractmethod
    def run(self) -> str:
        """Return why the member cannot work, as a clause; empty: it can."""

    def no_answer(self) -> str:
        """Return the reason where no result has come within the limit."""
        return f"{self.subject} did not answer within {self.limit:g} s"

    def stop(self) -> None:  # noqa: B027
        """End a run, if there is one; there will be no other."""


class Command(Check):
    """The operator's own check, a command.

    :param host: the member
    :param group: its group
    :param line: the command and its arguments
    """

    name = "command"
    subject = "its health_check"

    def __init__(self, host: str, group: str, line: str) -> None:
        super().__init__(
            CONF.servicegroup.health_check_interval,
            CONF.servicegroup.health_check_time_limit,
        )
        self._variables = {"NOVA_SG_HOST": host, "NOVA_SG_GROUP": group}
        self._program = ""
        self._command: command.Command | None = None
        self._wrong = ""
        try:
            words = command.split(line, _OPTION)
        except exception.ConfigError as error:
            self._wrong = str(error)
        else:
            self._program = os.path.basename(words[0])
            self._command = command.Command(words)
            if shutil.which(words[0]) is None:
                self._wrong = (
                    f"{_OPTION}: there is no program {words[0]}, or it may "
                    "not be run"
                )
        if self._wrong:
            LOG.error(
                "%s. The service goes on, and its member is unwell until the "
                "command can be run: correct the option and restart the "
                "service, or install the program",
                self._wrong,
            )

    def run(self) -> str:
        if self._command is None:
            return self._wrong
        try:
            ended = self._command.run(self.limit, variables=self._variables)
        except command.CannotRun as error:
            return f"{_OPTION} cannot be run: {error}"
        except command.TimeIsOver:
            return (
                f"{self.subject} had not ended after {self.limit:g} s and was "
                "killed"
            )
        if not ended.status:
            return ""
        lines = ended.output.splitlines()
        if lines:
            return lines[-1].strip()[-_OUTPUT:]
        return (
            f"{self.subject} {self._program} ended with status {ended.status}"
        )

    def stop(self) -> None:
        if self._command is not None:
            self._command.kill()


class Result(NamedTuple):
    """What the last run of a check has found."""

    host: str
    group: str
    #: The check's name.
    check: str
    #: Why the member cannot work; empty: it can.
    reason: str
    #: Seconds since the run ended.
    age: float


class Workers:
    """Whether other processes that report for the same member are well.

    This one has no other processes. nova_sg.nova has workers.
    """

    def is_well(self) -> None:
        """Note that this process is well."""

    def is_alone(self) -> bool:
        """Note that this process is unwell; whether no other one is well."""
        return True

    def done(self) -> None:
        """Note that this process does not count any longer."""


#: Makes a check of a member; None: it needs none.
Maker = Callable[[str, str, Any, bool], Check | None]


def _command(
    host: str, group: str, service: Any, only_records: bool
) -> Check | None:
    line = CONF.servicegroup.health_check
    return Command(host, group, line) if line else None


_makers: list[Maker] = [_command]


def _no_workers(host: str, group: str, service: Any) -> Workers:
    return Workers()


_workers: Callable[[str, str, Any], Workers] = _no_workers


def add(make: Maker, make_workers: Callable[[str, str, Any], Workers]) -> None:
    """Add a check of the members that join from now on.

    :param make: called with the member, its group, its service, and whether
        every backend only keeps records that Nova's conductor writes
    :param make_workers: called with the member, its group and its service
    """
    global _workers
    if make not in _makers:
        _makers.append(make)
    _workers = make_workers


# Why members of this process are unwell, by member and group. A reload of the
# configuration has them join again, still unwell.
_reasons: dict[tuple[str, str], str] = {}


def last_reason(host: str, group: str) -> str:
    """Return why a member was unwell before a reload; empty: it was not."""
    return _reasons.get((host, group), "")


def forget_reasons() -> None:
    """Begin with members that are well."""
    _reasons.clear()


class Members:
    """The members of this process that are checked.

    :param tell: called with a member, its group and why it is unwell (empty:
        it is well), when that changes
    """

    def __init__(self, tell: Callable[[str, str, str], None]) -> None:
        self._tell = tell
        self._members: dict[tuple[str, str], _Member] = {}
        self._lock = threading.Lock()

    def begin(
        self, host: str, group: str, service: Any, only_records: bool
    ) -> None:
        """Begin to check a member; never raises."""
        try:
            made = [
                make(host, group, service, only_records) for make in _makers
            ]
            checks = [check for check in made if check is not None]
            if not checks:
                if _reasons.pop((host, group), ""):
                    # A reload has removed the check that failed.
                    self._tell(host, group, "")
                return
            workers = _workers(host, group, service)
            member = _Member(host, group, checks, workers, self._tell)
            with self._lock:
                old = self._members.get((host, group))
                self._members[host, group] = member
            if old is not None:
                old.end()
            member.begin()
        except Exception:
            LOG.exception(
                "%(host)s in the group %(group)s is not checked, by an "
                "unexpected error: it is never reported as unwell",
                {"host": host, "group": group},
            )

    def end(self, host: str, group: str) -> None:
        """Check a member no longer: it is about to stop, or has left."""
        self._end(host, group)
        _reasons.pop((host, group), None)

    def close(self) -> None:
        """Check no member any longer; one that is unwell stays so."""
        for host, group in list(self._members):
            self._end(host, group)

    def _end(self, host: str, group: str) -> None:
        with self._lock:
            member = self._members.pop((host, group), None)
        if member is not None:
            member.end()

    def results(self) -> Iterable[Result]:
        """Return what the checks have found last."""
        for member in list(self._members.values()):
            yield from member.results()


class _Member:
    """A member that is checked."""

    def __init__(
        self,
        host: str,
        group: str,
        checks: Iterable[Check],
        workers: Workers,
        tell: Callable[[str, str, str], None],
    ) -> None:
        self._host = host
        self._group = group
        self._workers = workers
        self._tell = tell
        self._lock = threading.Lock()
        self._ended = False
        # Why this process cannot do its work.
        self._reason = ""
        self._since = 0.0
        self._log = trouble.TroubleLog()
        # What was told last.
        self._told = last_reason(host, group)
        self._checks = [_Repeated(check, self._found) for check in checks]

    def begin(self) -> None:
        if self._told:
            # Secondary drivers do not know it yet.
            self._tell(self._host, self._group, self._told)
        for check in self._checks:
            check.start()

    def end(self) -> None:
        for check in self._checks:
            check.stop()
        with self._lock:
            self._ended = True
            self._workers.done()

    def results(self) -> Iterable[Result]:
        now = time.monotonic()
        for one in self._checks:
            reason, at = one.found
            if reason is not None:
                yield Result(
                    self._host, self._group, one.check.name, reason, now - at
                )

    def _found(self) -> None:
        """Settle what the member is after a run of one of its checks."""
        with self._lock:
            if self._ended:
                return
            found = [one.found[0] for one in self._checks]
            reason = "; ".join(filter(None, found))
            self._note(reason)
            if not reason and self._told and None in found:
                # What made it unwell is not checked yet, after a reload.
                return
            if reason and not self._workers.is_alone():
                # Another process does the member's work.
                reason = ""
            elif not reason:
                self._workers.is_well()
            if reason != self._told:
                self._told = reason
                _reasons[self._host, self._group] = reason
                self._tell(self._host, self._group, reason)

    def _note(self, reason: str) -> None:
        """Log the begin and the end of trouble."""
        old, self._reason = self._reason, reason
        if reason:
            if not old:
                self._since = time.monotonic()
            if self._log.begins():
                LOG.warning(
                    "%(host)s in the group %(group)s is unwell: %(reason)s. "
                    "It goes on reporting, and stays up, but gets no new work "
                    "until this check succeeds",
                    {
                        "host": self._host,
                        "group": self._group,
                        "reason": reason,
                    },
                )
        elif old and self._log.ends():
            LOG.info(
                "%s in the group %s is well again, after %.0f s",
                self._host,
                self._group,
                time.monotonic() - self._since,
            )


class _Repeated(threading.Thread):
    """Makes one check again and again, until it is stopped.

    :param told: called after each run
    """

    def __init__(self, check: Check, told: Callable[[], None]) -> None:
        super().__init__(name="nova-sg-health", daemon=True)
        self.check = check
        #: The reason that the last run has found, and when, monotonic. None:
        #: there was no run.
        self.found: tuple[str | None, float] = None, 0.0
        self._on_found = told
        self._stopped = threading.Event()

    def stop(self) -> None:
        self._stopped.set()
        self.check.stop()

    def run(self) -> None:
        pause = random.uniform(0.0, self.check.delay)
        while not self._stopped.wait(pause) and not self._stopped.is_set():
            pause = self._once()

    def _once(self) -> float:
        """Make the check; return the seconds until the next one."""
        check = self.check
        run = _Run(check)
        threads.join(run, check.limit + SLACK)
        if run.is_alive():
            self._note(check.no_answer())
            # Never two at a time. What it finds in the end is too old.
            while run.is_alive():
                if self._stopped.wait(RETRY / 5):
                    return 0.0
            return 0.0
        self._note(run.reason)
        pause = min(RETRY, check.interval) if run.reason else check.interval
        return pause * random.uniform(1 - JITTER, 1)

    def _note(self, reason: str) -> None:
        if not self._stopped.is_set():
            self.found = reason, time.monotonic()
            self._on_found()


class _Run(threading.Thread):
    """One run of a check, which may hang."""

    def __init__(self, check: Check) -> None:
        super().__init__(name="nova-sg-health-check", daemon=True)
        self._check = check
        self.reason = ""
        self.start()

    def run(self) -> None:
        try:
            self.reason = self._check.run()
        except Exception as error:
            LOG.debug("The check %s failed", self._check.name, exc_info=True)
            self.reason = f"{self._check.subject}: {exception.describe(error)}"
