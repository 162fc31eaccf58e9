"""Compares Delta tables with the CSV they came from, by readers that share no code with Forebay.

Usage: volume.py FLIGHTS.csv TABLE_DIR...   Ends with 1 and says where they differ.
"""

import csv
import datetime
import sys

import duckdb
import pyarrow
import pyarrow.compute as compute
from deltalake import DeltaTable

TIME = "time_hour"


def is_number(text):
    try:
        float(text)
        return True
    except ValueError:
        return False


def from_csv(path):
    """Rows; (nulls, sum) of each column; the names of the columns that hold text."""
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    columns, texts = {}, set()
    for name in rows[0]:
        given = [row[name] for row in rows if row[name] not in ("", "NA")]
        # NA is NULL in every column but a text one.
        text = name != TIME and not all(map(is_number, given))
        values = [row[name] for row in rows if row[name] != ""] if text else given
        if name == TIME:
            moments = (datetime.datetime.fromisoformat(text.replace("Z", "+00:00")) for text in values)
            total = sum(int(moment.timestamp()) for moment in moments)
        elif not text:
            total = sum(map(float, values))
        else:
            texts.add(name)
            total = sum(map(len, values))
        columns[name] = (len(rows) - len(values), float(total))
    return (len(rows), columns), texts


def from_deltalake(table, names, texts):
    data = pyarrow.table(table.to_pyarrow_table())
    columns = {}
    for name in names:
        column = data[name]
        if name in texts:
            values = compute.utf8_length(column)
        elif name == TIME:
            column = column.cast(pyarrow.timestamp("us", "UTC"))
            values = compute.divide(column.cast(pyarrow.int64()), 1_000_000)
        else:
            values = column
        columns[name] = (column.null_count, float(compute.sum(values).as_py()))
    return data.num_rows, columns


def from_duckdb(table, names, texts):
    files = table.file_uris()
    parts = ["count(*)"]
    for name in names:
        value = f'"{name}"'
        if name in texts:
            value = f"length({value})"
        elif name == TIME:
            value = f"epoch({value}::TIMESTAMPTZ)"
        parts.append(f'count(*) - count("{name}"), sum({value})')
    sql = f"SELECT {', '.join(parts)} FROM read_parquet(?)"
    rows, *rest = duckdb.execute(sql, [files]).fetchone()
    pairs = zip(rest[::2], rest[1::2])
    return rows, {name: (nulls, float(total)) for name, (nulls, total) in zip(names, pairs)}


def main(source, tables):
    expected, texts = from_csv(source)
    names = list(expected[1])
    differ = False
    for directory in tables:
        table = DeltaTable(directory)
        for read in (from_deltalake, from_duckdb):
            found = read(table, names, texts)
            same = found == expected
            differ |= not same
            print(f"{directory} {read.__name__}: {found[0]} rows, {'the same' if same else 'DIFFERENT'}")
            if not same:
                for name in names:
                    if found[1][name] != expected[1][name]:
                        print(f"  {name}: (nulls, sum) {found[1][name]}, not {expected[1][name]}")
    return 1 if differ else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
