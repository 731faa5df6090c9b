"""Typed values: what flamepy and the client's default serializer write is read, and the other way round.

The Rust side are two examples of ck-codec, `flm` and `bytestorage`.
"""

import datetime
import json
import os
import subprocess
import tempfile
import unittest
from pathlib import Path

import numpy as np
import pyarrow as pa
from cachekit.serializers.standard_serializer import StandardSerializer
from flamepy.core.cache import _deserialize_object_data as from_flm
from flamepy.core.cache import _serialize_object_data as to_flm


class Values(unittest.TestCase):
    def setUp(self):
        scratch = tempfile.TemporaryDirectory(prefix="ck-interop-")
        self.addCleanup(scratch.cleanup)
        self.scratch = Path(scratch.name)

    def run_example(self, name: str, *args) -> subprocess.CompletedProcess:
        command = [Path(os.environ["CK_EXAMPLES"]) / name, *args]
        return subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=120)

    def done(self, name: str, *args) -> str:
        """Runs what must succeed; what it printed."""
        result = self.run_example(name, *args)
        self.assertEqual(result.returncode, 0, result.stderr)
        return result.stdout

    def file(self, name: str, content: bytes) -> Path:
        path = self.scratch / name
        path.write_bytes(content)
        return path


class Flm(Values):
    def copied(self, payload: bytes) -> bytes:
        """Decoded and encoded by ck-codec."""
        path = self.scratch / "copy"
        self.done("flm", "copy", self.file("payload", payload), path)
        self.assertEqual(path.read_bytes()[:4], payload[:4])
        return path.read_bytes()

    def shown(self, payload: bytes) -> dict:
        return json.loads(self.done("flm", "read", self.file("payload", payload)))

    def test_tensors(self):
        shapes = [(), (0,), (7,), (0, 4), (4, 0), (1, 1), (1, 5), (5, 1), (7, 5), (3, 4, 5), (2, 3, 4, 5)]
        for dtype in ("i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8"):
            for shape in shapes:
                for order in "CF":
                    with self.subTest(dtype, shape=shape, order=order):
                        count = np.prod(shape, dtype=int)
                        array = np.asarray(np.arange(count).reshape(shape), dtype=dtype, order=order)
                        found = from_flm(self.copied(to_flm(array)))
                        self.assertEqual((found.dtype, found.shape), (array.dtype, shape))
                        np.testing.assert_array_equal(found, array)
                        self.assertEqual(found.flags.f_contiguous, array.flags.f_contiguous)
                        shown = self.shown(to_flm(array))
                        self.assertEqual((shown["shape"], shown["values"]), (list(shape), array.ravel().tolist()))

    def test_a_column_of_a_fortran_array_is_contiguous_with_odd_strides(self):
        column = np.asfortranarray(np.arange(15.0).reshape(5, 3))[:, 1:2]
        self.assertEqual((column.flags.c_contiguous, column.strides), (True, (8, 40)))
        np.testing.assert_array_equal(from_flm(self.copied(to_flm(column))), column)

    def test_tables_batches_and_arrays(self):
        words = pa.array(["u", "v", "u"]).dictionary_encode()
        columns = {"a": [1, 2, None], "s": ["x", None, "too long for a view"], "l": [[1], [], None], "d": words}
        table = pa.table(columns, metadata={"k": "v"})
        for name, value in {
            "table": table,
            "no rows": table.slice(0, 0),
            "no batches": pa.Table.from_batches([], schema=table.schema),
            "slice": table.slice(1, 2),
            "chunks": pa.concat_tables([table, table.slice(1), table]),
            "batch": table.to_batches()[0],
            "array": pa.array([1, None, 3]),
            "strings": pa.array(["a", None, "ccc"]),
            "views": pa.array(["a", None, "c" * 40], pa.string_view()),
            "dictionary": words,
            "nulls": pa.nulls(5),
            "structs": pa.array([{"a": 1}, {"a": None}, None]),
            "bits": pa.array([True, None, False]).slice(1),
        }.items():
            with self.subTest(name):
                found = from_flm(self.copied(to_flm(value)))
                found.validate(full=True)
                self.assertTrue(found.equals(value), found)
                if hasattr(value, "schema"):
                    self.assertTrue(found.schema.equals(value.schema, check_metadata=True))

    def test_pickles_are_not_executed(self):
        trap = self.scratch / "executed"
        payload = to_flm(Trap(str(trap)))
        self.assertEqual(self.shown(payload), {"type": "cloudpickle", "bytes": len(payload) - 4})
        self.assertEqual(self.shown(payload[4:])["type"], "unmarked")
        copied = self.run_example("flm", "copy", self.scratch / "payload", self.scratch / "copy")
        self.assertNotEqual(copied.returncode, 0)
        self.assertFalse(trap.exists(), "the pickle was executed")
        from_flm(payload)
        self.assertEqual(trap.read_text(), "executed")


class Trap:
    """Leaves a file behind when its pickle is executed."""

    def __init__(self, path: str):
        self.path = path

    def __reduce__(self):
        return (exec, (f"from pathlib import Path; Path({self.path!r}).write_text('executed')",))


class DefaultSerializer(Values):
    serializer = StandardSerializer()

    def shown(self, value) -> str:
        payload, _ = self.serializer.serialize(value)
        return self.done("bytestorage", "to-json", self.file("payload", payload))

    def written(self, text: str) -> bytes:
        path = self.scratch / "written"
        self.done("bytestorage", "from-json", self.file("json", text.encode()), path)
        return path.read_bytes()

    def test_values(self):
        integers = [0, 1, -1, 127, 128, 255, 256, 2**16, 2**32, 2**63 - 1, -(2**63), 2**64 - 1]
        texts = ["text", "ü漢", "x" * 100_000, *("a" * length for length in (31, 32, 255, 256, 2**16))]
        for value in [
            *integers, *texts, 1.5, -0.0, 0.1, 1e300, None, True, False, [], {}, [1, [2, [3]]],
            {"b": 1, "a": {"c": [1, 2, 3]}}, list(range(100_000)), {f"k{i}": i for i in range(1000)},
        ]:  # fmt: skip
            with self.subTest(repr(value)[:40]):
                text = self.shown(value)
                self.assertEqual(repr(json.loads(text)), repr(value))
                found = self.serializer.deserialize(self.written(text))
                self.assertEqual(repr(found), repr(value))

    def test_dates_and_times(self):
        when = datetime.datetime(2025, 11, 14, 10, 30, tzinfo=datetime.timezone.utc)
        value = {"when": when, "on": when.date(), "at": when.time()}
        text = self.shown(value)
        self.assertEqual(json.loads(text)["on"], {"__date__": True, "value": "2025-11-14"})
        self.assertEqual(self.serializer.deserialize(self.written(text)), value)

    def test_what_json_does_not_have_is_an_error(self):
        for value in (b"bytes", [b"bytes"], {1: 2}, float("nan"), float("inf")):
            with self.subTest(repr(value)):
                payload, _ = self.serializer.serialize(value)
                result = self.run_example("bytestorage", "to-json", self.file("payload", payload))
                self.assertNotEqual(result.returncode, 0)
                self.assertIn("cannot be written as JSON", result.stderr)


if __name__ == "__main__":
    unittest.main()
