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

"""Reading the configuration, with errors that a person can act on."""

from __future__ import annotations

import contextlib
import os
import re
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence

from oslo_config import cfg, iniparser

import nova_sg.conf
from nova_sg import exception
from nova_sg.conf import CONF

PROJECT = "nova-sg"


def parse(
    arguments: Sequence[str],
    prog: str,
    cli_options: Iterable[cfg.Opt] = (),
) -> None:
    """Read arguments and files into CONF.

    Without --config-file, nova-sg.conf is looked for where OpenStack's
    services look: ~/.nova-sg, ~, /etc/nova-sg, /etc.

    :param cli_options: options that may be given as arguments, too
    :raises ConfigError: a file cannot be read, or a value is wrong
    """
    from nova_sg import version

    with explained():
        CONF.register_cli_opts(cli_options)
        CONF(
            list(arguments),
            project=PROJECT,
            prog=prog,
            version=version.version_string(),
        )
    check()


def check() -> None:
    """See to it that every option of ours can be read.

    oslo.config looks at a value when it is used; a service that has been
    running for a week is no place to find out.

    :raises ConfigError: one cannot; the text names it
    """
    for folder in CONF._namespace._config_dirs:
        # oslo.config reads nothing from it, and says nothing.
        if not os.path.isdir(os.path.expanduser(folder)):
            raise exception.ConfigError(
                f"--config-dir {folder}: that is not a folder"
            )
    for section in nova_sg.conf.SECTIONS:
        for group, opts in section.list_opts().items():
            values = CONF if group == "DEFAULT" else CONF[group]
            for opt in opts:
                name = f"[{group}] {opt.name}"
                with explained(name):
                    value = values[opt.dest]
                if value in (None, "") and opt.default:
                    raise exception.ConfigError(
                        f"{name}: no value is given. Leave the line out for "
                        f"the default, {opt.sample_default or opt.default}"
                    )


def reload(accept: Callable[[], None]) -> None:
    """Read the files again.

    :param accept: called with the new values in CONF; where it raises
        ConfigError they are given up again
    :raises ConfigError: a file or a value is wrong now; the old values stay
    """
    old, down_time = CONF._namespace, CONF.service_down_time
    with explained():
        # The public method logs the lines that it cannot read, passwords
        # and all.
        new = CONF._reload_config_files()
    _use(new)
    try:
        check()
        accept()
    except exception.ConfigError:
        _use(old)
        if CONF.service_down_time != down_time:
            CONF.set_override("service_down_time", down_time)
        raise


def _use(namespace: object) -> None:
    CONF._namespace = namespace
    # What the API made of the old values is no word of the new ones. This
    # also makes CONF forget what it has read before.
    CONF.clear_override("service_down_time")


# What to do, by what iniparser says.
_REMEDIES = {
    "Section must be started before assignment": (
        "Write the line [DEFAULT], or that of another section, above it"
    ),
    "No ':' or '=' found in assignment": (
        "Write OPTION = VALUE, or # before a comment"
    ),
    "Unexpected continuation line": (
        "A line that begins with a space continues the one above it"
    ),
}


@contextlib.contextmanager
def explained(subject: str = "") -> Iterator[None]:
    """Have what oslo.config raises raised in words for operators.

    Never in those that it found in a file: they may hold a password.

    :param subject: the option that is read; the files, otherwise
    """
    try:
        yield
    except cfg.ConfigFileParseError as error:
        where, why = error.config_file, "cannot be read"
        cause = error.__context__
        if isinstance(cause, iniparser.ParseError):
            where += f", line {cause.lineno}"
            why = cause.msg
            if why in _REMEDIES:
                why += f". {_REMEDIES[why]}"
        raise exception.ConfigError(f"{where}: {why}") from None
    except cfg.ConfigFilesPermissionDeniedError as error:
        files = ", ".join(error.config_files)
        raise exception.ConfigError(
            f"{files}: this user may not read it. Correct its owner or mode"
        ) from None
    except cfg.ConfigFilesNotFoundError as error:
        files = ", ".join(error.config_files)
        raise exception.ConfigError(
            f"--config-file {files}: no such file"
        ) from None
    except cfg.ConfigDirNotFoundError as error:
        raise exception.ConfigError(
            f"--config-dir {error.config_dir}: no such folder"
        ) from None
    except (
        cfg.NoSuchOptError,
        cfg.TemplateSubstitutionError,
        RecursionError,
    ) as error:
        if not subject:
            name = getattr(error, "opt_name", None)
            subject = f"the value with ${name}" if name else "a value"
        raise exception.ConfigError(
            f"{subject} refers, by a dollar sign, to itself or to what is no "
            "option here. Write out what is meant; a dollar sign that is "
            "part of the value is written $$"
        ) from None
    except cfg.ConfigSourceValueError as error:
        place = re.search(
            r"option (?P<name>\S+) from .*"
            r"detail='(?P<where>.*?)'\) is not valid: (?P<why>.*)",
            " ".join(str(error).split()),
        )
        why = f"{place['why']} ({place['where']})" if place else str(error)
        if place and not subject:
            subject = f"the option {place['name']}"
        raise exception.ConfigError(f"{subject}: {why}") from None
    except cfg.Error as error:
        words = " ".join(str(error).split())
        raise exception.ConfigError(
            f"{subject}: {words}" if subject else words
        ) from None
    except UnicodeDecodeError as error:
        raise exception.ConfigError(
            f"{_file_being_read(error)}: not a text file in UTF-8"
        ) from None
    except OSError as error:
        raise exception.ConfigError(
            f"{error.filename}: {error.strerror}"
        ) from None


def _file_being_read(error: Exception) -> str:
    # The error does not say; the call of oslo.config that reads it does.
    name = "a configuration file"
    for frame, _ in traceback.walk_tb(error.__traceback__):
        name = frame.f_locals.get("config_file", name)
    return name
