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

"""The result of a test run, from a subunit stream on the standard input.

The first line has the numbers of tests that passed, failed and were skipped.
Then comes each test that failed, with the last lines of its traceback and of
the servers' logs. It is meant for the end of a long output whose middle may be
cut out.
"""

import collections
import sys

import subunit
import testtools

#: How many lines of tracebacks and of servers' logs are printed for all tests
#: together,
LINES, SERVERS_LINES = 25, 40
#: and for each test at least.
LEAST = 6
#: How many characters of a line are printed.
WIDTH = 300
#: The begin of each line of a server: see tests/fixtures/logs.py.
MARK = "| "


class Run(testtools.StreamResult):
    def __init__(self):
        super().__init__()
        self.statuses = {}
        self._said = collections.defaultdict(bytes)

    def status(
        self,
        test_id=None,
        test_status=None,
        file_name=None,
        file_bytes=None,
        **details,
    ):
        # "exists" only lists a test. Without a status it is an attachment.
        if test_id and test_status not in (None, "exists"):
            self.statuses[test_id] = test_status
        if file_bytes and file_name and file_name.startswith("traceback"):
            self._said[test_id] += bytes(file_bytes)

    def last_lines(self, test_id, of):
        """Return the last lines of a test's tracebacks and servers' logs.

        :param of: how many tests share the lines
        """
        text = self._said[test_id].decode(errors="replace")
        lines = text.strip().splitlines()
        own = [line for line in lines if not line.startswith(MARK)]
        servers = [line for line in lines if line.startswith(MARK)]
        own = own[-max(LEAST, LINES // of) :]
        servers = servers[-max(LEAST, SERVERS_LINES // of) :]
        return [line[:WIDTH] for line in own + servers]


def main():
    run = Run()
    subunit.ByteStreamToStreamResult(sys.stdin.buffer, "output").run(run)
    numbers = collections.Counter(run.statuses.values())
    passed = numbers["success"] + numbers["xfail"]
    skipped = numbers["skip"]
    # A test that has begun and not ended was ended with its process.
    failed = numbers.total() - passed - skipped
    print(passed, failed, skipped)
    for test_id, status in sorted(run.statuses.items()):
        if status not in ("success", "xfail", "skip"):
            print(f"FAILED: {test_id}")
            for line in run.last_lines(test_id, failed):
                print(f"    {line}")


main()
