"""The commands that scripts of short trials share: `list`, `train TRIAL`, and tables of runs."""

import argparse
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple


class Table(NamedTuple):
    columns: Sequence[str]
    rows: Callable[[Path], Iterable[Sequence[str]]]  # of a run: the cells of each


def run(
    description: str | None,
    trials: Sequence[str],
    train: Callable[[str, Path, Sequence[str]], None],
    tables: Mapping[str, Table],
) -> None:
    """`train` gets a trial, the folder of its run and what else was on the command line; `tables` are by command."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list")
    training = commands.add_parser("train")
    training.add_argument("trial", choices=trials)
    training.add_argument("--output", type=Path, required=True)
    for name in tables:
        commands.add_parser(name).add_argument("folders", type=Path, nargs="+", help="of runs, named as the trials")
    args, rest = parser.parse_known_args()
    if args.command == "list":
        print(*trials, sep="\n")
    elif args.command == "train":
        train(args.trial, args.output, rest)
    else:
        _show(tables[args.command], args.folders)


def _show(table: Table, folders: Sequence[Path]) -> None:
    """In Markdown."""
    rows = (row for folder in folders for row in table.rows(folder))
    for cells in (table.columns, ["---"] * len(table.columns), *rows):
        print("|", " | ".join(cells), "|")
