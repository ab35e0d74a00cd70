"""What a comparison is shown as: a table with verdicts for people, one JSON document for machines."""

import json
import sys

UNITS = {
    "messages_per_s": ("{:,.0f}", "msg/s"),
    "mb_per_s": ("{:,.1f}", "MB/s"),
    "cpu_s_per_gb": ("{:.2f}", "CPU-s/GB"),
    "cpu_us_per_request": ("{:.1f}", "CPU-us/request"),
    "mean_ms": ("{:.3f}", "mean ms"),
    "p50_ms": ("{:.3f}", "p50 ms"),
    "p99_ms": ("{:.3f}", "p99 ms"),
    "p999_ms": ("{:.3f}", "p99.9 ms"),
    "unsent": ("{:,.0f}", "unsent"),
    "start_ms": ("{:,.1f}", "ms to the first answer"),
    "rss_idle_mb": ("{:,.1f}", "MB idle"),
    "rss_load_mb": ("{:,.1f}", "MB under load"),
}
# A CPU is as good as full from here on.
FULL = 0.9
# Work of others on the two CPUs above this makes the figures doubtful.
STRANGERS_MAX = 0.05


def verdicts(row, medians):
    """Target by target: its text, the value and whether it is met; those that cannot be judged,
    for want of a contestant, are left out."""
    found = []
    for target in row.targets:
        try:
            value = target.value(medians)
        except KeyError:
            continue
        found.append({"target": target.text, "value": value, "met": target.met(value)})
    return found


def show(row, medians):
    """One row, for people."""
    print(f"\n{row.work}   ({row.driver})")
    first = next(iter(medians.values()))
    for name, numbers in medians.items():
        cells = []
        for number in row.shown:
            form, unit = UNITS[number]
            text = f"{form.format(numbers[number])} {unit}"
            if numbers is not first and number == row.shown[0]:
                text += f" ({ratio(number, first[number], numbers[number])})"
            cells.append(text)
        print(f"  {name:14} {'   '.join(cells)}")
        if "broker_core" in numbers:
            print(f"  {'':14} {cpus(numbers)}")
    for each in verdicts(row, medians):
        mark = "reached" if each["met"] else "MISSED "
        print(f"  {mark}  {each['target']}: {each['value']:.3g}")
    if any(not each["met"] for each in verdicts(row, medians)):
        print(f"           {limit(medians)}")
    sys.stdout.flush()


def ratio(number, own, other):
    """forebay's number in relation to another's, in the words of one who prefers forebay."""
    if number.endswith("_per_s"):
        return f"forebay: {own / other:.2f} times as much"
    return f"forebay: {other / own:.2f} times less"


def cpus(numbers):
    """Who used which CPU."""
    system = numbers["broker_system_s"] / max(numbers["broker_cpu_s"], 0.01)
    text = (f"broker {numbers['broker_core']:4.0%} of its CPU ({system:.0%} of that in the kernel)"
            f", client {numbers['client_core']:4.0%}")
    if numbers["strangers_core"] > STRANGERS_MAX:
        text += f", others {numbers['strangers_core']:.0%}: not a quiet machine"
    return text


def limit(medians):
    """Where the time goes, as far as CPU counters tell."""
    own = medians["forebay"]
    if "broker_core" not in own:
        return ""
    if own["broker_core"] >= FULL:
        text = "the broker's CPU is the limit"
    elif own["client_core"] >= FULL:
        text = "the client's CPU is the limit"
    else:
        text = "no CPU is full: waiting (for the disk, for each other) is the limit"
    for name, does in (("bare", "receives, appends and answers"), ("discard", "only answers")):
        if name in medians:
            other = medians[name]
            text += (f"\n           a ring that {does}: "
                     f"{other['messages_per_s'] / own['messages_per_s']:.2f} times as fast, with "
                     f"{other['broker_cpu_s'] / max(own['broker_cpu_s'], 0.01):.2f} of the CPU time")
    return text


def summary(rows):
    """How many targets are reached."""
    every = [each for row in rows for each in row["verdicts"]]
    return sum(each["met"] for each in every), len(every)


def write(path, document):
    """The document of a whole run."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=1) + "\n")


def rounded(numbers):
    """Numbers with as many digits as mean something."""
    return {name: float(f"{value:.5g}") for name, value in numbers.items()}
