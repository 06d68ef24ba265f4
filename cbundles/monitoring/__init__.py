"""The bundles of all layers while a network trains, in somebody's own training loop.

How the parts fit:

    monitor      `Monitor`, which a loop calls with its step: begin here
    arguments    what it is given is looked at when it is made
    probe        the samples, and the model that is asked about them: an audit that is compiled once
    measurement  what one of its measurements says: a line of JSON, and numbers for dashboards
    events       the file of these lines, which a later process continues
    news         what a user is told of while training goes on

docs/monitor.md has examples.
"""

from cbundles.monitoring.measurement import Measurement
from cbundles.monitoring.monitor import Monitor

__all__ = ["Measurement", "Monitor"]
