"""The Python side of the comparison: reads one JSON command a line, answers with seconds.

Tables are loaded into memory once, so that only the work named is timed.
"""

import json
import os
import sys
import time

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.feather as feather
import pyarrow.ipc as ipc

tables = {}


def table(path):
    if path not in tables:
        with pa.OSFile(path, "rb") as source:
            tables[path] = ipc.open_file(source).read_all()
    return tables[path]


def write_feather(source, out, compression, level):
    data = table(source)
    if os.path.exists(out):
        os.unlink(out)
    start = time.perf_counter()
    # The level of lz4 is fixed; chunks of as many rows as our batches have keep the work the same.
    feather.write_feather(
        data,
        out,
        compression=compression,
        compression_level=level,
        chunksize=max(1, data.num_rows * (8 << 20) // max(1, data.nbytes)),
    )
    return time.perf_counter() - start


def open_and_sum(path, column):
    start = time.perf_counter()
    data = feather.read_table(path, memory_map=True)
    total = pc.sum(data[column]).as_py()
    elapsed = time.perf_counter() - start
    return elapsed, total


def main():
    print(json.dumps({"pyarrow": pa.__version__, "threads": pa.cpu_count()}), flush=True)
    for line in sys.stdin:
        command = json.loads(line)
        if command["op"] == "load":
            answer = {"rows": table(command["source"]).num_rows}
        elif command["op"] == "write":
            seconds = write_feather(
                command["source"], command["out"], command["compression"], command["level"]
            )
            answer = {"seconds": seconds, "bytes": os.path.getsize(command["out"])}
        elif command["op"] == "sum":
            seconds, total = open_and_sum(command["path"], command["column"])
            answer = {"seconds": seconds, "total": total}
        else:
            raise SystemExit(f"unknown command {command}")
        print(json.dumps(answer), flush=True)


main()
