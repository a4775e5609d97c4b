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

"""Runs Nova's own unit tests, unchanged, with nova_sg's drop-in.

Usage: python -P nova_runner.py MODULE...

Python has to be that of an environment with Nova. -P keeps this folder, which
has a module "fixtures", out of the path. The environment variable
OS_NOVA_DISABLE_EVENTLET_PATCHING selects one of Nova's two concurrency modes.
The last line is "N run, N failed, N skipped".
"""

import sys
import unittest

from nova_sg.nova import hook


def main(modules):
    hook.install()
    # The first import of Nova: it decides on the concurrency mode.
    import nova.tests.unit  # noqa: F401

    # As in a service with [servicegroup] coalesce_reports.
    from nova_sg.nova import coalesce

    coalesce.install()
    suite = unittest.defaultTestLoader.loadTestsFromNames(modules)
    result = unittest.TextTestRunner(verbosity=2).run(suite)
    failed = len(result.failures) + len(result.errors)
    print(
        f"{result.testsRun} run, {failed} failed, "
        f"{len(result.skipped)} skipped"
    )
    if not hook.installed():
        print("Nova's own API was tested")
        return 1
    return 0 if result.wasSuccessful() else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
