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

"""The one module that knows eventlet: makes a process a green one.

A green process imports this module first and calls patch(), or choose(),
before it imports anything else. Everything else in nova_sg is written on the
standard library, which is green from then on, and runs as well on native
threads.
"""

import argparse
import logging
import sys
import threading
import types
import warnings
from collections.abc import Sequence
from typing import Any


def patch() -> None:
    """Patch the standard library and choose oslo.service's eventlet backend.

    Calling it twice does nothing more.

    :raises oslo_service.backend.exceptions.BackendAlreadySelected: when the
        process has chosen native threads before
    """
    with warnings.catch_warnings():
        # The operator has chosen green threads; a warning at each start of
        # each command is no help.
        warnings.filterwarnings("ignore", message=r"\s*Eventlet is deprecat")
        import eventlet

    _patch_standard_library(eventlet)

    from oslo_service import backend
    from oslo_service.backend import exceptions

    try:
        backend.init_backend(backend.BackendType.EVENTLET)
    except exceptions.BackendAlreadySelected:
        # oslo.service 4.1 says so of the same one, too.
        if is_native():
            raise


def _patch_standard_library(eventlet: types.ModuleType) -> None:
    # Since Python 3.14 this function has a lock of threading as a default.
    # eventlet, up to 0.41, does not find it there to make it green, and
    # writes an error to stderr.
    finalizer: Any = getattr(threading, "_DeleteDummyThreadOnDel", None)
    finalizer = getattr(finalizer, "__del__", None)
    defaults = getattr(finalizer, "__defaults__", None) or ()
    # No variable may have a lock while eventlet replaces all of them.
    places = [
        place
        for place in range(len(defaults))
        if defaults[place] is getattr(threading, "_active_limbo_lock", None)
    ]
    if places:
        finalizer.__defaults__ = tuple(
            None if place in places else defaults[place]
            for place in range(len(defaults))
        )
    defaults = None
    eventlet.monkey_patch()
    if places:
        green = threading._active_limbo_lock  # type: ignore[attr-defined]
        finalizer.__defaults__ = tuple(
            green if place in places else value
            for place, value in enumerate(finalizer.__defaults__)
        )


def is_native() -> bool:
    """Return whether oslo.service runs services on native threads."""
    from oslo_service import backend

    # oslo.service 4.1, of OpenStack 2025.1, has eventlet alone.
    if not hasattr(backend, "get_backend_type"):
        return False
    return backend.get_backend_type() is backend.BackendType.THREADING


def choose(arguments: Sequence[str]) -> None:
    """Make the process green or native, as its configuration says.

    :param arguments: those of the program: they name the files
    :raises SystemExit: a library for it is not installed
    """
    # As in Nova, this is imported before anything is patched.
    from oslo_config import cfg

    from nova_sg.conf import CONF

    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for option in ("--config-file", "--config-dir"):
        parser.add_argument(option, action="append", default=[])
    found, _ = parser.parse_known_args(arguments)
    try:
        CONF(
            [f"--config-file={name}" for name in found.config_file]
            + [f"--config-dir={name}" for name in found.config_dir],
            project="nova-sg",
        )
        native = CONF.concurrency_backend == "threading"
    except (cfg.Error, ValueError):
        # The program reads the files again, and says what is wrong.
        native = False
    CONF.reset()
    if not native:
        try:
            patch()
        except ImportError as error:
            print(
                "[DEFAULT] concurrency_backend is eventlet, which is not "
                f'installed: {error}. Install "nova-sg[eventlet]", or set '
                "concurrency_backend = threading",
                file=sys.stderr,
            )
            sys.exit(2)
        return

    sys.meta_path.insert(0, _Refusing())
    from oslo_service import backend

    # Its error would be a second line.
    log = logging.getLogger(backend.__name__)
    log.setLevel(logging.CRITICAL)
    try:
        backend.init_backend(backend.BackendType.THREADING)
    except ValueError:
        print(
            "[DEFAULT] concurrency_backend is threading, and a library for "
            'that is not installed. Install "oslo.service[threading]>=4.3.0", '
            "or set concurrency_backend = eventlet",
            file=sys.stderr,
        )
        sys.exit(2)
    log.setLevel(logging.NOTSET)


class _Refusing:
    """A finder that keeps libraries from importing eventlet."""

    def find_spec(self, name: str, *args: object) -> None:
        if name.partition(".")[0] == "eventlet":
            raise ImportError("this process runs on native threads", name=name)
