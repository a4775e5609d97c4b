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

"""Whether nova_sg is switched on, and the .pth file that can do it.

nova.conf is the better way to switch it on. The file is for Nova releases, or
ways of starting Nova, with which that does not work. With the file, every
Python process of the environment installs the hook.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import sysconfig

from nova_sg import exception
from nova_sg.conf import CONF

NAME = "nova_sg"

# Does nothing, without an error, when nova_sg is no longer installed.
_LINE = (
    "import importlib.util as u; u.find_spec('nova_sg') and "
    "__import__('nova_sg.nova.hook', fromlist=['hook']).install()\n"
)


def pth_path() -> str:
    """Return the path of the .pth file, whether it exists or not."""
    return os.path.join(sysconfig.get_path("purelib"), "nova_sg_nova.pth")


def enable() -> str:
    """Write the .pth file; return its path.

    :raises ConfigError: it cannot be written
    """
    return _change(_write)


def disable() -> str:
    """Remove the .pth file, if it exists; return its path.

    :raises ConfigError: it cannot be removed
    """
    return _change(_remove)


def _change(change) -> str:
    path = pth_path()
    try:
        change(path)
    except OSError as error:
        raise exception.ConfigError(
            f"{path}: {error.strerror}. Run this as the owner of the "
            "environment that Nova is installed in"
        ) from error
    return path


def _write(path: str) -> None:
    with open(path, "w") as file:
        file.write(_LINE)


def _remove(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass


def nova_version() -> str | None:
    """Return the version of Nova in this environment; None: not installed."""
    try:
        return importlib.metadata.version("nova")
    except importlib.metadata.PackageNotFoundError:
        return None


def hook_is_offered() -> bool:
    """Whether oslo.config can find this source in this environment."""
    return any(
        point.name == NAME
        for point in importlib.metadata.entry_points(
            group="oslo.config.driver"
        )
    )


def asked_for() -> bool:
    """Whether the configuration that was read switches nova_sg on.

    :raises ConfigError: one of the two options is missing or wrong
    """
    if NAME not in (CONF.config_source or ()):
        return False
    driver = CONF[NAME].driver if NAME in CONF else None
    if driver != NAME:
        raise exception.ConfigError(
            "[DEFAULT] config_source names nova_sg, but [nova_sg] driver is "
            f"{driver}; it has to be nova_sg"
        )
    return True
