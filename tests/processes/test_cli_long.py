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


"""The tests of tests/cli, with the programs as processes."""

from tests import long_form
from tests.cli import (
    test_basics,
    test_changes,
    test_db_sync,
    test_doctor,
    test_errors,
    test_every_backend,
    test_members,
    test_wait,
)
from tests.processes import base


def by_process(test, name=None, **values):
    """Return a class of tests whose programs are processes.

    :param test: a class of tests/cli; None where this mode has none
    :param name: the name of the new class; that of the test if None
    :param values: what else is different in the new class
    """
    if test is None:
        return None
    values["__module__"] = __name__
    parents = (base.ByProcess, test)
    return long_form(type(name or test.__name__, parents, values))


BasicsTest = by_process(test_basics.BasicsTest)
UnknownStateTest = by_process(test_members.UnknownStateTest)
ChangeTest = by_process(test_changes.ChangeTest)
DbSyncTest = by_process(test_db_sync.DbSyncTest)
DoctorTest = by_process(test_doctor.DoctorTest)
EveryBackendTest = by_process(test_every_backend.EveryBackendTest)
MembersTest = by_process(test_members.MembersTest)
WaitTest = by_process(test_wait.WaitTest)

# Both programs, whatever the mode.
BackendTest = by_process(test_errors.BackendTest)
ConfigurationTest = by_process(test_errors.ConfigurationTest)
AgentBackendTest = by_process(
    test_errors.BackendTest, "AgentBackendTest", ASKING=("nova-sg-agent",)
)
AgentConfigurationTest = by_process(
    test_errors.ConfigurationTest,
    "AgentConfigurationTest",
    ASKING=("nova-sg-agent",),
)


@long_form
class AgentArgumentsTest(test_errors.AgentArguments, base.TestCase):
    pass
