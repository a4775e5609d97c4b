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

"""Bytes that a fuzzer found, or that are like those: see tests/fuzz."""

import unittest

from tests import single_mode
from tests.fuzz import __main__ as fuzz
from tests.fuzz import targets


@single_mode
class CorpusTest(unittest.TestCase):
    def test_what_was_found_is_read_or_refused(self):
        files = sorted(fuzz.CORPUS.rglob("*"))
        tried = set()
        for path in files:
            if path.is_file():
                with self.subTest(path.name):
                    targets.TARGETS[path.parent.name](path.read_bytes())
                    tried.add(path.parent.name)
        self.assertEqual(targets.TARGETS.keys(), tried)
