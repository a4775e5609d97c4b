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

"""What an error of the database means for the connection and the attempt."""

import unittest

from oslo_db import exception as db_exception
from sqlalchemy import exc as sa_exception

from nova_sg.backends.db import errors


def made(number, wrap=None):
    """Return SQLAlchemy's error of one of the driver, or oslo.db's of it."""
    error = sa_exception.OperationalError("UPDATE", {}, None)
    error.orig = Exception(number, "a text")
    return error if wrap is None else wrap(error)


class ErrorsTest(unittest.TestCase):
    LOST = made(2013, db_exception.DBConnectionError)
    NOT_READY = made(1047, db_exception.DBConnectionError)
    DEADLOCK = made(1213, db_exception.DBDeadlock)

    def test_what_follows_from_an_error(self):
        # Whether it is lost, is refused, is a conflict, is about the
        # statement, and may pass.
        for error, expected in (
            (self.LOST, "lost may_pass"),
            (made(1040), "lost may_pass"),
            (self.NOT_READY, "refusal may_pass"),
            (made(1290), "refusal may_pass"),
            (made(1792), "refusal may_pass"),
            (made(3100), "refusal may_pass"),
            (self.DEADLOCK, "conflict about_statement may_pass"),
            (made(1020), "conflict about_statement may_pass"),
            (made(1205, db_exception.DBDeadlock), "about_statement may_pass"),
            (made(1146), "about_statement"),
            (made(1142), "about_statement"),
            (made(1064, db_exception.DBError), "about_statement"),
            (db_exception.DBDuplicateEntry(), "about_statement"),
            # The disk is full. Another node may have space.
            (made(1030), ""),
            (OSError("no file"), ""),
        ):
            with self.subTest(error):
                found = {
                    "lost": errors.is_lost(error),
                    "refusal": errors.is_refusal(error),
                    "conflict": errors.is_conflict(error),
                    "about_statement": errors.is_about_statement(error),
                    "may_pass": errors.may_pass(error),
                }
                self.assertEqual(
                    expected, " ".join(name for name in found if found[name])
                )

    def test_the_number_and_the_words(self):
        for error in (self.LOST, made(2013), Exception(2013, "a text")):
            self.assertEqual(2013, errors.number(error))
            self.assertEqual("a text (error 2013)", errors.words(error))
        self.assertIsNone(errors.number(OSError()))
        self.assertIsNone(errors.number(OSError("no file")))
        self.assertEqual("no file", errors.words(OSError("no file")))
