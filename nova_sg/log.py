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

"""The log of a program in the background: set up, and again at a reload."""

from __future__ import annotations

import contextlib
import logging as python_logging
from collections.abc import Iterator
from typing import Any

from oslo_log import log as logging

from nova_sg import exception
from nova_sg.conf import CONF


def register_options() -> None:
    """Register the options of oslo.log, with nova_sg's default levels."""
    logging.register_options(CONF)
    logging.set_defaults(
        default_log_levels=[
            *logging.get_default_log_levels(),
            "alembic=WARN",
            # nova_sg reports these errors itself, without a traceback.
            "oslo_db.sqlalchemy.exc_filters=CRITICAL",
            "oslo_service=WARN",
            # "Function ... run outlasted interval", each time a report takes
            # long. The reporter says that once.
            "oslo.service=ERROR",
        ]
    )


def set_up(prog: str) -> None:
    """Have the log go where the options say.

    :raises ConfigError: it cannot be written there
    """
    try:
        if CONF.log_config_append:
            _read_file(prog)
        else:
            logging.setup(CONF, prog)
    except OSError as error:
        raise exception.ConfigError(
            f"the log cannot be written to {error.filename}: "
            f"{error.strerror}. Correct log_file or log_dir, or the "
            "permissions of the folder"
        ) from error


def reload(prog: str) -> None:
    """Use the options that may change at a reload.

    These are debug and the file of log_config_append. With such a file debug
    has no effect, as the file has the levels.

    :raises ConfigError: the file is wrong; the log goes on as before
    """
    if CONF.log_config_append:
        _read_file(prog)
    else:
        root = logging.getLogger(None).logger
        root.setLevel(logging.DEBUG if CONF.debug else logging.INFO)


def _read_file(prog: str) -> None:
    try:
        with _restored():
            logging.setup(CONF, prog)
    except Exception as error:
        # Python's parser of this file raises errors of many types.
        cause = error.__context__ or error
        raise exception.ConfigError(
            f"log_config_append: {CONF.log_config_append}: "
            f"{exception.describe(cause)}. Correct the file, which has the "
            "format of Python's logging.config.fileConfig()"
        ) from error


@contextlib.contextmanager
def _restored() -> Iterator[None]:
    """Have all loggers as before if this raises.

    oslo.log takes away all handlers before it reads the file.
    """
    loggers = [python_logging.getLogger()]
    loggers += [
        one
        for one in list(python_logging.Logger.manager.loggerDict.values())
        if isinstance(one, python_logging.Logger)
    ]
    before: list[tuple[Any, ...]] = [
        (one, one.level, list(one.handlers), one.propagate, one.disabled)
        for one in loggers
    ]
    try:
        yield
    except BaseException:
        for one, level, handlers, propagate, disabled in before:
            one.setLevel(level)
            one.handlers = handlers
            one.propagate, one.disabled = propagate, disabled
        raise
