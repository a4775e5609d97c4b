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

"""Tests of pure logic. They do not depend on the mode, and run once."""

import os
import tempfile

# Every test is loaded in both modes. A plugin of hypothesis may be any
# installed package, and need not work once eventlet has patched Python.
os.environ.setdefault("HYPOTHESIS_NO_PLUGINS", "1")
# hypothesis prints what it finds, see below. It writes no files here.
os.environ.setdefault(
    "HYPOTHESIS_STORAGE_DIRECTORY",
    os.path.join(tempfile.gettempdir(), "hypothesis"),
)

import hypothesis

import tests

# No time limits: a slow example may only show that the machine is busy.
hypothesis.settings.register_profile(
    "nova_sg",
    deadline=None,
    # The long form looks for new examples; the short one tries the same
    # examples each time, so that it fails only if the code has changed.
    derandomize=not tests.LONG,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
    # Print how to repeat a failure.
    print_blob=True,
)
hypothesis.settings.load_profile("nova_sg")
