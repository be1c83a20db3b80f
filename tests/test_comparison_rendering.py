"""Tables for a terminal of any width, and as Markdown."""

import re

import pytest
from rich.console import Console

from yolov1_jax.comparison.published import all_published
from yolov1_jax.comparison.rendering import to_markdown, to_terminal
from yolov1_jax.comparison.run_tables import all_tables
from yolov1_jax.comparison.tables import Cell, Table

NUMBERS = Table(
    "AP on [data 1]",
    [
        Cell("class"),
        *(Cell(f"voc07\n{key}\nrun_number/{key}", notes=("a note",)) for key in "ABCDE"),
    ],
    [[Cell("sofa"), *(Cell(f"{i}.0", i == 4) for i in range(5))], [Cell("mAP")] + [Cell("")] * 5],
    footnotes=("A footnote.",),
    last_row_is_sum=True,
)
TEXTS = Table(
    "Some",
    [Cell("image"), Cell("what"), Cell("voc07"), Cell("seed")],
    [
        [
            Cell("BCCD/BloodImage_00014"),
            Cell("Platelets, score 0.027"),
            Cell("not selected: score below 0.3"),
            Cell("false positive: no object of its class in the image"),
        ],
        [
            Cell("BCCD/BloodImage_00014"),
            Cell("RBC, object 16"),
            Cell("vanished: shares a cell with object 9 (RBC)"),
            Cell("found: score 0.209, IoU 0.610"),
        ],
    ],
    num_labels=4,
    wraps=True,
)
SETTINGS = Table(
    "Settings",
    [Cell("config"), *(Cell(f"{key}\nname") for key in "ABC")],
    [[Cell("model.pretrained"), *(Cell("/a/very/long/path/" + "x" * 40) for _ in range(3))]],
    wraps=True,
)


def printed(table, width):
    console = Console(width=width)
    with console.capture() as captured:
        console.print(to_terminal(table, width))
    return captured.get()


@pytest.mark.parametrize("width", range(50, 131, 5))
@pytest.mark.parametrize("table", [NUMBERS, TEXTS, SETTINGS], ids=lambda table: table.title)
def test_nothing_is_cut_off_at_any_width(table, width):
    text = printed(table, width)
    assert max(map(len, text.splitlines())) <= width
    kept = re.sub(r"\s", "", text)
    for row in table.rows:
        for cell in row:
            for word in re.findall(r"\S", cell.text):
                assert word in kept
    letters = sum(len(re.sub(r"\s", "", cell.text)) for row in table.rows for cell in row)
    assert len(kept) >= letters  # labels that are repeated, lines and heads come on top


def test_a_wide_table_is_split_and_repeats_its_labels():
    text = printed(NUMBERS, 40)
    assert text.count("sofa") == text.count("class") == 3
    assert text.count("A footnote.") == text.count("¹ a note") == 1
    assert printed(NUMBERS, 90).count("sofa") == 1
    assert printed(NUMBERS, 20).count("sofa") == 5  # one column at least in every part


def test_heads_are_folded_where_words_end():
    lines = printed(NUMBERS, 90).splitlines()
    assert lines[0] == "AP on [data 1]"
    assert "run_number/A" in lines[3]


def test_marks_follow_the_first_line():
    assert printed(NUMBERS, 90).splitlines()[1].split() == ["voc07", "¹"] * 5


def test_every_published_number_is_printed_within_80_columns():
    for table in all_tables(all_published()):
        assert max(map(len, printed(table, 80).splitlines())) <= 80


def test_markdown():
    text = to_markdown([NUMBERS], "Title", ["Read this."])
    assert text.splitlines() == [
        "# Title",
        "",
        "Read this.",
        "",
        r"## AP on \[data 1\]",
        "",
        "| class | "
        + " | ".join(rf"voc07 ¹<br>{key}<br>run\_number/{key}" for key in "ABCDE")
        + " |",
        "| :--- | ---: | ---: | ---: | ---: | ---: |",
        "| sofa | 0.0 | 1.0 | 2.0 | 3.0 | **4.0** |",
        "| **mAP** |  |  |  |  |  |",
        "",
        "¹ a note",
        "",
        "A footnote.",
    ]


def test_markdown_of_names_that_are_markup():
    odd = Table("t", [Cell("a|b")], [[Cell("*x* <b> \\")]])
    assert to_markdown([odd], "t", []).splitlines()[-3:] == [
        r"| a\|b |",
        "| :--- |",
        r"| \*x\* \<b\> \\ |",
    ]
