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

"""The files that a database URL names: what is wrong with them.

PyMySQL reads them for each new connection. Its errors seldom name the file,
and some quote a line of it, which may be a password.
"""

from __future__ import annotations

import configparser
import contextlib
import os
import ssl
from collections.abc import Iterator, Mapping

import sqlalchemy as sa

# The parameters of a URL that name files of TLS, and their names in an option
# file.
_TLS = {
    "ssl_ca": "ssl-ca",
    "ssl_capath": "ssl-capath",
    "ssl_cert": "ssl-cert",
    "ssl_key": "ssl-key",
}
_OPTION_FILE = "read_default_file"
_REMEDY = {
    configparser.MissingSectionHeaderError: (
        "it has to begin with a section, such as [client]"
    ),
    configparser.DuplicateSectionError: "a section is there twice",
    configparser.DuplicateOptionError: "an option is there twice",
}


def unusable(url: sa.URL) -> str:
    """Return what PyMySQL would not notice; empty: nothing.

    It ignores an option file that it cannot read, and would connect without
    the password and the TLS in it. And OpenSSL asks on the terminal for the
    password of a key.
    """
    found, options = _option_file(url)
    if found:
        return found
    key = _text(url.query, "ssl_key") or options.get("ssl-key")
    if key and not options.get("ssl-password"):
        with contextlib.suppress(OSError), open(key, "rb") as file:
            if b"ENCRYPTED" in file.read():
                return f"ssl_key: {key} is protected by a password"
    return ""


def trouble(url: sa.URL) -> str:
    """Return which file cannot be used, and why; empty: none is found."""
    found, options = _option_file(url)
    if found:
        return found
    paths = {}
    for name, option in _TLS.items():
        if _text(url.query, name):
            paths[name] = name, _text(url.query, name)
        elif options.get(option):
            where = _text(url.query, _OPTION_FILE)
            paths[name] = f"{option} in {where}", options[option]
    for name, (option, path) in paths.items():
        for found in _tls_file(name, option, path):
            return found
    if "ssl_cert" in paths:
        option, certificate = paths["ssl_cert"]
        key_option, key = paths.get("ssl_key", (option, certificate))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        with _explained(key_option, key) as errors:
            context.load_cert_chain(
                certificate, key, options.get("ssl-password") or ""
            )
        if errors:
            return (
                f"{key_option}: {key} is not the private key of {certificate}"
            )
    return ""


def _option_file(url: sa.URL) -> tuple[str, Mapping[str, str]]:
    """Return what is wrong with the option file, and what is in it."""
    path = _text(url.query, _OPTION_FILE)
    if not path:
        return "", {}
    from pymysql import optionfile

    parser = optionfile.Parser()
    try:
        with _explained(_OPTION_FILE, path) as found:
            with open(_home(path), encoding="utf-8") as file:
                lines = file.readlines()
            parser.read(_home(path))
    except configparser.Error as error:
        # Not with its text, which quotes the line.
        number = getattr(error, "lineno", None)
        if number is None:
            number = next(iter(getattr(error, "errors", [])), (1,))[0]
        line = lines[number - 1] if number <= len(lines) else ""
        why = _REMEDY.get(type(error), "not an option and its value")
        if line.startswith("!include"):
            why = (
                f"PyMySQL does not know {line.split()[0]}; name the file "
                "itself that has the options"
            )
        return f"{_OPTION_FILE}: {path}, line {number}: {why}", {}
    if found:
        return found[0], {}
    group = _text(url.query, "read_default_group") or "client"
    options = {}
    if parser.has_section(group):
        for name in parser[group]:
            # PyMySQL's parser fails on an option without a value, and PyMySQL
            # ignores that.
            with contextlib.suppress(TypeError):
                options[name] = parser.get(group, name)
    return "", options


def _tls_file(name: str, option: str, path: str) -> Iterator[str]:
    """Yield what is wrong with a file of TLS."""
    if name == "ssl_capath":
        if not os.path.isdir(path):
            yield f"{option}: {path} is not a folder"
        return
    with _explained(option, path) as found, open(path, "rb") as file:
        content = file.read()
    if found:
        yield found[0]
    elif b"-----BEGIN " not in content:
        yield f"{option}: {path} is not a file in PEM format"
    elif name != "ssl_key":
        what = "certificate"
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        try:
            context.load_verify_locations(path)
        except ssl.SSLError:
            yield f"{option}: {path} has no valid {what} in PEM format"


@contextlib.contextmanager
def _explained(option: str, path: str) -> Iterator[list[str]]:
    """Add what is wrong with a file to the list that is yielded."""
    found: list[str] = []
    try:
        yield found
    except ssl.SSLError as error:
        found.append(f"{option}: {path}: {error.reason or 'not valid'}")
    except OSError as error:
        found.append(f"{option}: cannot read {path}: {error.strerror}")
    except ValueError:
        found.append(f"{option}: {path} is not a text file in UTF-8")


def _home(path: str) -> str:
    # As PyMySQL does.
    return os.path.expanduser(path)


def _text(query: Mapping, name: str) -> str:
    value = query.get(name, "")
    return value if isinstance(value, str) else value[-1]
