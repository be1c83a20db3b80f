"""Tables for a terminal and as Markdown."""

import re
from collections.abc import Iterable, Sequence

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table as RichTable
from rich.text import Text

from yolov1_jax.comparison.tables import Cell, Table

_SUPERSCRIPTS = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")
_HEAD_WIDTH = 12  # a longer head of a column is folded
_WIDEST_TEXT = 20  # of a cell of text; a longer one is folded
_WIDEST_NAME = 30
_NARROWEST_TEXT = (24, 10)  # to which texts are folded: the first column, the others
_GAP = 3  # between columns, as SIMPLE_HEAD has it


class _Notes:
    """Numbers the notes of a table in the order in which they are read."""

    def __init__(self, table: Table) -> None:
        self._numbers: dict[str, str] = {}
        for cell in (cell for row in (table.head, *table.rows) for cell in row):
            for note in cell.notes:
                number = str(len(self._numbers) + 1).translate(_SUPERSCRIPTS)
                self._numbers.setdefault(note, number)
        self.lines = [f"{number} {note}" for note, number in self._numbers.items()]
        self.lines += table.footnotes

    def text(self, cell: Cell) -> str:
        """The cell with its marks; of several lines, behind the first."""
        marks = " ".join(self._numbers[note] for note in cell.notes)
        first, newline, rest = cell.text.partition("\n")
        return f"{first} {marks}{newline}{rest}" if marks and first else cell.text


def to_terminal(table: Table, width: int) -> RenderableType:
    """The table, in as many parts as the width of the terminal takes."""
    notes = _Notes(table)
    parts = [_part(table, notes, columns, width) for columns in _split(table, notes, width)]
    lines = [Text(line, style="dim") for line in notes.lines]
    return Group(Text(table.title, style="bold"), *parts, *lines, Text(""))


def _split(table: Table, notes: _Notes, width: int) -> list[list[int]]:
    """Columns of each part: the labels, and as many others as fit, one at least."""
    widths = [_width(table, notes, column) for column in range(len(table.head))]
    labels = list(range(table.num_labels))
    free = width - sum(widths[column] + _GAP for column in labels) - 1
    parts, used = [list(labels)], 0
    for column in range(table.num_labels, len(table.head)):
        if used and used + widths[column] + _GAP > free:
            parts.append(list(labels))
            used = 0
        parts[-1].append(column)
        used += widths[column] + _GAP
    return parts


def _width(table: Table, notes: _Notes, column: int) -> int:
    most = _WIDEST_NAME if column < table.num_labels else _WIDEST_TEXT if table.wraps else 99
    cells = max((len(notes.text(row[column])) for row in table.rows), default=0)
    head = max(map(len, _head(table, notes, column).split("\n")))
    return max(min(cells, most), head)


def _head(table: Table, notes: _Notes, column: int) -> str:
    """Folded at spaces, hyphens and slashes where a line is too long; in the middle of nothing."""
    text = notes.text(table.head[column])
    if column < table.num_labels:
        return text
    lines = [""]
    for line in text.split("\n"):
        for piece in re.findall(r"[^\s/_-]*[\s/_-]|[^\s/_-]+", line):
            while len(lines[-1]) + len(piece.rstrip()) > _HEAD_WIDTH:
                # A piece that is longer than a line begins one, and fills as many as it needs.
                if not lines[-1]:
                    lines[-1], piece = piece[:_HEAD_WIDTH], piece[_HEAD_WIDTH:]
                lines.append("")
            lines[-1] += piece
        lines.append("")
    return "\n".join(line.rstrip() for line in lines[:-1])


def _part(table: Table, notes: _Notes, columns: Sequence[int], width: int) -> RichTable:
    rendered = RichTable(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for column, column_width in zip(columns, _fit(table, notes, columns, width), strict=True):
        rendered.add_column(
            Text(_head(table, notes, column)),
            justify="left" if _is_text(table, column) else "right",
            overflow="fold",
            no_wrap=not _is_text(table, column),
            # Given for all: rich shrinks columns too far, or not at all, and cuts the last.
            width=column_width,
        )
    for number, row in enumerate(table.rows):
        if table.last_row_is_sum and number == len(table.rows) - 1:
            rendered.add_section()
        rendered.add_row(
            *(
                Text(notes.text(row[column]), style="bold" if row[column].strong else "")
                for column in columns
            )
        )
    return rendered


def _fit(table: Table, notes: _Notes, columns: Sequence[int], width: int) -> list[int]:
    """Widths of the columns: the widest texts give way until all fit."""
    widths = []
    for column in columns:
        natural = max(
            [len(notes.text(row[column])) for row in table.rows]
            + [max(map(len, _head(table, notes, column).split("\n")))]
        )
        is_value = table.wraps and table.num_labels == 1 and column
        widths.append(min(natural, _WIDEST_TEXT) if is_value else natural)
    least = [
        min(natural, _NARROWEST_TEXT[column > 0]) if _is_text(table, column) else natural
        for column, natural in zip(columns, widths, strict=True)
    ]
    while sum(widths) + _GAP * (len(widths) - 1) > width:
        spare = [now - low for now, low in zip(widths, least, strict=True)]
        if max(spare) <= 0:
            break
        widest = max(range(len(widths)), key=lambda i: (spare[i] > 0, widths[i]))
        widths[widest] -= 1
    return widths


def _is_text(table: Table, column: int) -> bool:
    return column < table.num_labels or table.wraps


def to_markdown(tables: Sequence[Table], title: str, opening: Sequence[str]) -> str:
    """One document. The best of several numbers of a kind is bold.

    `opening`: lines of Markdown before the first table.
    """
    lines = [f"# {title}", "", *opening, ""]
    for table in tables:
        notes = _Notes(table)
        lines += [f"## {_escaped(table.title)}", ""]
        lines.append(_row(_escaped(notes.text(cell)) for cell in table.head))
        lines.append(
            _row(
                ":---" if column < table.num_labels or table.wraps else "---:"
                for column in range(len(table.head))
            )
        )
        for number, row in enumerate(table.rows):
            is_sum = table.last_row_is_sum and number == len(table.rows) - 1
            lines.append(
                _row(
                    _strong(_escaped(notes.text(cell)), cell.strong or (is_sum and not column))
                    for column, cell in enumerate(row)
                )
            )
        lines.append("")
        for line in notes.lines:
            lines += [_escaped(line), ""]
    return "\n".join(lines).rstrip() + "\n"


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _strong(text: str, strong: bool) -> str:
    return f"**{text}**" if strong and text else text


def _escaped(text: str) -> str:
    for sign in "\\|*_<>[]":
        text = text.replace(sign, f"\\{sign}")
    return text.replace("\n", "<br>")
