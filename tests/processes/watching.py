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

"""Base class for tests that watch members by nova-sg watch."""

import signal

from tests.fixtures.process import wait_for
from tests.processes import base


class TestCase(base.TestCase):
    """A test with two members, one and two, in the embedded database."""

    def setUp(self):
        super().setUp()
        # Makes the database.
        self.do("list")
        for host in ("one", "two"):
            self.insert(host, 0)

    def watch(self, *arguments, **kwargs):
        """Start to watch; return the process once it shows events."""
        process = self.start("nova-sg", "watch", *arguments, **kwargs)
        self.lines = base.Lines(process.stdout)
        # Only an event shows that its first refresh is over.
        number = 0

        def sees():
            nonlocal number
            number += 1
            self.insert(f"new{number}", 0)
            return self.lines.wait(1)

        wait_for(sees, base.PATIENCE, "it watches")
        return process

    def force(self, host, forced):
        """Have a member go down, or up; wait until the watch shows it."""
        self.execute(
            "UPDATE services SET forced_down = ? WHERE host = ?", forced, host
        )
        words = f"{'down' if forced else 'up'} {host} "
        seen = []

        def sees():
            seen.extend(self.lines.take())
            self.lines.wait(0.1)
            return any(words in line for line in seen)

        wait_for(sees, base.PATIENCE, f"{words} is seen")

    def end(self, process):
        process.send_signal(signal.SIGTERM)
        process.wait(base.PATIENCE)
        self.assertEqual(0, process.returncode)
        words = process.stderr.read()
        self.check_words(words)
        return words
