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

TEXT = {"carrier", "tailnum", "origin", "dest"}
TIME = "time_hour"


def from_csv(path):
    with open(path, newline="") as file:
        reader = csv.DictReader(file)
        columns = {name: [0, 0] for name in reader.fieldnames}
        rows = 0
        for row in reader:
            rows += 1
            for name, text in row.items():
                if text == "":
                    columns[name][0] += 1
                elif name in TEXT:
                    columns[name][1] += len(text)
                elif name == TIME:
                    moment = datetime.datetime.fromisoformat(text.replace("Z", "+00:00"))
                    columns[name][1] += int(moment.timestamp())
                else:
                    columns[name][1] += float(text)
    return rows, {name: (nulls, float(total)) for name, (nulls, total) in columns.items()}


def from_deltalake(table, names):
    data = pyarrow.table(table.to_pyarrow_table())
    columns = {}
    for name in names:
        column = data[name]
        if name in TEXT:
            values = compute.utf8_length(column)
        elif name == TIME:
            column = column.cast(pyarrow.timestamp("us", "UTC"))
            values = compute.divide(column.cast(pyarrow.int64()), 1_000_000)
        else:
            values = column
        columns[name] = (column.null_count, float(compute.sum(values).as_py()))
    return data.num_rows, columns


def from_duckdb(table, names):
    files = table.file_uris()
    parts = ["count(*)"]
    for name in names:
        value = f'"{name}"'
        if name in TEXT:
            value = f"length({value})"
        elif name == TIME:
            value = f"epoch({value}::TIMESTAMPTZ)"
        parts.append(f'count(*) - count("{name}"), sum({value})')
    sql = f"SELECT {', '.join(parts)} FROM read_parquet(?)"
    rows, *rest = duckdb.execute(sql, [files]).fetchone()
    pairs = zip(rest[::2], rest[1::2])
    return rows, {name: (nulls, float(total)) for name, (nulls, total) in zip(names, pairs)}


def main(source, tables):
    expected = from_csv(source)
    names = list(expected[1])
    differ = False
    for directory in tables:
        table = DeltaTable(directory)
        for read in (from_deltalake, from_duckdb):
            found = read(table, names)
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
