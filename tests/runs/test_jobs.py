import sys

from foveate.runs.jobs import Job, run_jobs


def job(folder, name, code="pass", after=()):
    """A process that notes its beginning and end, runs some code, and leaves its file."""
    done, notes = folder / f"{name}.done", folder / "notes"
    script = (
        f"import os, time\nnotes = open({str(notes)!r}, 'a', buffering=1)\nnotes.write('begin {name}\\n')\n{code}\n"
        f"notes.write('end {name}\\n')\nopen({str(done)!r}, 'w').close()"
    )
    return Job(name, [sys.executable, "-S", "-c", script], done, folder / "logs" / f"{name}.log", after)


def run(jobs, slots=2):
    seen = []
    failed = run_jobs(jobs, [{"PLACE": str(i)} for i in range(slots)], lambda *state: seen.append(state))
    return failed, seen


def notes(folder):
    return (folder / "notes").read_text().split("\n")[:-1]


def test_a_job_runs_after_those_it_needs(tmp_path):
    jobs = [job(tmp_path, "c"), job(tmp_path, "b", after=("c",)), job(tmp_path, "a", after=("b", "c"))]
    failed, seen = run(jobs)
    assert not failed
    assert notes(tmp_path) == ["begin c", "end c", "begin b", "end b", "begin a", "end a"]
    assert seen[-1] == ([], 3, 3)


def test_as_many_run_at_a_time_as_there_are_places(tmp_path):
    # Each waits for the other's beginning, so one after the other they would never end.
    wait = f"while open({str(tmp_path / 'notes')!r}).read().count('begin') < 2: time.sleep(0.01)"
    failed, seen = run([job(tmp_path, name, wait) for name in "ab"])
    assert not failed
    assert max(len(running) for running, *_ in seen) == 2


def test_one_place_runs_one_at_a_time(tmp_path):
    _, seen = run([job(tmp_path, name) for name in "abc"], slots=1)
    assert max(len(running) for running, *_ in seen) == 1
    assert notes(tmp_path) == ["begin a", "end a", "begin b", "end b", "begin c", "end c"]


def test_what_is_done_is_not_run_again(tmp_path):
    first = job(tmp_path, "a")
    first.done.touch()
    failed, seen = run([first, job(tmp_path, "b", after=("a",))])
    assert not failed
    assert notes(tmp_path) == ["begin b", "end b"]
    assert seen[0][1:] == (1, 2)


def test_a_failure_is_told_and_the_others_go_on(tmp_path):
    broken = job(tmp_path, "broken", "raise SystemExit('out of luck')")
    jobs = [
        broken,
        job(tmp_path, "next", after=("broken",)),
        job(tmp_path, "last", after=("next",)),
        job(tmp_path, "b"),
    ]
    failed, seen = run(jobs)
    assert list(failed) == ["broken"]
    assert "exit code 1: " in failed["broken"]
    assert "out of luck" in failed["broken"]
    assert "begin last" not in notes(tmp_path)
    assert "end b" in notes(tmp_path)
    assert seen[-1] == ([], 4, 4)


def test_a_job_that_leaves_no_file_has_failed(tmp_path):
    silent = Job("silent", [sys.executable, "-S", "-c", "pass"], tmp_path / "never", tmp_path / "log")
    assert "exit code 0" in run([silent])[0]["silent"]


def test_every_process_has_the_environment_of_its_place(tmp_path):
    where = [job(tmp_path, name, "notes.write(os.environ['PLACE'] + '\\n')") for name in "ab"]
    run(where, slots=1)
    assert notes(tmp_path).count("0") == 2
    assert "PLACE" not in where[0].log.read_text().splitlines()[1:]


def test_what_all_would_fail_of_stops_them(tmp_path):
    missing = "raise SystemExit('error: no folder at /data')"
    jobs = [job(tmp_path, f"train{i}", missing) for i in range(9)]
    jobs.append(job(tmp_path, "evaluate", after=("train0",)))
    failed, seen = run(jobs, slots=1)
    assert notes(tmp_path) == ["begin train0", "begin train1"]
    assert list(failed) == ["train0", "train1", "7 more jobs"]
    assert "error: no folder" in failed["train0"]
    assert "same reason" in failed["7 more jobs"]
    assert seen[-1] == ([], 10, 10)


def test_different_failures_and_a_success_let_the_others_go_on(tmp_path):
    jobs = [job(tmp_path, f"train{i}", f"raise SystemExit('reason {i}')") for i in range(3)]
    assert list(run(jobs, slots=1)[0]) == ["train0", "train1", "train2"]
    (tmp_path / "other").mkdir()
    same = [job(tmp_path / "other", f"a{i}", "raise SystemExit('reason')" if i else "pass") for i in range(4)]
    assert list(run(same, slots=1)[0]) == ["a1", "a2", "a3"]
