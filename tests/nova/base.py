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


"""Base class and helpers of the tests on a real Nova."""

import atexit
import contextlib
import datetime
import functools
import json
import os
import time
import unittest

import tests
from tests.fixtures import novarig, process
from tests.fixtures.novarig import cloud as novarig_cloud

# Seconds that a busy machine may take longer.
SLACK = 3.0

#: Options with which Nova's only messages are heartbeats.
QUIET = "[DEFAULT]\nperiodic_enable = false\n"

#: A service logs this when it joins.
JOINS = "Join ServiceGroup"

SCRIPTS = os.path.join(os.path.dirname(__file__), "scripts")

_site = None


def site():
    """Return this process's site; start it if needed."""
    global _site
    if _site is None:
        # One server is enough: other tests are about ensembles.
        made = novarig.Site(zookeepers=1)
        atexit.register(made.close)
        made.start()
        _site = made
    return _site


def run_script(name, *arguments, **environment):
    """Run a script of scripts/ in Nova's environment.

    :returns: the object that it printed in a line of JSON
    """
    output = site().run(
        *("python", "-P", os.path.join(SCRIPTS, name), *arguments),
        **environment,
    )
    return read_json(output)


def read_json(output):
    """Return the object of a line of JSON among lines of logs."""
    [line] = [line for line in output.splitlines() if line.startswith('{"')]
    return json.loads(line)


def mode_variable(mode):
    """Return the environment variable that sets Nova's mode."""
    return {"OS_NOVA_DISABLE_EVENTLET_PATCHING": str(mode == "threads")}


class CloudTestCase(unittest.TestCase):
    """Tests on one Nova; each begins with all services running and up.

    An error contains the last lines of every log.
    """

    DRIVER = "stock"
    MODE = "threads"
    #: More arguments of the Cloud.
    SETTINGS = {}

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.cloud = cls.enterClassContext(
            novarig.Cloud(
                site(),
                cls.DRIVER,
                cls.MODE,
                **{
                    "options": QUIET,
                    # Long enough to tell leaving from silence.
                    "service_down_time": 6,
                    **cls.SETTINGS,
                },
            )
        )

    def run(self, result=None):
        # unittest finds the test by its name.
        name = self._testMethodName
        setattr(self, name, self._with_logs(getattr(self, name)))
        return super().run(result)

    def _with_logs(self, test):
        """Return the test; its errors have the end of every log."""

        @functools.wraps(test)
        def run():
            with self._told():
                test()

        return run

    @contextlib.contextmanager
    def subTest(self, *arguments, **parameters):
        with super().subTest(*arguments, **parameters), self._told():
            yield

    @contextlib.contextmanager
    def _told(self):
        try:
            yield
        except Exception as error:
            text = str(error)
            if novarig_cloud.LOG_MARK not in text:
                error.add_note(self.cloud.log_tails())
                # The error once more, at the end of a long output.
                error.add_note(f"{type(error).__name__}: {text}")
            raise

    def setUp(self):
        super().setUp()
        cloud = self.cloud
        if not cloud.site.rabbitmq.is_running:
            cloud.site.rabbitmq.start()
        stopped = [one for one in cloud.services if not one.is_running]
        joins = {one: len(log_lines(one, JOINS)) for one in stopped}
        for service in stopped:
            service.start(wait=False)
        # Until then its last process may still be listed up.
        joins.pop(cloud.api, None)
        process.wait_for(
            lambda: all(
                len(log_lines(one, JOINS)) > before
                for one, before in joins.items()
            ),
            120,
            lambda: cloud.missing(f"{[*map(str, joins)]} join"),
        )
        cloud.wait_until_all_are_up()

    def restart_compute(self):
        """Start the compute again and wait until it has joined.

        :returns: seconds from its join until it was listed up, roughly, as
            the log is read at intervals
        """
        cloud = self.cloud
        before = log_lines(cloud.compute, JOINS)
        cloud.compute.start()

        def joined():
            found = log_lines(cloud.compute, JOINS)
            return found[len(before) :]

        line = process.wait_for(joined, 120, "the compute joins")[0]
        at = datetime.datetime.strptime(line[:23], "%Y-%m-%d %H:%M:%S.%f")
        process.wait_for(
            lambda: set(cloud.states("nova-compute").values()) == {"up"},
            message="the compute is listed up",
        )
        took = time.time() - at.timestamp()
        # The other workers of the API have to list it, too.
        cloud.wait_for_state("nova-compute", "up")
        return took

    def assert_stays(self, state, binaries, seconds):
        """Check that the API lists services in a state for some seconds.

        A wrong answer would stay until that worker's next refresh, about a
        second later, so none is missed.
        """
        end = time.monotonic() + seconds
        answers = 0
        while time.monotonic() < end:
            states = self.cloud.all_states()
            for binary in binaries:
                self.assertEqual({state}, states[binary], binary)
            answers += 1
            time.sleep(0.2)
        self.assertGreater(answers, 2)

    def assert_every_worker_lists(self, state):
        """Ask for the compute until each worker of the API has answered."""
        answers = self.cloud.answers()

        def all_have_answered():
            states = self.cloud.states("nova-compute")
            self.assertEqual({state}, set(states.values()))
            return answers.from_all()

        process.wait_for(
            all_have_answered, message="every worker of the API has answered"
        )


def log_lines(service, words):
    """Return the lines of a service's log with words in them."""
    path = os.path.join(service.directory, "server.log")
    with open(path, errors="replace") as log:
        return [line for line in log if words in line]


def make_variants(namespace, base, combinations):
    """Make a test case of base for each driver and mode, in the long form."""
    if not tests.LONG:
        return
    for driver, mode in combinations:
        name = f"{base.__name__}_{driver}_{mode}"
        namespace[name] = type(
            name,
            (base, CloudTestCase),
            {
                "DRIVER": driver,
                "MODE": mode,
                "__module__": namespace["__name__"],
            },
        )
