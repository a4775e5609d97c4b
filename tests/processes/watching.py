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

"""Watching members by nova-sg watch, and having them go up and down."""

import signal

from tests.fixtures.process import wait_for
from tests.processes import base


class TestCase(base.TestCase):
    """Has two members, one and two, in the embedded database."""

    def setUp(self):
        super().setUp()
        # Makes the database.
        self.do("list", "-f", "json")
        for host in ("one", "two"):
            self.insert(host, 0)

    def watch(self, *arguments, **kwargs):
        """Start to watch; return the process when it does."""
        process = self.start("nova-sg", "watch", *arguments, **kwargs)
        self.lines = base.Lines(process.stdout)
        # Its first refresh shows only by the next event that it prints.
        number = 0

        def sees():
            nonlocal number
            number += 1
            self.insert(f"new{number}", 0)
            return self.lines.wait(1)

        wait_for(sees, base.PATIENCE, "it watches")
        return process

    def force(self, host, forced):
        """Have a member go down, or up, and the watch see that."""
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
