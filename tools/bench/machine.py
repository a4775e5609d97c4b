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

"""The machine and the programs of a measurement."""

from __future__ import annotations

import glob
import os
import platform
import re
import subprocess
from importlib import metadata

_PACKAGES = (
    "eventlet",
    "kazoo",
    "nova",
    "nova-sg",
    "oslo.cache",
    "oslo.db",
    "pymemcache",
    "PyMySQL",
    "python-memcached",
    "SQLAlchemy",
    "tooz",
)


def facts() -> dict[str, str]:
    """Return the machine's and the programs' names and versions."""
    found = {
        "processor": _processor(),
        "cores": str(len(os.sched_getaffinity(0))),
        "load average before": f"{os.getloadavg()[0]:.2f}",
        # Without the distribution's suffix.
        "system": f"{platform.system()} {platform.release().split('-')[0]}",
        "python": platform.python_version(),
        "mariadb": _version("mariadbd", "/usr/sbin/mariadbd"),
        "memcached": _version("memcached"),
        "zookeeper": _zookeeper_version(),
    }
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def _processor() -> str:
    with open("/proc/cpuinfo") as info:
        for line in info:
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    return platform.machine()


def _zookeeper_version() -> str:
    for name in sorted(glob.glob("/usr/share/java/zookeeper-[0-9]*.jar")):
        return name.rpartition("-")[2].removesuffix(".jar")
    return "not installed"


def _version(*programs: str) -> str:
    for program in programs:
        try:
            answer = subprocess.run(
                [program, "--version"],
                capture_output=True,
                text=True,
                check=True,
            )
        except (OSError, subprocess.CalledProcessError):
            continue
        found = re.search(r"\d+(\.\d+)+", answer.stdout)
        if found:
            return found.group()
    return "not installed"
