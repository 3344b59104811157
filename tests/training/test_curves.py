"""The curves of a run, drawn from its metrics wherever they are shown."""

from sdxl_mel.files.run import read_metrics
from sdxl_mel.training.log import curves_figure, write_curves

LINES = """{"step": 0, "validation/held out": [0.2, 0.4]}
{"step": 1, "loss": 0.5, "squared_error": 0.4}
{"step": 2, "loss": 0.3, "squared_error": 0.2}
{"step": 2, "validation/held out": [0.1, 0.2]}
{"step": 3, "lo"""


def test_a_run_that_was_killed_while_writing_is_drawn(tmp_path):
    (tmp_path / "metrics.jsonl").write_text(LINES)
    training, validation = curves_figure(read_metrics(tmp_path)).axes
    assert [line.get_label() for line in training.lines] == ["loss", "squared error"]
    assert list(training.lines[0].get_xdata()) == [1, 2]
    assert list(validation.lines[0].get_ydata()) == [0.30000000000000004, 0.15000000000000002]
    write_curves(tmp_path)
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_a_run_without_validations_has_curves():
    training, validation = curves_figure([{"step": 1, "loss": 0.5}]).axes
    assert (len(training.lines), len(validation.lines)) == (1, 0)
