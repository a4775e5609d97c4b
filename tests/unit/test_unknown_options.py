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

"""Names in nova_sg's own files that no program knows."""

import os
import subprocess
import sys
import tempfile
import unittest

from oslo_config import cfg
from oslo_db import options as oslo_db
from oslo_log import _options as oslo_log

from nova_sg import unknown_options


def _options_of(package, module):
    """Return a library's options; other tests need it not imported.

    oslo.service before 4.2 imports eventlet, too.
    """
    program = (
        f"from {package} import {module} as opts\n"
        "for group, options in opts.list_opts():\n"
        "    for option in options:\n"
        "        print(getattr(group, 'name', group), option.dest)\n"
    )
    printed = subprocess.run(
        [sys.executable, "-c", program],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    ).stdout
    for line in printed.splitlines():
        group, name = line.split()
        yield (None if group == "None" else group), [cfg.Opt(name)]


class FindTest(unittest.TestCase):
    def setUp(self):
        super().setUp()
        folder = tempfile.TemporaryDirectory(prefix="nova-sg-test-")
        self.addCleanup(folder.cleanup)
        self.folder = folder.name

    def find(self, **files):
        """Return what is unknown in files, without their folder."""
        paths = []
        for name, text in files.items():
            paths.append(os.path.join(self.folder, name))
            os.makedirs(os.path.dirname(paths[-1]), exist_ok=True)
            with open(paths[-1], "w") as file:
                file.write(text)
        found = unknown_options.find(paths)
        return found.replace(f"{self.folder}/", "")

    def test_what_is_meant(self):
        for text, expected in (
            ("[DEFAULT]\nreport_interval = 1", ""),
            ("[ZooKeeper]\naddress = a:1", ""),
            ("[database]\n", ""),
            (
                "[zookeper]\naddress = a",
                "section [zookeper] (is it [zookeeper]?)",
            ),
            ("[default]\nhost = a", "section [default] (is it [DEFAULT]?)"),
            ("[weather]\nrain = 1", "section [weather]"),
            (
                "[zookeeper]\nadress = a:1",
                "option [zookeeper] adress (is it address?)",
            ),
            (
                "[database]\nservicegroup_driver = mc",
                "option [database] servicegroup_driver (it belongs to "
                "[DEFAULT])",
            ),
            ("[DEFAULT]\nmy_ip = ::1", "option [DEFAULT] my_ip"),
            # A value refers to it.
            ("[DEFAULT]\nmy_ip = ::1\nhost = $my_ip", ""),
            ("[DEFAULT]\nmy_ip = ::1\nhost = a${DEFAULT.my_ip}", ""),
        ):
            with self.subTest(text):
                found = self.find(**{"nova-sg.conf": text})
                self.assertEqual(
                    f"nova-sg.conf: {expected}" if expected else "", found
                )

    def test_whose_file_it_is(self):
        wrong = "[zookeper]\n"
        novas = "[keystone_authtoken]\n[zookeper]\n"
        for files, expected in (
            ({"nova-sg.conf": wrong}, ["nova-sg.conf"]),
            ({"agent.conf": wrong}, ["agent.conf"]),
            ({"nova-sg/agent.conf": wrong}, ["nova-sg/agent.conf"]),
            ({"nova.conf": wrong}, []),
            ({"nova.conf.d/10-more.conf": wrong}, []),
            ({"nova-sg.conf": novas}, []),
            ({"agent.conf": novas}, []),
            # Files that are read together.
            ({"nova.conf": wrong, "more.conf": wrong}, []),
            (
                {"nova.conf": wrong, "nova-sg.conf": wrong},
                ["nova-sg.conf"],
            ),
            (
                {"nova-sg.conf": wrong, "nova_sg-2.conf": wrong},
                ["nova-sg.conf", "nova_sg-2.conf"],
            ),
        ):
            with self.subTest(files):
                found = [one for one in self.find(**files).split("; ") if one]
                self.assertEqual(
                    expected, [one.split(": ")[0] for one in found]
                )

    def test_many(self):
        text = "".join(f"[weather{number}]\n" for number in range(30))
        self.assertTrue(
            self.find(**{"nova-sg.conf": text}).endswith(
                "section [weather9], 20 more"
            )
        )

    def test_the_options_of_libraries_are_known(self):
        for listed in (
            oslo_db.list_opts(),
            oslo_log.list_opts(),
            _options_of("oslo_messaging", "opts"),
            _options_of("oslo_service", "service"),
        ):
            for group, options in listed:
                section = str(getattr(group, "name", group) or "DEFAULT")
                lines = [f"{option.dest} =" for option in options]
                text = "\n".join([f"[{section}]", *lines])
                self.assertEqual("", self.find(**{"nova-sg.conf": text}))
