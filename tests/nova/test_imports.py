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


"""The modules of nova_sg that a process of Nova imports, and when."""

import os
import resource
import unittest

import tests
from tests.fixtures import nova, novarig
from tests.fixtures.novarig import site as novarig_site
from tests.nova import base


class ImportTest(unittest.TestCase):
    """The imports of a process in an environment with Nova."""

    def setUp(self):
        super().setUp()
        self.cloud = novarig.Cloud(base.site(), "stock")

    def _first_parse(self, driver, mode):
        self.cloud.mode = mode
        path = self.cloud.configure(f"first-{driver}", driver)
        return base.run_script("first_parse.py", "--config-file", path)

    def test_imports_before_nova_decides_on_its_mode(self):
        for mode, name in (("threads", "threading"), ("eventlet", "eventlet")):
            stock = self._first_parse("stock", mode)
            ours = self._first_parse("mc", mode)
            self.assertEqual([name, name], [stock["mode"], ours["mode"]])
            more = {
                module.partition(".")[0]
                for module in set(ours["modules"]) - set(stock["modules"])
            }
            self.assertIn("nova_sg", more)
            # Its other imports are undone before eventlet: see test_active.
            self.assertFalse(more & {"nova", "eventlet"}, more)
            self.assertIn("nova_sg.nova.hook", ours["modules"])
            self.assertNotIn("nova_sg.nova.api", ours["modules"])

    def test_nova_sg_is_not_imported_if_switched_off(self):
        self.cloud.configure("api", "stock")
        self.cloud.make_api("api")
        found = base.run_script(
            "api_objects.py",
            OS_NOVA_CONFIG_DIR=base.site().folder,
            OS_NOVA_CONFIG_FILES="api-paste.ini;api.conf",
            **base.mode_variable("threads"),
        )
        self.assertEqual("nova.servicegroup.api", found["module"])
        self.assertFalse(found["imported"])

    def test_a_file_switches_nova_sg_on(self):
        python = self._environment()
        show = "import sys; print({'nova', 'nova_sg'} & set(sys.modules))"
        self._switch(python, "enable")
        # nova_sg is there and waits for Nova.
        self.assertEqual("{'nova_sg'}", self._run(python, "-c", show))
        self.assertEqual(
            "nova_sg.nova.api",
            self._run(
                python,
                "-c",
                "from nova import servicegroup; "
                "print(servicegroup.API.__module__)",
            ),
        )
        self._switch(python, "disable")
        self.assertEqual("set()", self._run(python, "-c", show))

    @tests.long_form
    def test_other_processes_start_as_fast(self):
        """It compares the fastest starts, with and without the .pth file."""
        python = self._environment()
        program = [
            python,
            "-c",
            "import sys; assert 'nova' not in sys.modules",
        ]
        without = with_it = float("inf")
        # By turns: on a busy machine CPU time is longer, too.
        for _ in range(4):
            self._switch(python, "disable")
            without = min(without, self._starts(program))
            self._switch(python, "enable")
            with_it = min(with_it, self._starts(program))
        print(
            f"start of a process: {without * 1e3:.1f} ms, with the .pth file "
            f"{with_it * 1e3:.1f} ms"
        )
        self.assertLess(with_it - without, 0.005)

    def _environment(self):
        """Make an environment with Nova's packages, and without the .pth file.

        :returns: its Python
        """
        folder = base.site().path(self._testMethodName)
        self._run(base.site().python, "-m", "venv", "--without-pip", folder)
        python = os.path.join(folder, "bin", "python")
        packages, ours = (
            self._run(
                one,
                "-c",
                "import sysconfig; print(sysconfig.get_path('purelib'))",
            )
            for one in (base.site().python, python)
        )
        with open(os.path.join(ours, "nova.pth"), "w") as file:
            # This reads the .pth files of that folder, too.
            file.write(f"import site; site.addsitedir({packages!r})\n")
        return python

    def _switch(self, python, word):
        self._run(python, "-m", "nova_sg.cmd.shell", "nova", word)

    @staticmethod
    def _run(*command):
        done = nova.run(
            command, novarig_site.clean_environment(base.site().folder)
        )
        if done.returncode:
            raise AssertionError(done.stdout)
        return done.stdout.strip()

    @classmethod
    def _starts(cls, program):
        # CPU time, so that other processes do not count.
        def used():
            usage = resource.getrusage(resource.RUSAGE_CHILDREN)
            return usage.ru_utime + usage.ru_stime

        least = float("inf")
        for _ in range(10):
            before = used()
            cls._run(*program)
            least = min(least, used() - before)
        return least
