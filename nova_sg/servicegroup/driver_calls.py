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

"""Calls of several drivers at the same time, each on a thread of its own."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

from oslo_log import log as logging

from nova_sg import exception, threads
from nova_sg.backends import base

LOG = logging.getLogger(__name__)

# Seconds to wait for the answer of a driver.
WAIT = 5.0


class DriverCall(threading.Thread):
    """A call of one driver, under way since this was made."""

    def __init__(
        self, driver: base.Driver, function: Callable[[base.Driver], Any]
    ) -> None:
        super().__init__(name="nova-sg-secondary", daemon=True)
        self.driver = driver
        self._function = function
        self.answer: Any = None
        #: The error; None: the call succeeded.
        self.error: Exception | None = exception.BackendError(
            f"no answer for {WAIT:g} s"
        )
        self.start()

    def run(self) -> None:
        try:
            self.answer = self._function(self.driver)
            self.error = None
        except exception.NovaSGError as error:
            self.error = error
        except Exception as error:
            LOG.exception(
                "Unexpected error of the secondary driver %s", self.driver.name
            )
            self.error = error


def start(
    drivers: Iterable[base.Driver], function: Callable[[base.Driver], Any]
) -> list[DriverCall]:
    """Call function(driver) for each driver, at the same time."""
    return [DriverCall(driver, function) for driver in drivers]


def wait(calls: list[DriverCall]) -> list[DriverCall]:
    """Wait until the calls have ended, WAIT seconds at most."""
    give_up = time.monotonic() + WAIT
    for call in calls:
        threads.join(call, max(0.0, give_up - time.monotonic()))
    return calls


def close(driver: base.Driver) -> None:
    """Close a driver; an error is logged."""
    try:
        driver.close()
    except Exception as error:
        # The caller cannot do anything about it, and has more to close.
        LOG.warning(
            "Could not close the driver %(driver)s cleanly: %(error)s",
            {"driver": driver.name, "error": exception.describe(error)},
        )
