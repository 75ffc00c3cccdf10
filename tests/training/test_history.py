from foveate.training.history import MetricsFile, read_history


def test_one_row_a_step_whatever_comes_when(tmp_path):
    path = tmp_path / "run/metrics.csv"
    file = MetricsFile(path)
    file.log_metrics({"loss": 0.5}, 1)
    file.log_metrics({"loss": 0.25}, 2)
    file.log_metrics({"val": 0.75, "acc": 1.0}, 2)
    file.log_metrics({"loss": 0.125}, 3)
    assert path.read_text() == "step,loss,acc,val\n1,0.5,,\n2,0.25,1,0.75\n3,0.125,,\n"
    assert read_history(path)[1] == {"step": 2, "loss": 0.25, "acc": 1, "val": 0.75}


def test_rows_are_on_disk_at_once(tmp_path):
    file = MetricsFile(tmp_path / "metrics.csv")
    for step in range(1, 4):
        file.log_metrics({"loss": 1.0}, step)
        assert len(read_history(tmp_path / "metrics.csv")) == step


def test_resuming_keeps_what_was_before_and_drops_what_was_after(tmp_path):
    path = tmp_path / "metrics.csv"
    first = MetricsFile(path)
    for step in (2, 4, 6):
        first.log_metrics({"loss": float(step)}, step)
    second = MetricsFile(path, after_step=4)
    second.log_metrics({"val": 0.5}, 4)
    second.log_metrics({"loss": 7.0}, 6)
    assert read_history(path) == [
        {"step": 2, "loss": 2},
        {"step": 4, "loss": 4, "val": 0.5},
        {"step": 6, "loss": 7},
    ]


def test_a_row_cut_off_by_a_kill_is_dropped(tmp_path):
    path = tmp_path / "metrics.csv"
    path.write_text("step,loss,val\n1,0.5,0.1\n2,0.")
    MetricsFile(path, after_step=5).log_metrics({"loss": 0.25}, 3)
    assert path.read_text() == "step,loss,val\n1,0.5,0.1\n3,0.25,\n"


def test_a_new_run_starts_afresh_but_not_before_it_logs(tmp_path):
    path = tmp_path / "metrics.csv"
    path.write_text("step,loss\n1,0.5\n")
    file = MetricsFile(path)
    assert path.read_text() == "step,loss\n1,0.5\n"
    file.log_metrics({"loss": 1.0}, 1)
    assert path.read_text() == "step,loss\n1,1\n"
