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


"""What each supported release of Nova has to pass.

tools/run-tests.sh --nova RELEASE runs it, with each driver, in each mode that
the release has.
"""

from tests.fixtures import nova
from tests.nova import base, restarts, services


class Release(services.Killed, restarts.CleanRestart):
    """A compute is up, killed, up again, and restarted."""

    # Nova 33 sleeps for all of manager_shutdown_timeout, so that stays short.
    SETTINGS = {
        "options": f"{base.QUIET}[servicegroup]\nrestart_grace = 120\n"
    }

    def test_the_commands_run_with_its_libraries(self):
        for command, says in (
            (("nova", "status"), f"nova_sg is on: driver {self.DRIVER}"),
            (("list", "--group", "compute"), "compute1"),
        ):
            config = self.cloud.config("conductor")
            done = nova.run(
                [
                    *(self.cloud.site.python, "-m", "nova_sg.cmd.shell"),
                    *(f"--config-file={config}", *command),
                ]
            )
            self.assertEqual(0, done.returncode, done.stdout)
            self.assertIn(says, done.stdout)


base.make_variants(
    globals(),
    Release,
    [
        (driver, mode)
        for driver in ("db", "mc", "zk")
        for mode in nova.modes()
    ],
)
