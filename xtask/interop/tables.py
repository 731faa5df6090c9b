"""The tables that go both ways."""

import datetime
import decimal

import numpy as np
import pandas as pd
import pyarrow as pa

ROWS = 1001


def all_tables() -> dict[str, pa.Table]:
    """Every table by name."""
    return {
        "numeric": numeric(),
        "strings": strings(),
        "views": views(),
        "nullable": nullable(),
        "categorical": categorical(),
        "temporal": temporal(),
        "nested": nested(),
        "decimals": decimals(),
        "multiindex": multiindex(),
        "empty": numeric().slice(0, 0),
        "no columns": pa.table({}),
        "sliced": strings().slice(13, 700),
        "many chunks": pa.concat_tables(nullable().slice(i * 7, 7) for i in range(100)),
        "many batches": wide(24 << 20),
        "metadata": numeric().replace_schema_metadata({"owner": "tests", "clef": "é"}),
    }


def numeric() -> pa.Table:
    n = np.arange(ROWS)
    integers = {str(t): pa.array(n % 100, t) for t in (pa.int8(), pa.int16(), pa.int32(), pa.int64())}
    unsigned = {str(t): pa.array(n % 200, t) for t in (pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64())}
    floats = {"float": pa.array(n / 7, pa.float32()), "double": pa.array(n / 7), "half": pa.array((n / 8).astype(np.float16))}
    return pa.table({**integers, **unsigned, **floats, "bool": pa.array(n % 3 == 0)})


def strings() -> pa.Table:
    words = [f"wörd {i} " * (i % 5) for i in range(ROWS)]
    return pa.table(
        {
            "string": pa.array(words),
            "large": pa.array(words, pa.large_string()),
            "binary": pa.array([word.encode() for word in words], pa.binary()),
            "fixed": pa.array([f"{i:08}".encode() for i in range(ROWS)], pa.binary(8)),
        }
    )


def views() -> pa.Table:
    words = [None if i % 10 == 0 else f"view {i} " * (i % 6) for i in range(ROWS)]
    return pa.table(
        {
            "string": pa.array(words, pa.string_view()),
            "binary": pa.array([word and word.encode() for word in words], pa.binary_view()),
        }
    )


def nullable() -> pa.Table:
    def holes(values, every):
        return [None if i % every == 0 else value for i, value in enumerate(values)]

    return pa.table(
        {
            "int": pa.array(holes(range(ROWS), 3), pa.int64()),
            "double": pa.array(holes((i / 3 for i in range(ROWS)), 4)),
            "string": pa.array(holes((f"s{i}" for i in range(ROWS)), 5)),
            "bool": pa.array(holes((i % 2 == 0 for i in range(ROWS)), 6)),
            "null": pa.nulls(ROWS),
            "none missing": pa.array(range(ROWS)),
        }
    )


def categorical() -> pa.Table:
    codes = pa.array([i % 3 if i % 11 else None for i in range(ROWS)], pa.int8())
    plain = pa.DictionaryArray.from_arrays(codes, ["red", "green", "blue"])
    ordered = pa.DictionaryArray.from_arrays(codes, ["low", "middle", "high"], ordered=True)
    return pa.table({"plain": plain, "ordered": ordered, "int": pa.array(range(ROWS))})


def temporal() -> pa.Table:
    n = np.arange(ROWS, dtype=np.int64)
    stamps = {
        f"timestamp {unit} {zone}": pa.array(n * 86_399, pa.timestamp(unit, zone))
        for unit in ("s", "ms", "us", "ns")
        for zone in (None, "UTC", "Europe/Berlin")
    }
    return pa.table(
        {
            **stamps,
            "date32": pa.array(n.astype(np.int32), pa.date32()),
            "date64": pa.array(n * 86_400_000, pa.date64()),
            "time32": pa.array(n.astype(np.int32), pa.time32("s")),
            "time64": pa.array(n * 1000, pa.time64("ns")),
            "duration": pa.array(n, pa.duration("us")),
            "interval": pa.array([(1, i % 28, i) for i in range(ROWS)], pa.month_day_nano_interval()),
        }
    )


def nested() -> pa.Table:
    lists = [None if i % 9 == 0 else list(range(i % 4)) for i in range(ROWS)]
    structs = [None if i % 8 == 0 else {"a": i, "b": {"c": f"c{i}", "d": [i / 2]}} for i in range(ROWS)]
    maps = [[(f"k{j}", j) for j in range(i % 3)] for i in range(ROWS)]
    return pa.table(
        {
            "list": pa.array(lists, pa.list_(pa.int32())),
            "large list": pa.array(lists, pa.large_list(pa.int64())),
            "fixed list": pa.array([[i, i + 1] for i in range(ROWS)], pa.list_(pa.float32(), 2)),
            "list of strings": pa.array([[f"x{j}" for j in range(i % 3)] for i in range(ROWS)]),
            "struct": pa.array(structs),
            "map": pa.array(maps, pa.map_(pa.string(), pa.int16())),
        }
    )


def decimals() -> pa.Table:
    values = [None if i % 7 == 0 else decimal.Decimal(i) / 100 for i in range(ROWS)]
    return pa.table(
        {
            "128": pa.array(values, pa.decimal128(20, 2)),
            "256": pa.array(values, pa.decimal256(50, 2)),
        }
    )


def multiindex() -> pa.Table:
    """What pandas makes of a frame with two index levels: columns, and its notes in the schema."""
    return pa.Table.from_pandas(multiindex_frame())


def multiindex_frame() -> pd.DataFrame:
    days = [datetime.date(2024, 1, 1) + datetime.timedelta(days=i) for i in range(10)]
    index = pd.MultiIndex.from_product([["a", "b", "c"], days], names=["group", "day"])
    return pd.DataFrame({"value": np.arange(30) / 3, "count": np.arange(30)}, index=index)


def wide(size: int) -> pa.Table:
    """About `size` bytes that hardly compress: more than one record batch in every writer."""
    rows = size // 32
    random = np.random.default_rng(7)
    columns = {f"f{i}": random.random(rows) for i in range(2)}
    return pa.table({**columns, "i": random.integers(0, 1 << 60, rows), "small": random.integers(0, 100, rows)})


def same(left: pa.Table, right: pa.Table) -> bool:
    """Whether two tables are equal, schema metadata included. How they are cut into chunks is not a
    part of their value, and neither is how chunks share dictionaries."""
    left, right = left.unify_dictionaries().combine_chunks(), right.unify_dictionaries().combine_chunks()
    return left.schema.equals(right.schema, check_metadata=True) and left.equals(right)
