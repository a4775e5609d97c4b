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

"""What there is, is documented; what is documented, is there."""

import ast
import pathlib
import re
import shlex
import unittest

from nova_sg import conf
from nova_sg.liveness import model
from tests.unit import entry_points

ROOT = pathlib.Path(__file__).parents[2]
DOC = ROOT / "doc" / "source"
# Libraries of their own, which log what ZooKeeper's C client says.
OTHER_PACKAGES = ("zookeeper", "evzookeeper", "kazoo_transport")


class OptionsTest(unittest.TestCase):
    def test_every_option_is_named_under_its_section(self):
        page = (DOC / "configuration.rst").read_text()
        _, _, page = page.partition("The options by purpose\n")
        # "``[section]``" on a line of its own, then its options.
        parts = re.split(r"^``\[(\w+)\]``$", page, flags=re.MULTILINE)
        named = {
            section: set(re.findall(r"``(\w+)``", text))
            for section, text in zip(parts[1::2], parts[2::2], strict=True)
        }
        missing = [
            f"[{section}] {opt.name}"
            for module in conf.SECTIONS
            for section, opts in module.list_opts().items()
            for opt in opts
            if opt.name not in named.get(section, ())
        ]
        self.assertEqual([], missing)


class CommandsTest(unittest.TestCase):
    def setUp(self):
        super().setUp()
        self.page = (DOC / "cli.rst").read_text()
        self.programs, self.commands = entry_points.read()

    def titles(self, line):
        return set(re.findall(rf"^(.+)\n{line}+$", self.page, re.MULTILINE))

    def test_every_program_has_a_section(self):
        programs = set(self.programs)
        self.assertEqual(set(), programs - self.titles("="))

    def test_every_command_has_a_section(self):
        self.assertEqual(set(self.commands), self.titles("-"))

    def test_the_commands_shown_can_be_parsed(self):
        shown = re.findall(r"^   \$ nova-sg (.+)$", self.page, re.MULTILINE)
        self.assertTrue(shown)
        for line in shown:
            with self.subTest(line):
                words = shlex.split(line.partition(";")[0])
                entry_points.parse(self, self.commands, words)


class MessagesTest(unittest.TestCase):
    def test_every_message_is_explained(self):
        page = (DOC / "troubleshooting.rst").read_text()
        entries = re.findall(r"^``(.+?)``", page, re.MULTILINE)
        missing = [
            f"{path.relative_to(ROOT)}:{line}: {message}"
            for path in sorted((ROOT / "nova_sg").rglob("*.py"))
            if path.relative_to(ROOT).parts[1] not in OTHER_PACKAGES
            for line, message in self._messages(path)
            if not any(self._pattern(message).fullmatch(e) for e in entries)
        ]
        self.assertEqual([], missing)

    @staticmethod
    def _messages(path):
        """Yield (line, text) of each warning and error that is logged."""
        for node in ast.walk(ast.parse(path.read_text())):
            if (
                isinstance(node, ast.Call)
                and ast.unparse(node.func)
                in ("LOG.warning", "LOG.error", "LOG.exception")
                and isinstance(node.args[0], ast.Constant)
                # What only passes on an error is explained there.
                and node.args[0].value != "%s"
            ):
                yield node.lineno, node.args[0].value

    @staticmethod
    def _pattern(message):
        """Return what matches the message's entry: any words for a value."""
        parts = re.split(r"%(?:\(\w+\))?[.\d]*[a-z]", message)
        return re.compile(".+?".join(map(re.escape, parts)))


class JudgementTest(unittest.TestCase):
    def test_every_cause_is_on_the_page_with_its_state(self):
        page = (DOC / "judgement.rst").read_text()
        _, _, page = page.partition("\nVerdicts\n========\n")
        page, _, _ = page.partition("\n========")
        row = r"^     - ``([a-z-]+)``\n     - (\w+)$"
        after = r"^``([a-z-]+)``, (\w+)$"
        named = re.findall(f"{row}|{after}", page, re.MULTILINE)
        self.assertEqual(
            {(one.cause, one.state) for one in _verdicts()},
            {(row[0] or row[2], row[1] or row[3]) for row in named},
        )


def _verdicts():
    return [
        value
        for value in vars(model).values()
        if isinstance(value, model.Verdict)
    ]


class ModulesTest(unittest.TestCase):
    def test_the_modules_named_are_those_there_are(self):
        page = (DOC / "contributor" / "index.rst").read_text()
        _, _, page = page.partition("\nThe modules\n")
        page, _, _ = page.partition("\nAnother Debian\n")
        named, folder = [], None
        for line in page.splitlines():
            if found := re.match(r"``(nova_sg/(?:\w+/)*)``: ", line):
                folder = found[1]
            elif found := re.match(r"``([\w/]+\.py)`` ", line):
                named.append(f"{folder}{found[1]}")
        there = [
            str(path.relative_to(ROOT))
            for path in (ROOT / "nova_sg").rglob("*.py")
            # The steps of a migration are numbered, and named nowhere.
            if path.name != "__init__.py" and path.parent.name != "versions"
        ]
        self.assertEqual(sorted(there), sorted(named))


class InstallTest(unittest.TestCase):
    """tests/processes/test_systemd_boot.py runs the commands of the page."""

    def test_the_readme_has_the_commands_of_the_page(self):
        text = (ROOT / "README.rst").read_text()
        _, _, text = text.partition("\nInstalling\n")
        shown = re.search(r"::\n\n((?:    .+\n)+)", text)[1]
        page = (DOC / "install.rst").read_text().replace(" --yes", "")
        for line in shown.splitlines():
            # The checkout is the folder there, and has a path on the page.
            line = re.sub(r" ('?)\.", r" \1/srv/nova_sg", line.strip())
            self.assertIn(line, page)

    def test_no_index_is_said_to_have_it(self):
        for page in (*DOC.rglob("*.rst"), *ROOT.glob("*.rst")):
            for line in page.read_text().splitlines():
                self.assertNotRegex(
                    line, r"pip3? install\b.*[ '\"]nova-sg\b", page
                )


class WordsTest(unittest.TestCase):
    #: Of a machine: it is a member, an observer, a process. Not in names,
    #: such as --kill-whom.
    ODD = re.compile(
        r"(?<![\w-])(who|whom|whoever|nobody|somebody|anybody|everybody|heed)"
        r"(?![\w-])",
        re.IGNORECASE,
    )

    def test_no_machine_is_called_as_a_person_is(self):
        pages = [
            *DOC.rglob("*.rst"),
            *(ROOT / "devstack").glob("*.rst"),
            *ROOT.glob("*.rst"),
        ]
        self.assertGreater(len(pages), 20)
        found = [
            f"{page.relative_to(ROOT)}: {odd[0]}"
            for page in sorted(pages)
            # Messages are quoted as they are.
            for odd in self.ODD.finditer(
                re.sub(r"``.+?``", "", page.read_text(), flags=re.DOTALL)
            )
        ]
        self.assertEqual([], found)
