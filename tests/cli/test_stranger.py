"""The folder of a run that somebody sent runs nothing, whatever is done with it and from wherever."""

import subprocess
import sys

import pytest
import yaml

from foveate.cli.app import main
from foveate.runs.config import RunConfig
from toys import make_data_set, toy_config

EVIL = "import pathlib\npathlib.Path({mark!r}).touch()\ndef build(**options): raise SystemExit('it ran')\n"


@pytest.fixture
def sent(tmp_path, monkeypatch):
    """A run whose network is code beside its configuration, and what tells that the code ran."""
    make_data_set(tmp_path / "toy")
    run, mark = tmp_path / "run", tmp_path / "it-ran"
    (run / "checkpoints").mkdir(parents=True)
    (run / "checkpoints" / "last.ckpt").write_bytes(b"")
    (run / "evil.py").write_text(EVIL.format(mark=str(mark)))
    (run / "hubconf.py").write_text(EVIL.format(mark=str(mark)))
    monkeypatch.delenv("PYTHONPATH", raising=False)
    monkeypatch.setenv("FOVEATE_CODE", "")
    return run, mark


def save(run, network):
    config = RunConfig.parse({**toy_config(run.parent), "network": network})
    (run / "config.yaml").write_text(yaml.safe_dump(config.tree()))


OWN = {"architecture": "evil:build"}
HUB = {"architecture": "torch.hub:load", "options": {"repo_or_dir": ".", "model": "build", "source": "local"}}
COMMANDS = {
    "predict": ["predict", "{run}", "{image}", "--out", "{out}"],
    "evaluate": ["evaluate", "{run}"],
    "tune": ["tune", "{run}"],
    "train": ["train", "{run}/config.yaml", "--out", "{out}/again"],
}


@pytest.mark.parametrize("words", COMMANDS.values(), ids=COMMANDS)
@pytest.mark.parametrize("network", [OWN, HUB], ids=["own", "hub"])
def test_nothing_of_it_is_run(sent, tmp_path, monkeypatch, capsys, words, network):
    run, mark = sent
    save(run, network)
    monkeypatch.chdir(run)
    image = tmp_path / "toy" / "images" / "a.png"
    given = [word.format(run=run, image=image, out=tmp_path / "out") for word in words]
    monkeypatch.setattr("sys.argv", ["foveate", *given])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 2
    assert "a name in a configuration is not enough to run code" in " ".join(capsys.readouterr().err.split())
    assert not mark.exists()


def test_naming_its_folder_does_not_help_it(sent, tmp_path, monkeypatch, capsys):
    run, mark = sent
    save(run, OWN)
    monkeypatch.setattr("sys.argv", ["foveate", "evaluate", str(run), "--code", str(run)])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 2
    assert "lies in the folder of the run, and nothing is imported from there" in " ".join(
        capsys.readouterr().err.split()
    )
    assert not mark.exists()


def test_a_report_on_it_runs_nothing(sent, monkeypatch):
    run, mark = sent
    save(run, OWN)
    monkeypatch.chdir(run)
    monkeypatch.setattr("sys.argv", ["foveate", "report", str(run)])
    with pytest.raises(SystemExit):
        main()
        raise SystemExit  # a report of what there is, without an evaluation, is fine
    assert not mark.exists()


def test_modules_in_the_current_directory_do_not_stand_in_for_those_of_the_command(sent):
    run, mark = sent
    (run / "typer.py").write_text(EVIL.format(mark=str(mark)))
    done = subprocess.run(
        [sys.executable, "-m", "foveate", "--version"], cwd=run, capture_output=True, text=True, check=False
    )
    assert done.stdout.startswith("foveate "), done.stderr
    assert not mark.exists()
