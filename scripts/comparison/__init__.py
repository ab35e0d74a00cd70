"""The side by side run of scripts/compare: forebay, Apache Kafka and a bare ring on one machine.

machine.py  what this machine is, CPU accounting, congestion control
build.py    the programs: built or fetched when they are not there yet
brokers.py  what is measured: started, given topics, watched and stopped
drivers.py  what measures: librdkafka's rdkafka_performance and our loadgen
rows.py     the rows of the table: who takes part, what is done, what must be reached
rounds.py   the alternating rounds of one row
report.py   medians, ratios and verdicts, for people and as JSON
"""


class Failure(Exception):
    """Why there is nothing to show, in one sentence that says what to do."""
