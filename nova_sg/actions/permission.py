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

"""Whether this process may act: the pause and the lock of a group.

One thread reads and renews both in the primary driver's backend. Actors ask
what it knows.
"""

from __future__ import annotations

import datetime
import threading
import time
from collections.abc import Callable

from oslo_log import log as logging

from nova_sg import exception, threads, trouble
from nova_sg.actions import lease, pause
from nova_sg.backends import base

LOG = logging.getLogger(__name__)

# Seconds between two refreshes of the pause and the lock.
INTERVAL = 2.0
# Seconds for which the last answer about the pause counts.
TRUSTED = 30.0
# Seconds that a lock is held for beyond the longest action, at most: renewals
# may fail or hang for as long.
MARGIN = 25.0

#: Answers: act; wait, as that may change; another process acts.
ACT, WAIT, LEAVE = "act", "wait", "leave"


class Permission:
    """What this process knows of the pause and the lock of a group.

    :param driver: the primary driver
    :param holder: what the lock shows if this process holds it; None: it
        acts whatever other processes do
    :param longest: seconds that one action takes at most
    :param margin: seconds that renewals may fail or hang without effect
    :param each: called after each refresh
    """

    def __init__(
        self,
        driver: base.Driver,
        group: str,
        holder: str | None,
        longest: float,
        margin: float = MARGIN,
        each: Callable[[], None] = lambda: None,
    ) -> None:
        self._driver = driver
        self._group = group
        self._lease = None
        if holder is not None:
            self._lease = lease.Lease(holder, longest + margin)
        self._each = each
        self._longest = longest
        self._lock = threading.Lock()
        self._pause: pause.Pause | None = None
        self._read_at = float("-inf")
        # What the log has.
        self._shown_pause: str | None = None
        self._shown_role: str | None = None
        self._unread = trouble.TroubleLog()
        self._unlocked = trouble.TroubleLog()
        self._closed = threading.Event()
        self._thread = threading.Thread(
            target=self._run, name="nova-sg-permission", daemon=True
        )

    def start(self) -> None:
        """Begin to refresh."""
        self._thread.start()

    def close(self, release: bool) -> None:
        """End.

        :param release: whether no action is under way any more, so that
            another process may act at once
        """
        self._closed.set()
        if self._lease is None or not release:
            return
        threads.join(self._thread, MARGIN)
        if self._thread.is_alive():
            return
        if not self._lease.covers(time.monotonic(), 0.0):
            # The next holder has to wait for the one before this process.
            return
        try:
            self._driver.release(self._group, self._lease.holder)
        except exception.BackendError as error:
            LOG.warning(
                "Cannot release the lock of group %(group)s: %(error)s. "
                "Another nova-sg watch acts after %(seconds)g s at the latest",
                {
                    "group": self._group,
                    "error": error,
                    "seconds": 2 * (self._lease.seconds + INTERVAL),
                },
            )

    def ask(self) -> str:
        """Return ACT, WAIT or LEAVE: for an action that begins now."""
        now = time.monotonic()
        with self._lock:
            held = self._lease
            if held is not None and held.other:
                return LEAVE
            if held is not None and not held.covers(now, self._longest):
                return WAIT
            if self._pause is not None or now > self._read_at + TRUSTED:
                return WAIT
        return ACT

    # -- the thread

    def _run(self) -> None:
        while not self._closed.is_set():
            try:
                self._renew()
                self._read()
                self._each()
            except Exception:
                LOG.exception(
                    "Unexpected error while reading whether to act upon "
                    "events of group %s",
                    self._group,
                )
            self._closed.wait(INTERVAL)

    def _read(self) -> None:
        asked = time.monotonic()
        try:
            note = self._driver.read_note(self._group)
        except exception.BackendError as error:
            if self._unread.begins():
                LOG.warning(
                    "Cannot read whether actions of group %(group)s are "
                    "paused: %(error)s. After %(seconds)g s no action begins "
                    "until it can be read",
                    {
                        "group": self._group,
                        "error": error,
                        "seconds": TRUSTED,
                    },
                )
            return
        if self._unread.ends():
            LOG.warning(
                "Whether actions of group %s are paused can be read again",
                self._group,
            )
        found = pause.read(note, datetime.datetime.now(datetime.UTC))
        with self._lock:
            self._pause, self._read_at = found, asked
        shown = None if found is None else str(found)
        if shown == self._shown_pause:
            return
        self._shown_pause = shown
        if shown is None:
            LOG.warning(
                "Actions upon events of group %s are no longer paused",
                self._group,
            )
        else:
            LOG.warning(
                "Actions upon events of group %(group)s are paused %(since)s. "
                "End it by: nova-sg resume --group %(group)s",
                {"group": self._group, "since": shown},
            )

    def _renew(self) -> None:
        held = self._lease
        if held is None:
            return
        sent = time.monotonic()
        try:
            found = self._driver.acquire(
                self._group, held.holder, held.seconds
            )
        except exception.BackendError as error:
            if self._unlocked.begins():
                LOG.warning(
                    "Cannot take the lock of group %(group)s: %(error)s. This "
                    "process does not act upon events until it has the lock",
                    {"group": self._group, "error": error},
                )
            return
        if self._unlocked.ends():
            LOG.warning("The lock of group %s works again", self._group)
        with self._lock:
            now = time.monotonic()
            held.answered(found, sent, now)
            waits = held.waits(now)
        self._show_role(held.other, waits)

    def _show_role(self, other: str, waits: float) -> None:
        role = other or ("waits" if waits else "acts")
        if role == self._shown_role:
            return
        self._shown_role = role
        if other:
            LOG.info(
                "Another process acts upon events of group %(group)s: "
                "%(other)s",
                {"group": self._group, "other": other},
            )
        elif waits:
            LOG.warning(
                "This process takes over the actions of group %(group)s, in "
                "%(seconds).0f s: until then the process before may act",
                {"group": self._group, "seconds": waits},
            )
        else:
            LOG.warning(
                "This process acts upon events of group %s", self._group
            )
