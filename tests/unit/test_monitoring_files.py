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

"""The dashboard and the alert rules use metrics that exist."""

import json
import pathlib
import re
import unittest

import yaml

from nova_sg import metrics
from nova_sg.monitor import overview

ROOT = pathlib.Path(__file__).parents[2]
NAME = re.compile(r"\bnova_sg_\w+")


def expressions():
    """Yield (file and place, PromQL) of every expression in etc/."""
    rules = yaml.safe_load(
        (ROOT / "etc/prometheus/nova-sg.rules.yaml").read_text()
    )
    for group in rules["groups"]:
        for rule in group["rules"]:
            yield rule["alert"], rule["expr"]
    dashboard = json.loads((ROOT / "etc/grafana/nova-sg.json").read_text())
    for panel in dashboard["panels"]:
        for target in panel["targets"]:
            yield panel["title"], target["expr"]
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "query":
            yield variable["name"], variable["query"]


def rule_tests():
    """Return promtool's tests of the alert rules."""
    path = ROOT / "tests/prometheus/rules.test.yaml"
    return yaml.safe_load(path.read_text())["tests"]


class NamesTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        metrics.start_afresh()
        cls.addClassCleanup(metrics.start_afresh)
        numbers = metrics.current()
        # The monitor's metrics.
        overview.Overview()
        cls.labels = {}
        for family in numbers.registry.collect():
            cls.labels[family.name] = family
        cls.names = set()
        for name, family in cls.labels.items():
            suffixes = {
                "counter": ("_total",),
                "histogram": ("_bucket", "_sum", "_count"),
                "info": ("_info",),
            }.get(family.type, ("",))
            cls.names |= {name + suffix for suffix in suffixes}

    def test_every_metric_that_is_used_exists(self):
        found = set()
        for where, expression in expressions():
            with self.subTest(where):
                names = set(NAME.findall(expression))
                self.assertTrue(names)
                self.assertEqual(set(), names - self.names)
                for old in metrics.OLD_NAMES.values():
                    self.assertNotRegex(expression, rf"{old}\b|{old}_")
                found |= names
        # Both files use a good part of the metrics.
        self.assertGreater(len(found), 8)

    def test_every_metric_is_documented(self):
        page = (ROOT / "doc/source/metrics.rst").read_text()
        documented = set(NAME.findall(page))
        plain = {
            re.sub("_(bucket|sum|count)$", "", name)
            for name in self.names
            if name.startswith("nova_sg")
        }
        self.assertEqual(plain, documented)

    def test_promtool_has_a_test_of_every_rule(self):
        fires = {True: set(), False: set()}
        for test in rule_tests():
            for series in test["input_series"]:
                (name,) = NAME.findall(series["series"].partition("{")[0])
                self.assertIn(name, self.names)
            for rule in test["alert_rule_test"]:
                fires[bool(rule["exp_alerts"])].add(rule["alertname"])
        rules = yaml.safe_load(
            (ROOT / "etc/prometheus/nova-sg.rules.yaml").read_text()
        )
        for group in rules["groups"]:
            alerts = {rule["alert"] for rule in group["rules"]}
            self.assertEqual({True: alerts, False: alerts}, fires)

    def test_the_brackets_of_every_expression_match(self):
        for where, expression in expressions():
            for pair in "()", "{}", "[]":
                self.assertEqual(
                    expression.count(pair[0]), expression.count(pair[1]), where
                )
