"""Damaged, hostile and odd files of ../shared/data/badinput through the real `lore ingest`: each ends as documents or as an error that
says why, in bounded time and memory, and nothing beside it is lost. Standard library only."""
import json
import os
import resource
import subprocess
import time

from served import SHARED, binary

DATA = SHARED / "data" / "badinput"
SLOWNESS = float(os.environ.get("LORE_SLOWNESS", "1"))  # builds with sanitizers set it
SECONDS_MAX, BYTES_MAX = 5, 512 << 20
CANARY = "The canary sings at dawn. 金丝雀在黎明歌唱。\n"


class Outcome:
    """One run: its --json summary, exit code, processor and wall seconds, and the peak of its memory."""

    def __init__(self, *args):
        begun = time.monotonic()
        process = subprocess.Popen([binary(), "--json", *args], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                   preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CPU, (60, 60)))
        # Both streams are short enough for their pipes' buffers or read to their ends here.
        out = process.stdout.read()
        self.errors = process.stderr.read().decode("utf-8", "replace")
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        process.stdout.close()
        process.stderr.close()
        self.code, self.wall = process.returncode, time.monotonic() - begun
        self.cpu, self.bytes = usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024
        self.summary = json.loads(out) if out.strip() else {}


def folders():
    return sorted(p for p in DATA.iterdir() if p.is_dir()) if DATA.is_dir() else []


def check_outcome(outcome, what):
    """Ended by itself, in bounds, and every failure has its reason."""
    assert outcome.code in (0, 3), f"{what}: exit {outcome.code}: {outcome.errors[-500:]}"
    assert outcome.bytes <= BYTES_MAX * SLOWNESS, f"{what}: {outcome.bytes >> 20} MB"
    summary = outcome.summary
    assert summary["seen"] == summary["added"] + summary["replaced"] + summary["unchanged"] + summary["failed"], f"{what}: {summary}"
    assert len(summary["failures"]) == summary["failed"], f"{what}: {summary}"
    for failure in summary["failures"]:
        assert failure["source"] and failure["message"], f"{what}: {failure}"
        assert "out of memory" not in failure["message"], f"{what}: {failure}"


def check_folder(folder, canary, data):
    """All files of a folder and a good one behind them, twice: what was taken the first time is there the second time."""
    def ingest(*flags):
        outcome = Outcome("--data", data, "ingest", "-c", folder.name, *flags, str(folder), str(canary))
        check_outcome(outcome, folder.name)
        return outcome

    plan = ingest("--dry-run")
    assert plan.cpu <= SECONDS_MAX * SLOWNESS, f"{folder.name}: {plan.cpu:.1f} s to read all of it"
    told = {entry["source"].split("#")[0] for entry in plan.summary["plan"]}
    files = [str(p) for p in folder.rglob("*") if p.is_file()]
    untold = [f for f in files if f not in told]
    assert len(untold) <= plan.summary["passed_over"], f"{folder.name}: lost {untold}"
    assert str(canary) in told
    first, second = ingest(), ingest()
    assert first.summary["failed"] == second.summary["failed"]
    assert second.summary["unchanged"] == first.summary["added"], f"{folder.name}: {first.summary} then {second.summary}"
    return first


def check_file(path, data):
    """One file by itself. `seconds` of the outcome is what it takes where nobody else computes: on a busy machine reading counts by
    its processor time, and embedding by its share of that of all cores."""
    plan = Outcome("--data", data, "ingest", "-c", "each", "--dry-run", str(path))
    outcome = Outcome("--data", data, "ingest", "-c", "each", str(path))
    check_outcome(plan, path.name)
    check_outcome(outcome, path.name)
    outcome.seconds = min(outcome.wall, plan.cpu + max(0, outcome.cpu - plan.cpu) / len(os.sched_getaffinity(0)))
    assert outcome.seconds <= SECONDS_MAX * SLOWNESS, f"{path}: {outcome.wall:.1f} s, {outcome.cpu:.1f} s of processors"
    # A file that is named and holds nothing readable is an error; archives may hold files of other kinds only.
    assert outcome.summary["seen"] + outcome.summary["passed_over"] > 0 or path.stat().st_size == 0, path.name
    return outcome
