import io
import re

import pytest
from rich.console import Console

from yolov1_jax.training import progress
from yolov1_jax.training.progress import Progress

ROW = {
    "split": "train",
    "step": 30,
    "epoch": 3.0,
    "loss": 24.25635,
    "loss/xy": 1.2365983,
    "loss/wh": 0.7609835,
    "loss/object": 2.1878276,
    "loss/no_object": 13.317212,
    "loss/class": 6.753729,
    "gradient_norm": 872.81,
    "learning_rate": 0.0001,
    "images_per_second": 124.4,
}


class Clock:
    """Stands in for `time`: a second passes for each call of `wait`."""

    def __init__(self):
        self.now = 100.0

    def monotonic(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


def make(*, width=80, terminal=False, resume_step=0, num_steps=400):
    file = io.StringIO()
    console = Console(
        file=file, width=width, height=25, force_terminal=terminal, color_system=None,
        _environ={"TERM": "xterm"},
    )  # fmt: skip
    display = Progress(console, resume_step=resume_step, num_steps=num_steps, steps_per_epoch=10)
    return display, file


def screen(display, width=80):
    console = Console(file=io.StringIO(), width=width, color_system=None)
    with console.capture() as captured:
        console.print(display._render())
    return captured.get().splitlines()


def test_plain_lines_hold_everything_on_one_line(clock):
    display, file = make()
    display.step(10)
    clock.now += 40
    display.show(ROW)
    display.close()
    assert file.getvalue() == (
        "train  epoch 3/40  step 30/400  loss 24.26  xy 1.237  wh 0.7610  object 2.188"
        "  no object 13.32  class 6.754  gradient 872.8  lr 1.0e-04  images/s 124.4  12:20 left\n"
    )


def test_plain_line_of_an_evaluation_has_the_totals_only():
    display, file = make()
    display.show(
        {"split": "eval", "step": 100, "epoch": 10.0, "mAP": 0.5123, "protocol": "voc07",
         "ap/dog": 0.7}
    )  # fmt: skip
    assert file.getvalue() == "eval  epoch 10/40  step 100/400  mAP 51.2%\n"


def test_printed_text_is_neither_wrapped_nor_marked_up():
    display, file = make(width=20)
    display.print("skipped [bold]2[/bold] files of a very long list of files")
    assert file.getvalue() == "skipped [bold]2[/bold] files of a very long list of files\n"


@pytest.mark.parametrize("width", [60, 80, 120])
def test_live_display_fits_the_terminal_and_names_every_number(clock, width):
    display, _ = make(width=width, terminal=True)
    display.step(10)
    clock.now += 40
    display.show(ROW)
    lines = screen(display, width)
    display.close()
    assert max(map(len, lines)) <= width
    text = " ".join(lines)
    assert "epoch 3/40  step 30/400" in text
    assert "12:20 left" in text
    assert "━" in text
    for name, value in [
        ("loss", "24.26"), ("xy", "1.237"), ("wh", "0.7610"), ("object", "2.188"),
        ("no object", "13.32"), ("class", "6.754"), ("gradient", "872.8"),
        ("lr", "1.0e-04"), ("images/s", "124.4"),
    ]:  # fmt: skip
        # Each value stands below its name, the last letters in one column.
        (above, column), *_ = [
            (i, match.end())
            for i, line in enumerate(lines)
            for match in re.finditer(rf"(?<!no ){name}(?= |$)", line)
        ]
        assert lines[above + 1][:column].endswith(value)


def test_display_of_80_columns_is_three_lines():
    display, _ = make(terminal=True)
    display.show(ROW)
    assert len(screen(display)) == 3
    display.close()


def test_live_display_shows_rows_of_training_in_place_and_prints_evaluations():
    display, file = make(terminal=True)
    display.show(ROW)
    display.show({"split": "eval", "step": 100, "epoch": 10.0, "mAP": 0.5123})
    display.close()
    printed = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", file.getvalue())
    assert printed.count("mAP 51.2%") == 1
    assert "train  epoch" not in printed
    assert "24.26" in printed  # the last state stays on the screen


def test_second_bar_while_items_are_tracked():
    display, _ = make(terminal=True)
    seen = []
    for item in display.track(["a", "b"], "evaluating", 2):
        seen.append(item)
        assert re.fullmatch(rf"evaluating +[━╸╺]* +{len(seen) - 1}/2", screen(display)[-1].strip())
    assert seen == ["a", "b"]
    assert len(screen(display)) == 1
    display.close()


def test_a_dumb_terminal_gets_plain_lines():
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, _environ={"TERM": "dumb"}, width=80)
    display = Progress(console, resume_step=0, num_steps=400, steps_per_epoch=10)
    display.show(ROW)
    display.close()
    assert file.getvalue().startswith("train  epoch 3/40")


def test_time_left_counts_from_the_first_step_reported(clock):
    display, _ = make(resume_step=200)
    assert display._time_left() == "-:--"
    clock.now += 1000  # compiling
    display.step(201)
    assert display._time_left() == "-:--"
    clock.now += 10
    display.step(211)
    assert display._time_left() == "3:09"
    clock.now += 20
    display.step(221)
    assert display._time_left() == "4:28"  # 1.5 s a step, 179 steps
    display.step(400)
    assert display._time_left() == "0:00"


def test_epochs_count_from_one_and_change_behind_the_last_step():
    display, _ = make()
    assert display._position(0) == "epoch 1/40  step 0/400"
    assert display._position(10) == "epoch 1/40  step 10/400"
    assert display._position(11) == "epoch 2/40  step 11/400"
    assert display._position(400) == "epoch 40/40  step 400/400"


def test_the_last_epoch_lasts_to_the_last_step():
    # 9 epochs of 205.4 steps are 1,848.9, rounded to whole steps.
    display = Progress(Console(), resume_step=0, num_steps=1849, steps_per_epoch=3287 / 16)
    assert display._position(1849) == "epoch 9/9  step 1,849/1,849"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "nan"),
        (0.0, "0.000"),
        (7, "7"),
        (1234567, "1,234,567"),
        (12345.678, "12,346"),
        (999.96, "1,000.0"),
        (0.0123456, "0.0123"),
        (0.00123456, "1.2e-03"),
        (-2.5, "-2.500"),
        (3.2e9, "3.2e+09"),
    ],
)
def test_numbers(value, text):
    assert progress._number(value) == text
    assert len(text) <= 9


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0:00"), (59.6, "1:00"), (3599, "59:59"), (3600, "1:00:00"), (90000, "1 d 1 h")],
)
def test_durations(seconds, text):
    assert progress._duration(seconds) == text
