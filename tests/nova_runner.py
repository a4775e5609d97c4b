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

"""Runs unit tests of Nova's, unchanged, with nova_sg in servicegroup's place.

Usage: python -P nova_runner.py MODULE...

The Python has to be one that has Nova. -P keeps this folder, which has a
module "fixtures" of its own, out of its way. The environment variable
OS_NOVA_DISABLE_EVENTLET_PATCHING says which of Nova's two concurrency modes
the tests run in. The last line is "N run, N failed, N skipped".
"""

import sys
import unittest

# First of all: it decides on the concurrency mode.
import nova.tests.unit  # isort: skip

import nova.servicegroup
import nova.servicegroup.api

from nova_sg import servicegroup


def main(modules):
    nova.servicegroup.API = servicegroup.API
    nova.servicegroup.api.API = servicegroup.API
    suite = unittest.defaultTestLoader.loadTestsFromNames(modules)
    result = unittest.TextTestRunner(verbosity=2).run(suite)
    failed = len(result.failures) + len(result.errors)
    print(
        f"{result.testsRun} run, {failed} failed, "
        f"{len(result.skipped)} skipped"
    )
    return 0 if result.wasSuccessful() else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
