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

"""Starts like a service of Nova, up to its first API object.

Usage: python active.py [--without NAME] --config-file FILE

NAME is MODULE or MODULE:ATTRIBUTE: it is made missing, as in another release
of Nova. Prints, as JSON, the API that Nova uses, the changes to the hub in
children, and the imports before the standard library was patched.
"""

import importlib
import json
import os
import sys

from nova import monkey_patch

LIBRARIES = {"castellan", "oslo_context", "oslo_log", "requests", "urllib3"}


class Missing:
    """A finder by which one module is missing."""

    @staticmethod
    def find_spec(name, path=None, target=None):
        if name == missing:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return None


def in_child(call):
    """Return what call() returns in a child, a short text."""
    reader, writer = os.pipe()
    pid = os.fork()
    if not pid:
        os.write(writer, str(call()).encode())
        os._exit(0)
    os.close(writer)
    os.waitpid(pid, 0)
    with open(reader) as file:
        return file.read()


missing = ""
if sys.argv[1] == "--without":
    missing = sys.argv[2]
    del sys.argv[1:3]

module, _, attribute = missing.partition(":")
if missing and not attribute:
    # As if the file did not exist, for code that searches for it.
    find = importlib.machinery.PathFinder.find_spec
    importlib.machinery.PathFinder.find_spec = lambda name, *rest: (
        None if name == missing else find(name, *rest)
    )
    sys.meta_path.insert(0, Missing)

parse = monkey_patch._get_concurrency_from_config
untimely = {}


def parse_and_look():
    """Record which modules are loaded before Python is patched."""
    mode = parse()
    untimely.update(
        (name, module)
        for name, module in sys.modules.items()
        # requests keeps modules of other packages under names of its own.
        if name.split(".")[0] in LIBRARIES and module.__name__ == name
    )
    return mode


monkey_patch._get_concurrency_from_config = parse_and_look
monkey_patch.patch(backend="threading")
# Objects that refer to a module that has to be imported anew.
old = {
    id(module)
    for name, module in untimely.items()
    if sys.modules.get(name) is not module
}
holders = sorted(
    f"{name}.{attribute}"
    for name, module in list(sys.modules.items())
    for attribute, value in list(vars(module).items())
    if id(value) in old
)

if attribute:
    delattr(importlib.import_module(module), attribute)

from nova import config, servicegroup  # noqa: E402
from oslo_log import log as logging  # noqa: E402

config.parse_args(sys.argv, configure_db=False, init_rpc=False)
CONF = config.CONF
logging.setup(CONF, "nova")
api = servicegroup.API()
found = {
    "module": type(api).__module__,
    "holders": holders,
    "kept": sorted(
        name for name in untimely if sys.modules.get(name) is untimely[name]
    ),
}
if CONF.config_source:
    from nova_sg.servicegroup import process

    driver = process.load("db")
    found["checked"] = [finding.ok for finding in driver.check()]
    driver.close()
hubs = sys.modules.get("eventlet.hubs")
if hubs is not None and CONF.config_source:
    hub = hubs.get_hub()

    def after_first_use():
        process.shared()
        return hubs.get_hub() is hub

    found["idle"] = in_child(lambda: hubs.get_hub() is hub)
    found["uses"] = in_child(after_first_use)
print(json.dumps(found), flush=True)
os._exit(0)
