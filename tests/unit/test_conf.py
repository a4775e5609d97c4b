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

"""The options, the sample file, and the errors of wrong files."""

import glob
import os
import re
import tempfile
import unittest
from unittest import mock

from oslo_config import cfg, generator

from nova_sg import conf, config, exception, servicegroup
from nova_sg.backends.memcached import server_options
from nova_sg.conf import CONF, base
from tests import base as test_base

ROOT = os.path.join(os.path.dirname(__file__), "..", "..")
SAMPLE = os.path.join(ROOT, "etc", "nova-sg", "nova-sg.conf.sample")
SECRET = "Tr0ub4dor-s3cret"


def options():
    """Yield (section, option) for every option of nova_sg."""
    for module in conf.SECTIONS:
        for section, opts in module.list_opts().items():
            for opt in opts:
                yield section, opt


class OptionsTest(unittest.TestCase):
    def test_every_option_is_explained(self):
        for section, opt in options():
            with self.subTest(section, opt=opt.name):
                self.assertRegex(opt.help or "", r"(?s)\w+ \w+ .*\.")

    def test_what_is_secret_is_marked(self):
        marked = {opt.name for _, opt in options() if opt.secret}
        self.assertLessEqual({"connection", "memcache_secret_key"}, marked)

    def test_no_option_is_defined_twice(self):
        names = [(section, opt.name) for section, opt in options()]
        self.assertEqual(len(names), len(set(names)))

    def test_every_option_has_a_reader(self):
        code = ""
        for path in glob.glob(f"{ROOT}/nova_sg/**/*.py", recursive=True):
            if not path.startswith(f"{ROOT}/nova_sg/conf/"):
                with open(path) as file:
                    code += file.read()
        for section, opt in options():
            group = "" if section == "DEFAULT" else rf"{section}\s*\.\s*"
            with self.subTest(section, opt=opt.name):
                self.assertRegex(code, rf"CONF\s*\.\s*{group}{opt.dest}\b")

    def test_an_option_of_nova_stays_as_nova_has_it(self):
        theirs = cfg.ConfigOpts()
        theirs.register_opt(cfg.IntOpt("report_interval", default=17))
        conf.register_opts(theirs)
        theirs([], default_config_files=[])
        self.assertEqual(17, theirs.report_interval)
        self.assertEqual("db", theirs.servicegroup_driver)


class SampleTest(unittest.TestCase):
    """The sample file has the help of the code.

    What it says of oslo.log's options depends on the release of oslo.log.
    """

    def generate(self, *namespaces):
        generated = cfg.ConfigOpts()
        generator.register_cli_opts(generated)
        with tempfile.NamedTemporaryFile("r", suffix=".sample") as file:
            arguments = ["--output-file", file.name]
            for namespace in namespaces:
                arguments += ["--namespace", namespace]
            generated(
                ["--wrap-width", "79", *arguments], default_config_files=[]
            )
            generator.generate(generated)
            return file.read()

    @staticmethod
    def split(sample):
        """Return the text of each option by its section and name."""
        blocks, section = {}, None
        for block in re.split(r"\n\n+(?=#|\[)", sample):
            for line in block.splitlines():
                if match := re.fullmatch(r"\[(\w+)\]", line):
                    section = match[1]
                elif match := re.match(r"#(\w+) =( |$)", line):
                    blocks[section, match[1]] = block.strip()
        return blocks

    def test_sample_is_in_step(self):
        with open(SAMPLE) as file:
            sample = self.split(file.read())
        ours = self.split(self.generate("nova_sg"))
        self.assertEqual(
            sorted((s, opt.name) for s, opt in options()), sorted(ours)
        )
        remedy = (
            "run: oslo-config-generator --config-file "
            "etc/nova-sg/config-generator.conf"
        )
        for name, text in ours.items():
            with self.subTest(name):
                self.assertEqual(text, sample.get(name), remedy)
        others = sample.keys() - ours.keys()
        theirs = self.split(self.generate("oslo.log")).keys()
        self.assertLessEqual(others, theirs, remedy)
        self.assertIn(("DEFAULT", "debug"), others)

    def test_sample_is_the_same_on_every_machine(self):
        def differently():
            before = base.HOST.default
            base.HOST.default = "some-other-host"
            try:
                return self.generate("nova_sg", "oslo.log")
            finally:
                base.HOST.default = before

        self.assertEqual(
            self.generate("nova_sg", "oslo.log"), differently()
        )
        self.assertIn("#host = <current_hostname>", differently())

    def test_sample_can_be_used_as_it_is(self):
        config.parse(["--config-file", SAMPLE], "nova-sg")
        self.addCleanup(CONF.reset)
        for section, opt in options():
            values = CONF if section == "DEFAULT" else CONF[section]
            self.assertEqual(opt.default, values[opt.dest])


class FilesTestCase(test_base.TestCase):
    """Reading files."""

    def setUp(self):
        super().setUp()
        CONF.clear_override("state_path")

    def write(self, text, name="nova-sg.conf"):
        path = os.path.join(self.folder, name)
        with open(path, "wb") as file:
            file.write(text if isinstance(text, bytes) else text.encode())
        return path

    def parse(self, text):
        config.parse(["--config-file", self.write(text)], "nova-sg")

    def error(self, *arguments):
        """Return the error of the configuration that arguments name."""
        with self.assertRaises(exception.ConfigError) as caught:
            config.parse(arguments, "nova-sg")
        text = str(caught.exception)
        self.assertNotIn(SECRET, text)
        self.assertNotIn("LocationInfo", text)
        self.assertNotIn("\n", text)
        return text


class ReadTest(FilesTestCase):
    def test_wrong_values(self):
        for text, words in (
            ("report_interval = soon", "[DEFAULT] report_interval: "),
            ("report_interval = -1", "greater than or equal to 0"),
            ("service_down_time = 0", "greater than or equal to 0.1"),
            ("servicegroup_driver = zookeper", "Use db, mc, zk, or install"),
            ("[memcache]\nsocket_timeout = 1 s", "[memcache] socket_timeout"),
            (
                "[servicegroup]\nrecreate_missing_record = perhaps",
                "[servicegroup] recreate_missing_record: ",
            ),
        ):
            with self.subTest(text):
                path = self.write(f"[DEFAULT]\n{text}\n")
                said = self.error("--config-file", path)
                self.assertIn(words, said)
                self.assertIn(f" from {path} is not valid: ", said)

    def test_no_value(self):
        for name, default in (
            ("host", "<current_hostname>"),
            ("report_interval", "10"),
            ("service_down_time", "60"),
            ("state_path", "/var/lib/nova-sg"),
            ("topic", "compute"),
        ):
            with self.subTest(name):
                path = self.write(f"[DEFAULT]\n{name} =\n")
                self.assertEqual(
                    f"[DEFAULT] {name}: no value is given. Leave the line "
                    f"out for the default, {default}",
                    self.error("--config-file", path),
                )

    def test_a_wrong_value_in_the_environment(self):
        name = "OS_DEFAULT__REPORT_INTERVAL"
        self.addCleanup(os.environ.pop, name, None)
        os.environ[name] = "soon"
        self.assertRegex(
            self.error(),
            rf"\[DEFAULT\] report_interval: .* from {name} .*'soon'",
        )

    def test_dollar_signs(self):
        for option in (
            "host = $my_address",
            "host = $host",
            "state_path = $pybasedir/state",
            f"[database]\nconnection = mysql+pymysql://n:${SECRET}@sql/nova",
            "host = $database",
        ):
            with self.subTest(option):
                path = self.write(f"[DEFAULT]\n{option}\n")
                said = self.error("--config-file", path)
                self.assertIn(option.splitlines()[-1].split()[0], said)
                self.assertIn("is written $$", said)
                self.assertNotIn("Tr0ub4dor", said)
        self.parse("[DEFAULT]\nhost = $topic-$$1\n")
        self.assertEqual("compute-$1", CONF.host)

    def test_files_that_are_none(self):
        for text, words in (
            (f"connection {SECRET}\n", "line 1: No ':' or '=' found"),
            (f"password = {SECRET}\n", "line 1: Section must be started"),
            (f"[DEFAULT\nx = {SECRET}\n", "line 1: Invalid section"),
            (f"[DEFAULT]\n\n  {SECRET}\n", "line 3: Unexpected continuation"),
            (f"[DEFAULT]\n= {SECRET}\n", "line 2: Key cannot be empty"),
            (b"\x7fELF\x02\xff\xfe" + SECRET.encode(), "not a text file"),
        ):
            with self.subTest(text):
                path = self.write(text)
                said = self.error("--config-file", path)
                self.assertIn(path, said)
                self.assertIn(words, said)
                self.assertNotIn(SECRET, said)

    def test_what_is_missing(self):
        nowhere = os.path.join(self.folder, "nowhere")
        file = self.write("")
        for arguments, words in (
            (["--config-file", nowhere], f"config files: {nowhere}. Correct"),
            (["--config-dir", nowhere], f"directory: {nowhere}. Correct"),
            (["--config-dir", file], f"{file}: this is not a folder"),
            (["--config-file", self.folder], f"{self.folder}: Is a direc"),
        ):
            with self.subTest(arguments):
                self.assertIn(words, self.error(*arguments))

    def test_a_wrong_file_among_others(self):
        folder = os.path.join(self.folder, "conf.d")
        os.mkdir(folder)
        self.write("[DEFAULT]\nhost = one\n", "conf.d/10-good.conf")
        bad = self.write("\xff", "conf.d/20-bad.conf")
        self.write("nonsense", "conf.d/30-not-read.txt")
        self.assertIn(bad, self.error("--config-dir", folder))
        self.write(b"\xff\xff", "conf.d/20-bad.conf")
        self.assertIn(
            f"{bad}: not a text file", self.error("--config-dir", folder)
        )
        os.unlink(bad)
        config.parse(["--config-dir", folder], "nova-sg")
        self.assertEqual("one", CONF.host)

    def test_quotes_and_none(self):
        self.parse(
            "[DEFAULT]\n"
            'servicegroup_driver="mc"\n'
            "memcached_servers = <None>\n"
            "host = 'quoted'\n"
        )
        self.assertEqual(
            ("mc", "quoted"), (CONF.servicegroup_driver, CONF.host)
        )
        self.assertEqual(
            ["<None> (inside the process)"],
            [server.address for server in server_options.make_servers()],
        )
        self.parse(
            "[DEFAULT]\n"
            'memcached_servers = "10.0.0.1:11211, 10.0.0.2:11211"\n'
        )
        self.assertEqual(
            ["10.0.0.1:11211", "10.0.0.2:11211"],
            [server.address for server in server_options.make_servers()],
        )


class DerivedTest(FilesTestCase):
    """A value that is made of options, and kept while they do not change."""

    def setUp(self):
        super().setUp()
        self.made = 0
        self.derived = config.Derived(self.make)

    def make(self):
        self.made += 1
        return CONF.topic, CONF.servicegroup.mass_silence_hold

    def check(self, *expected):
        """Check the value, and that one change makes it anew, once."""
        made = self.made
        for _ in range(3):
            self.assertEqual(expected, self.derived.get())
        self.assertEqual(made + 1, self.made)

    def test_every_kind_of_change(self):
        self.parse("[DEFAULT]\ntopic = one\n")
        self.check("one", None)
        CONF.set_override("mass_silence_hold", 7, "servicegroup")
        self.check("one", 7)
        CONF.clear_override("mass_silence_hold", "servicegroup")
        self.check("one", None)
        CONF.set_default("mass_silence_hold", 8, "servicegroup")
        self.addCleanup(
            CONF.clear_default, "mass_silence_hold", "servicegroup"
        )
        self.check("one", 8)
        CONF.clear_default("mass_silence_hold", "servicegroup")
        self.check("one", None)
        self.write("[DEFAULT]\ntopic = two\n")
        config.reload(lambda: None)
        self.check("two", None)
        self.write("[DEFAULT]\ntopic = three\n")

        def refuse():
            self.check("three", None)
            raise exception.ConfigError("no")

        with self.assertRaises(exception.ConfigError):
            config.reload(refuse)
        self.check("two", None)
        CONF.reload_config_files()
        self.check("three", None)
        self.parse("[DEFAULT]\ntopic = four\n")
        self.check("four", None)
        CONF.reset()
        CONF([], project="nova-sg", default_config_files=[])
        self.check("compute", None)

    def test_an_error_is_not_kept(self):
        path = self.write("[servicegroup]\nmass_silence_hold = long\n")
        CONF(["--config-file", path], default_config_files=[])
        self.addCleanup(CONF.reset)
        for _ in range(2):
            with self.assertRaisesRegex(ValueError, "mass_silence_hold"):
                self.derived.get()
        self.assertEqual(2, self.made)
        CONF.set_override("mass_silence_hold", 7, "servicegroup")
        self.addCleanup(
            CONF.clear_override, "mass_silence_hold", "servicegroup"
        )
        self.check("compute", 7)

    def test_an_oslo_config_without_that_cache(self):
        """It is slower then, and right."""
        self.parse("[DEFAULT]\ntopic = one\n")
        cache = CONF.__dict__.pop("_ConfigOpts__cache")
        with mock.patch.object(
            type(CONF), "_get", lambda self, *name: self._do_get(*name)[0]
        ):
            self.assertEqual("one", self.derived.get()[0])
            self.derived.get()
            CONF.__dict__["_ConfigOpts__cache"] = cache
        self.assertEqual(2, self.made)


class ApiOptionsTest(test_base.TestCase):
    """An API has the options of the moment at which it is made."""

    def test_options_that_change_between_two(self):
        self.flags(report_interval=1, service_down_time=20)
        first = servicegroup.API()
        self.flags(service_down_time=30)
        self.flags("servicegroup", secondary_drivers=["mc"])
        second = servicegroup.API()
        self.assertEqual(20, first._driver._limits.service_down_time)
        self.assertEqual(30, second._driver._limits.service_down_time)
        self.assertEqual("db", first._driver._name)
        self.assertEqual("db,mc", second._driver._name)

    def test_a_rule_that_is_broken_later(self):
        self.flags(report_interval=1, service_down_time=20)
        servicegroup.API()
        self.flags(report_interval=30)
        with self.assertLogs("nova_sg", "WARNING") as logged:
            self.assertEqual(
                75, servicegroup.API()._driver._limits.service_down_time
            )
            servicegroup.API()
        self.assertEqual(1, len(logged.output))

    def test_a_wrong_option_fails_each_time(self):
        path = os.path.join(self.folder, "wrong.conf")
        with open(path, "w") as file:
            file.write("[servicegroup]\ncrash_grace = soon\n")
        CONF(["--config-file", path], default_config_files=[])
        self.addCleanup(CONF.reset)
        for _ in range(2):
            with self.assertRaisesRegex(ValueError, "crash_grace"):
                servicegroup.API()


class ReloadTest(FilesTestCase):
    def setUp(self):
        super().setUp()
        self.accepted = []
        self.parse("[DEFAULT]\nreport_interval = 1\nservice_down_time = 20\n")

    def accept(self):
        self.accepted.append((CONF.report_interval, CONF.service_down_time))

    def refuse(self):
        self.accept()
        raise exception.ConfigError("no")

    def check_old(self):
        self.assertEqual(
            (1, 20), (CONF.report_interval, CONF.service_down_time)
        )

    def test_new_values(self):
        # The value that Nova's rule derived goes with the old ones.
        CONF.set_override("service_down_time", 33)
        self.write("[DEFAULT]\nreport_interval = 2\nservice_down_time = 30\n")
        config.reload(self.accept)
        self.assertEqual([(2, 30)], self.accepted)
        self.assertEqual(
            (2, 30), (CONF.report_interval, CONF.service_down_time)
        )

    def test_the_old_values_stay_where_the_new_ones_are_wrong(self):
        for text in (
            "[DEFAULT]\nreport_interval = 2\nservice_down_time = soon\n",
            "[DEFAULT]\nreport_interval = 2\nstate_path = $nowhere\n",
            f"connection {SECRET}\n",
            b"\xff\xff",
        ):
            with self.subTest(text):
                self.write(text)
                with self.assertRaises(exception.ConfigError) as caught:
                    config.reload(self.accept)
                self.assertNotIn(SECRET, str(caught.exception))
                self.check_old()
        self.assertEqual([], self.accepted)
        self.assertEqual([], self.logs.matching(SECRET))

    def test_the_old_values_stay_where_the_file_is_gone(self):
        os.unlink(self.write(""))
        with self.assertRaises(exception.ConfigError):
            config.reload(self.accept)
        self.check_old()

    def test_the_old_values_stay_where_the_new_ones_are_refused(self):
        self.write("[DEFAULT]\nreport_interval = 2\n")
        with self.assertRaisesRegex(exception.ConfigError, "^no$"):
            config.reload(self.refuse)
        self.assertEqual([(2, 60)], self.accepted)
        self.check_old()
        # An override that stands stays, too.
        CONF.set_override("service_down_time", 50)
        with self.assertRaises(exception.ConfigError):
            config.reload(self.refuse)
        self.assertEqual(50, CONF.service_down_time)
        CONF.clear_override("service_down_time")
