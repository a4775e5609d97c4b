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

"""Whether a figure grows with time: a straight line through its samples."""

from typing import NamedTuple

# The part of all samples, the first ones, that is left out: what is made once
# is made then.
SKIPPED = 0.2
# A figure grows if it would grow even with a slope less by so many errors.
ERRORS = 3.0
# A line has an error from so many samples on.
_LEAST = 3


class Line(NamedTuple):
    """A line through the samples of a figure."""

    #: The figure at the first sample that counts, and at the last, on it.
    first: float
    last: float
    #: By how much the figure grows in an hour.
    slope: float
    #: The standard error of the slope.
    error: float

    def grows(self, most: float) -> bool:
        """Whether the figure has certainly grown by more than so much."""
        if self.slope <= 0:
            return False
        certain = max(0.0, self.slope - ERRORS * self.error) / self.slope
        return certain * (self.last - self.first) > most


def fit(hours: list[float], figures: list[float]) -> Line:
    """Return the line through the samples of a figure.

    :param hours: when each sample was taken
    :raises ValueError: there are too few samples
    """
    skipped = int(len(hours) * SKIPPED)
    hours, figures = hours[skipped:], figures[skipped:]
    count = len(hours)
    if count < _LEAST:
        raise ValueError(
            f"{count} samples are too few for a line: {_LEAST} are needed"
        )
    middle = sum(hours) / count
    mean = sum(figures) / count
    spread = sum((hour - middle) ** 2 for hour in hours)
    slope = (
        sum(
            (hour - middle) * (figure - mean)
            for hour, figure in zip(hours, figures, strict=True)
        )
        / spread
    )

    def on_line(hour: float) -> float:
        return mean + slope * (hour - middle)

    rest = sum(
        (figure - on_line(hour)) ** 2
        for hour, figure in zip(hours, figures, strict=True)
    )
    error = (rest / (count - 2) / spread) ** 0.5
    return Line(on_line(hours[0]), on_line(hours[-1]), slope, error)
