"""What a process writes, as it is followed: whole lines only, once, as events or as rows of curves."""

from pathlib import Path

from sdxl_mel.studio.processes import Tail


def test_a_line_is_told_once_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "events.txt"
    tail = Tail(path)
    assert list(tail.events()) == []
    path.write_text('{"event": "message", "text": "a"}\nTraceback\n{"event": "adv')
    plain = {"event": "message", "text": "Traceback", "plain": True}
    assert list(tail.events()) == [{"event": "message", "text": "a"}, plain]
    with path.open("a") as file:
        file.write('anced"}\n')
    assert list(tail.events()) == [{"event": "advanced"}]


def test_rows_of_curves_are_told_as_they_come(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "loss": 0.5}\n')
    tail = Tail(path, skip=True)
    with path.open("a") as file:
        file.write('{"step": 2, "loss": 0.4}\n[1]\nnull\n{"step": 3')
    assert list(tail.rows()) == [{"step": 2, "loss": 0.4}]
