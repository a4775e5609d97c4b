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

"""The time that each class of tests takes, for stestr's schedule.

Usage, with stestr's environment:

    stestr last --subunit | python tools/durations.py lines
        print a line for each class that took a second or more: the seconds,
        and the longest test of the class. These lines make up
        tests/durations.txt.
    python tools/durations.py stream < tests/durations.txt
        print the lines as a subunit stream for "stestr load". The longest
        test stands for its class, as stestr keeps a class on one worker.
"""

import collections
import datetime
import sys

import subunit
import testtools


class _Tests(testtools.StreamToDict):
    """Collects the seconds of each test, by class."""

    def __init__(self):
        super().__init__(self._add)
        self.classes = collections.defaultdict(dict)

    def _add(self, test):
        begin, end = test["timestamps"]
        if begin and end:
            name = test["id"].rpartition(".")[0]
            seconds = (end - begin).total_seconds()
            self.classes[name][test["id"]] = seconds


def print_lines():
    tests = _Tests()
    tests.startTestRun()
    subunit.ByteStreamToStreamResult(sys.stdin.buffer, "output").run(tests)
    tests.stopTestRun()
    lines = [
        (sum(seconds.values()), max(seconds, key=seconds.get))
        for seconds in tests.classes.values()
    ]
    for seconds, longest in sorted(lines, reverse=True):
        if seconds >= 1:
            print(f"{seconds:.0f} {longest}")


def print_stream():
    stream = subunit.StreamResultToBytes(sys.stdout.buffer)
    begin = datetime.datetime.now(datetime.UTC)
    for line in sys.stdin:
        seconds, test_id = line.split()
        end = begin + datetime.timedelta(seconds=float(seconds))
        stream.status(test_id, "inprogress", timestamp=begin)
        stream.status(test_id, "success", timestamp=end)


{"lines": print_lines, "stream": print_stream}[sys.argv[1]]()
