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


"""Which of several workers is the last one to leave.

All workers of nova-conductor, or of nova-scheduler, join as one member. It is
up while one of them lives, so only the last one takes it out of the group.
Each worker holds a shared lock on a file. The last worker is the one that can
get the exclusive lock. The kernel releases the lock of a worker that dies.
"""

from __future__ import annotations

import fcntl
import hashlib
import os

from oslo_concurrency import lockutils
from oslo_log import log as logging

from nova_sg.conf import CONF

LOG = logging.getLogger(__name__)


class SharedLock:
    """A lock on a file that workers of one member share, or one has alone.

    It never waits. If the file cannot be used, nothing is known of others.

    :param names: the names that identify the lock
    """

    def __init__(self, *names: str) -> None:
        self._descriptor: int | None = None
        text = "\0".join(names)
        digest = hashlib.sha256(text.encode(errors="replace")).hexdigest()
        folder = lockutils.get_lock_path(CONF) or CONF.state_path
        try:
            os.makedirs(folder, exist_ok=True)
            self._descriptor = os.open(
                os.path.join(folder, f"nova-sg-{digest[:16]}"),
                os.O_RDWR | os.O_CREAT | os.O_CLOEXEC,
                0o660,
            )
        except OSError as error:
            LOG.debug(
                "Cannot find out about other workers of %s: %s", names, error
            )

    @property
    def is_known(self) -> bool:
        """Whether the file can be used."""
        return self._descriptor is not None

    def share(self) -> bool:
        """Have the lock together with others; return whether it is so."""
        return self._lock(fcntl.LOCK_SH)

    def exclude(self) -> bool:
        """Have the lock alone; if that fails, this worker has it no more."""
        # Unlock first: two workers that try at the same time must not take
        # each other for one that stays.
        return self._lock(fcntl.LOCK_UN) and self._lock(fcntl.LOCK_EX)

    def release(self) -> None:
        """Have the lock no longer."""
        self._lock(fcntl.LOCK_UN)

    def close(self) -> None:
        """Close the file, which unlocks it."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _lock(self, how: int) -> bool:
        if self._descriptor is None:
            return False
        try:
            fcntl.flock(self._descriptor, how | fcntl.LOCK_NB)
        except OSError:
            return False
        return True


class Worker:
    """One of the processes of this host that report for the same member.

    :param names: the names that identify the member
    """

    def __init__(self, *names: str) -> None:
        self._lock = SharedLock(*names)
        # If a worker that is leaving has it alone, this fails: then this
        # worker does not count.
        self._lock.share()

    def is_last(self) -> bool:
        """Whether no other worker is left; False if that is not known.

        From now on this process does not count. If it is the last one, it
        holds the exclusive lock until done().
        """
        return self._lock.exclude()

    def done(self) -> None:
        """Unlock the file."""
        self._lock.close()
