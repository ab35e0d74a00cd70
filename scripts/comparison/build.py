"""The programs of a comparison, built or fetched when they are not there yet."""

import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from . import Failure

ROOT = Path(__file__).resolve().parents[2]
WORK = ROOT / "target" / "compare"


@dataclass
class Programs:
    """Paths of what takes part; class_path is None without Kafka."""

    forebay: str
    loadgen: str
    bare: str
    rdkafka_performance: str
    class_path: str | None
    java: str


def programs(with_kafka):
    """Builds all that is needed, quietly if it is there."""
    WORK.mkdir(parents=True, exist_ok=True)
    binaries = cargo("--package", "forebay", "--package", "loadgen", "--bins")
    return Programs(
        forebay=binaries["forebay"],
        loadgen=binaries["loadgen"],
        bare=cargo("--package", "forebay", "--bench", "bare")["bare"],
        rdkafka_performance=str(rdkafka_performance()),
        class_path=kafka_jars() if with_kafka else None,
        java=shutil.which("java") or "java",
    )


def takes_flag(program, command, flag):
    """Whether a program's command has a flag."""
    done = subprocess.run([program, command, "--help"], stdout=subprocess.PIPE, text=True)
    return flag in done.stdout


def cargo(*targets):
    """Builds targets in release and returns their executables by name."""
    command = ["cargo", "build", "--release", *targets,
               "--message-format", "json-render-diagnostics"]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    if done.returncode != 0:
        raise Failure(f"the build failed: {' '.join(command)}")
    messages = map(json.loads, done.stdout.splitlines())
    return {message["target"]["name"]: message["executable"]
            for message in messages if message.get("executable")}


def kafka_jars():
    """Kafka's class path; the jars come from Maven the first time."""
    if not shutil.which("java"):
        raise Failure("java is missing: install a JDK 17 or later, or choose --only forebay")
    done = subprocess.run([ROOT / "scripts" / "kafka-jars"], stdout=subprocess.PIPE, text=True)
    if done.returncode != 0:
        raise Failure("Kafka's jars did not come (is mvn there?); or choose --only forebay")
    return done.stdout.strip()


def rdkafka_performance():
    """librdkafka's own load program, from the sources that cargo fetched for the end-to-end tests,
    with the compiler's optimisation and without what is not measured."""
    done = subprocess.run(["cargo", "metadata", "--format-version", "1"], cwd=ROOT,
                          stdout=subprocess.PIPE, text=True, check=True)
    packages = json.loads(done.stdout)["packages"]
    package = next(each for each in packages if each["name"] == "rdkafka-sys")
    tree = WORK / f"librdkafka-{package['version']}"
    program = tree / "examples" / "rdkafka_performance"
    if program.exists():
        return program
    print(f"building rdkafka_performance from rdkafka-sys {package['version']}", flush=True)
    shutil.rmtree(tree, ignore_errors=True)
    shutil.copytree(Path(package["manifest_path"]).parent / "librdkafka", tree)
    steps = (
        "./configure --disable-ssl --disable-sasl --disable-curl --disable-zstd",
        f"make -j{os.cpu_count()} -C src librdkafka.a",
        "make -C examples rdkafka_performance",
    )
    log = WORK / "librdkafka-build.log"
    with log.open("w") as out:
        for step in steps:
            if subprocess.run(step, shell=True, cwd=tree, stdout=out, stderr=out).returncode != 0:
                raise Failure(f"librdkafka does not build (a C compiler, make, zlib?): see {log}")
    return program
