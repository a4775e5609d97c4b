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

"""The snippets of the page on deploying can be used as they stand."""

import configparser
import os
import pathlib
import re
import shlex
import stat
import subprocess
import tempfile
import textwrap
import unittest

import yaml
from oslo_config import cfg

from nova_sg import conf, unknown_options
from nova_sg.conf import opts
from tests.unit import entry_points

ROOT = pathlib.Path(__file__).parents[2]
PAGE = ROOT / "doc" / "source" / "deploying.rst"
BLOCK = re.compile(
    r"^( *)\.\. code-block:: (\w+)\n"
    r"\1   :caption: (.+)\n"
    r"\n((?:\1   .*\n|\n)+)",
    re.MULTILINE,
)
#: Where each snippet with options of nova.conf has them, by its caption.
NOVA_CONF = (
    "/etc/kolla/config/nova.conf",
    "/etc/nova/nova.conf, added",
)
OVERRIDES = {
    "/etc/openstack_deploy/user_variables.yml": ("nova_nova_conf_overrides",),
    "nova_nova_conf_overrides, in part": (),
    "values of the chart nova": ("conf", "nova"),
}
#: Instructions of a Dockerfile.
INSTRUCTIONS = {"FROM", "ADD", "COPY", "RUN"}
#: The variables that nova_sg's page takes from each tool: their sources have
#: them, and a test cannot ask these.
VARIABLES = {
    "/etc/kolla/globals.yml": {"docker_graceful_timeout"},
    "/etc/openstack_deploy/user_variables.yml": {
        "nova_compute_init_overrides",
        "nova_nova_conf_overrides",
        "nova_user_pip_packages",
    },
}
#: What switches nova_sg on, and which driver it is.
SWITCHES = {"config_source", "servicegroup_driver", "driver"}


def snippets(*kinds):
    """Return (kind, caption, text) of the snippets of these kinds."""
    found = BLOCK.findall(PAGE.read_text())
    return [
        (kind, caption, textwrap.dedent(text))
        for _, kind, caption, text in found
        if kind in kinds
    ]


def to_ini(sections):
    """Return options as the tools write them into nova.conf."""
    lines = []
    for section, options in sections.items():
        lines.append(f"[{section}]")
        lines += [f"{name} = {value}" for name, value in options.items()]
    return "\n".join(lines) + "\n"


def strings(value):
    """Yield the texts within a YAML value."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for one in value:
            yield from strings(one)
    elif isinstance(value, str):
        yield value


class SnippetsTest(unittest.TestCase):
    def nova_confs(self):
        """Yield (caption, text) of all that ends in a nova.conf."""
        for _, caption, text in snippets("ini"):
            if caption in NOVA_CONF:
                yield caption, text
        for _, caption, text in snippets("yaml"):
            value = yaml.safe_load(text)
            if caption in OVERRIDES:
                for key in OVERRIDES[caption]:
                    value = value[key]
                yield caption, to_ini(value)
            else:
                for one in strings(value):
                    if one.startswith("["):
                        yield caption, one

    def test_each_snippet_is_of_a_kind_that_is_checked(self):
        page = PAGE.read_text()
        blocks = re.findall(r"^ *\.\. code-block:: (\w+)", page, re.MULTILINE)
        captions = [
            kind
            for kind, _, _ in snippets("yaml", "ini", "jinja", "dockerfile")
        ]
        # Puppet's resource has no caption: see its own test.
        self.assertEqual(
            sorted(kind for kind in blocks if kind != "puppet"),
            sorted(captions),
        )

    def test_yaml_can_be_parsed(self):
        found = snippets("yaml")
        self.assertGreater(len(found), 5)
        for _, caption, text in found:
            with self.subTest(caption):
                value = yaml.safe_load(text)
                self.assertIsInstance(value, dict)
                self.assertEqual(
                    VARIABLES.get(caption, value.keys()), value.keys()
                )

    def test_each_option_exists(self):
        seen = set()
        for caption, text in self.nova_confs():
            with self.subTest(caption):
                seen.add(caption)
                self.assertEqual("", self.unknown(text))
        self.assertEqual(
            {*NOVA_CONF, *OVERRIDES},
            seen & {*NOVA_CONF, *OVERRIDES},
        )
        # Those of Red Hat's operators.
        self.assertEqual(2, len(seen - {*NOVA_CONF, *OVERRIDES}))

    def test_each_value_is_valid(self):
        for caption, text in self.nova_confs():
            with self.subTest(caption):
                config = self.read(text)
                for section, options in opts.list_opts():
                    for opt in options:
                        group = (
                            config if section == "DEFAULT" else config[section]
                        )
                        getattr(group, opt.dest)

    def test_each_nova_conf_switches_nova_sg_on(self):
        for caption, text in self.nova_confs():
            if caption == "nova_nova_conf_overrides, in part":
                continue
            with self.subTest(caption):
                sections = {}
                path = self.write(text)
                cfg.ConfigParser(path, sections).parse()
                self.assertEqual(
                    ["nova_sg"], sections["DEFAULT"]["config_source"]
                )
                self.assertEqual({"driver": ["nova_sg"]}, sections["nova_sg"])
                self.assertIn(
                    sections["DEFAULT"]["servicegroup_driver"],
                    (["db"], ["mc"], ["zk"]),
                )

    def test_other_ini_files(self):
        others = {
            caption: text
            for _, caption, text in snippets("ini")
            if caption not in NOVA_CONF
        }
        build = self.parse(others.pop("/etc/kolla/kolla-build.conf"))
        self.assertEqual(["nova-base-plugin-nova-sg"], build.sections())
        self.assertEqual(
            {"type", "location", "reference"},
            set(build["nova-base-plugin-nova-sg"]),
        )
        ((caption, text),) = others.items()
        self.assertTrue(caption.startswith("/etc/systemd/system/"))
        unit = self.parse(text)
        self.assertEqual({"TimeoutStopSec": "200"}, dict(unit["Service"]))

    def test_puppet_names_options(self):
        _, _, text = PAGE.read_text().partition("code-block:: puppet\n")
        named = re.findall(
            r"^ +'(\w+)/(\w+)': +value => '(\w+)';$", text, re.MULTILINE
        )
        self.assertEqual(SWITCHES, {option for _, option, _ in named})
        self.assertEqual(
            "",
            self.unknown("".join(f"[{s}]\n{o} = {v}\n" for s, o, v in named)),
        )

    def test_a_misspelt_option_is_found(self):
        for wrong in (
            "[DEFAULT]\nmemcache_servers = a:1",
            "[servicegroup]\ncrash_gard = true",
            "[nova_sg]\ndrivers = nova_sg",
            "[zookeper]\naddress = a:1",
        ):
            with self.subTest(wrong):
                self.assertNotEqual("", self.unknown(f"{wrong}\n"))

    @staticmethod
    def parse(text):
        parser = configparser.ConfigParser()
        parser.optionxform = str
        parser.read_string(text)
        return parser

    def write(self, text):
        folder = tempfile.TemporaryDirectory(prefix="nova-sg-test-")
        self.addCleanup(folder.cleanup)
        path = os.path.join(folder.name, "nova-sg.conf")
        with open(path, "w") as file:
            file.write(text)
        return path

    def unknown(self, text):
        """Return what nova_sg does not know, as it warns of it."""
        # It is for the source of configuration, not for nova_sg's options.
        text = text.replace("[nova_sg]\ndriver = nova_sg\n", "")
        path = self.write(text)
        return unknown_options.find([path]).removeprefix(f"{path}: ")

    def read(self, text):
        config = cfg.ConfigOpts()
        for module in conf.SECTIONS:
            for section, options in module.list_opts().items():
                config.register_opts(
                    options, None if section == "DEFAULT" else section
                )
        path = self.write(text.replace("config_source = nova_sg\n", ""))
        config([], project="nova-sg", default_config_files=[path])
        return config


class CommandsTest(unittest.TestCase):
    def setUp(self):
        super().setUp()
        self.programs, self.commands = entry_points.read()

    def test_each_program_exists(self):
        page = PAGE.read_text()
        named = set(re.findall(r"(?<![\w/.-])nova-sg-[a-z]+", page))
        self.assertIn("nova-sg-exec", named)
        # A drop-in, and the name of a plugin: no programs.
        self.assertEqual(set(), named - set(self.programs))

    def test_each_command_can_be_parsed(self):
        page = PAGE.read_text()
        shown = re.findall(r"^ +nova-sg (.+)$", page, re.MULTILINE)
        self.assertEqual(2, len(shown))
        named = re.findall(r"``nova-sg\s+([a-z-]+(?:\s+[a-z-]+)?)``", page)
        self.assertGreater(len(named), 1)
        for line in shown + named:
            with self.subTest(line):
                words = shlex.split(line)
                if words[0] == "--config-file":
                    words = words[2:]
                entry_points.parse(self, self.commands, words)


class ImagesTest(unittest.TestCase):
    """Services of Nova are started by the guard, with the same arguments."""

    def setUp(self):
        super().setUp()
        folder = tempfile.TemporaryDirectory(prefix="nova-sg-test-")
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        self.bin = self.folder / "bin"
        self.bin.mkdir()
        # Each prints how it was started.
        for name in (
            "nova-sg-exec",
            "nova-compute",
            "nova-conductor",
            "nova-scheduler",
        ):
            self.program(name, f'printf "%s|" {name} "$@"')

    def program(self, name, text):
        path = self.bin / name
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)

    def run_shell(self, text, shell="sh"):
        return subprocess.run(
            [shell, "-euc", text],
            check=True,
            stdout=subprocess.PIPE,
            text=True,
            env={"PATH": f"{self.bin}:{os.environ['PATH']}"},
        ).stdout

    def instructions(self, text):
        text = re.sub(r"\\\n", "", text)
        return [
            tuple(line.split(maxsplit=1))
            for line in text.splitlines()
            if line and not line.startswith(("#", "{%"))
        ]

    def test_only_known_instructions(self):
        found = snippets("dockerfile", "jinja")
        self.assertEqual(2, len(found))
        for _, caption, text in found:
            with self.subTest(caption):
                names = [name for name, _ in self.instructions(text)]
                self.assertTrue(names)
                self.assertEqual(set(), set(names) - INSTRUCTIONS)

    def test_blocks_of_the_template_are_closed(self):
        ((_, _, text),) = snippets("jinja")
        tags = re.findall(r"{% (\w+)(?: \w+)? %}", text)
        self.assertEqual(["extends", "block", "endblock"], tags)

    def test_kolla(self):
        """kolla_start sources the file, and then executes CMD."""
        ((_, _, text),) = snippets("jinja")
        ((_, command),) = self.instructions(text)
        file = self.folder / "extend"
        self.run_shell(
            command.replace(
                "/usr/local/bin/kolla_nova_extend_start", str(file)
            )
        )
        printed = self.run_shell(
            f'CMD="nova-compute"; ARGS=""; . {file}; exec $CMD $ARGS', "bash"
        )
        self.assertEqual("nova-sg-exec|--guard|nova-compute|", printed)

    def test_helm(self):
        ((_, _, text),) = snippets("dockerfile")
        command = self.instructions(text)[-1][1]
        self.assertIn("/var/lib/openstack", command)
        self.run_shell(command.replace("/var/lib/openstack", str(self.folder)))
        for name in ("nova-compute", "nova-conductor", "nova-scheduler"):
            printed = self.run_shell(f'exec {name} --config-file "a b"')
            moved = self.folder / "unguarded" / name
            self.assertEqual(
                f"nova-sg-exec|--guard|{moved}|--config-file|a b|", printed
            )
            self.assertTrue(os.access(moved, os.X_OK))
