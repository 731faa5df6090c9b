"""In a directory each side reads what the other writes, sees its expiry, its touches and its deletions."""

import datetime
import json
import struct
import tempfile
import time
import unittest
from pathlib import Path

import pandas as pd
import pyarrow as pa
from cachekit import cache
from cachekit.serializers.arrow_serializer import ArrowSerializer
from cachekit.serializers.standard_serializer import StandardSerializer
from cachekit.serializers.wrapper import SerializationWrapper
from sides import COMPRESSIONS, CORRUPT, MISS, OTHER, Ck, PythonFiles
from tables import all_tables, multiindex_frame, numeric, same, strings, wide


class Interop(unittest.TestCase):
    def setUp(self):
        scratch = tempfile.TemporaryDirectory(prefix="ck-interop-")
        self.addCleanup(scratch.cleanup)
        self.store = Path(scratch.name) / "store"
        self.store.mkdir(mode=0o700)
        self.python = PythonFiles(self.store)
        self.ck = Ck(f"file:{self.store}", Path(scratch.name))

    def assert_same(self, got: pa.Table | None, expected: pa.Table):
        self.assertIsNotNone(got, "a miss")
        self.assertTrue(same(got, expected), f"{got.schema}\n{got.num_rows} rows, expected {expected.num_rows}")

    def entries(self) -> list[str]:
        return [path.name for path in self.store.iterdir() if path.is_file() and not path.name.startswith(".")]


class Tables(Interop):
    def test_ck_reads_what_python_writes(self):
        for name, table in all_tables().items():
            for compression in COMPRESSIONS:
                for write in (self.python.write, self.python.write_streamed):
                    with self.subTest(name, compression=compression, way=write.__name__):
                        write("key", table, compression)
                        self.assert_same(self.ck.read("key"), table)

    def test_python_reads_what_ck_writes(self):
        for name, table in all_tables().items():
            for compression in COMPRESSIONS:
                with self.subTest(name, compression=compression):
                    self.ck.write("key", table, compression)
                    for read in (self.python.read, self.python.read_mapped):
                        self.assert_same(read("key"), table)

    def test_each_replaces_the_entry_of_the_other(self):
        for key in ("plain", "ns:users:func:a.b:args:0f:1s", "ключ 鍵", "a/../b\n", "k" * 2000):
            with self.subTest(key=key):
                self.python.write(key, numeric(), "zstd")
                self.ck.write(key, strings(), "none")
                self.assert_same(self.python.read(key), strings())
                self.python.write(key, numeric(), "lz4")
                self.assert_same(self.ck.read(key), numeric())
                self.assertEqual(self.entries(), [self.python.path(key).name])
                self.ck.done("rm", key)

    def test_uncompressed_entries_of_ck_are_aligned_for_mapping(self):
        self.ck.write("key", numeric(), "none")
        self.assertEqual(self.python.path("key").read_bytes().index(b"ARROW1") % 64, 0)

    def test_ck_verifies_what_python_writes(self):
        for compression in COMPRESSIONS:
            self.python.write_streamed("key", wide(12 << 20), compression)
            self.ck.done("verify", "key")

    def test_a_damaged_entry_is_served_by_neither(self):
        for write in (self.python.write, self.ck.write):
            write("key", numeric(), "none")
            path = self.python.path("key")
            damaged = bytearray(path.read_bytes())
            damaged[len(damaged) // 2] ^= 1
            path.write_bytes(damaged)
            self.assertEqual(self.ck.run("verify", "key").returncode, CORRUPT)
            path.write_bytes(damaged)
            with self.assertRaisesRegex(Exception, "Checksum validation failed"):
                self.python.read("key")


class Expiry(Interop):
    def test_each_sees_the_expiry_that_the_other_sets(self):
        self.ck.write("by ck", numeric(), "none", ttl="1h")
        self.assertIn(self.python.ttl("by ck"), range(3590, 3601))
        self.python.write("by python", numeric(), "none", ttl=7200)
        self.assertIn(self.seconds_left("by python"), range(7190, 7201))
        for key in ("by ck", "by python"):
            self.assert_same(self.ck.read(key), numeric())
            self.assert_same(self.python.read(key), numeric())

    def test_an_entry_without_expiry_has_none_on_the_other_side(self):
        self.ck.write("by ck", numeric(), "none", ttl="never")
        self.assertIsNone(self.python.ttl("by ck"))
        self.assertTrue(self.python.backend.exists("by ck"))
        self.python.write("by python", numeric(), "none")
        self.assertIsNone(self.seconds_left("by python"))

    def test_each_sees_the_touch_of_the_other(self):
        self.python.write("key", numeric(), "zstd", ttl=60)
        self.ck.done("touch", "key", "2h")
        self.assertIn(self.python.ttl("key"), range(7190, 7201))
        self.assertTrue(self.python.touch("key", 300))
        self.assertIn(self.seconds_left("key"), range(290, 301))
        self.ck.done("touch", "key", "never")
        self.assertIsNone(self.python.ttl("key"))
        self.assert_same(self.python.read("key"), numeric())
        self.assert_same(self.ck.read("key"), numeric())

    def test_an_expired_entry_is_a_miss_on_both_sides(self):
        for write in (self.python.write, self.ck.write):
            for first, second in ((self.ck.read, self.python.read), (self.python.read, self.ck.read)):
                write("key", numeric(), "none")
                self.expire("key")
                self.assertIsNone(first("key"))
                self.assertIsNone(second("key"))
        self.ck.write("key", numeric(), "none")
        self.expire("key")
        self.assertEqual(self.ck.run("touch", "key", "1h").returncode, MISS)
        self.assertFalse(self.python.touch("key", 60))

    def test_an_entry_expires_on_both_sides_by_the_clock(self):
        self.ck.write("by ck", numeric(), "none", ttl="1s")
        self.python.write("by python", numeric(), "none", ttl=1)
        time.sleep(2)
        for key in ("by ck", "by python"):
            self.assertIsNone(self.ck.read(key))
            self.assertIsNone(self.python.read(key))

    def seconds_left(self, key: str) -> int | None:
        """What `ck stat` says of the expiry."""
        expiry = json.loads(self.ck.done("stat", key, "--json"))["expires_unix_seconds"]
        return None if expiry is None else expiry - int(time.time())

    def expire(self, key: str):
        """Moves the expiry of an entry into the past."""
        with self.python.path(key).open("r+b") as file:
            file.seek(6)
            file.write(struct.pack(">Q", int(time.time()) - 1))


class Removal(Interop):
    def test_what_one_removes_is_a_miss_for_the_other(self):
        self.python.write("key", numeric(), "none")
        self.ck.done("rm", "key")
        self.assertIsNone(self.python.read("key"))
        self.ck.write("key", numeric(), "none")
        self.assertTrue(self.python.backend.delete("key"))
        for command in (["get", "key"], ["stat", "key"], ["verify", "key"], ["touch", "key", "1h"]):
            self.assertEqual(self.ck.run(*command).returncode, MISS, command)

    def test_the_store_stays_usable_after_python_evicts(self):
        for i in range(8):
            self.ck.write(f"by ck {i}", wide(1 << 20), "none")
        PythonFiles(self.store, max_size_mb=4).write("by python", wide(1 << 20), "none")
        self.assertIsNone(self.ck.read("by ck 0"))
        self.assert_same(self.ck.read("by ck 7"), wide(1 << 20))
        self.assert_same(self.ck.read("by python"), wide(1 << 20))
        self.ck.write("by ck 0", numeric(), "none")
        self.assert_same(self.python.read("by ck 0"), numeric())


class Values(Interop):
    """Values of the default serializer: MessagePack there, JSON here."""

    values = (
        [0, 1, -1, 127, 128, 2**32, 2**63 - 1, -(2**63), 2**64 - 1]
        + [1.5, -0.0, 0.1, 1e300, 5e-324, None, True, False, [], {}, [1, [2, [3]]]]
        + ["", "text", "ü漢\0\"\\\n", "x" * 300_000, *("a" * length for length in (31, 32, 255, 256, 2**16))]
        + [{"b": 1, "a": {"c": [1, 2, 3]}}, list(range(100_000)), {f"k{i}": i / 7 for i in range(1000)}]
        + [[{"__datetime__": False, "value": 1}], {"": None, "ключ": "鍵"}]
    )

    def test_ck_prints_what_python_writes(self):
        for value in self.values:
            for checked in (True, False):
                with self.subTest(repr(value)[:40], checked=checked):
                    self.python.write_value("key", value, checked=checked)
                    self.assertEqual(repr(self.ck.read_json("key")), repr(value))
                    path = self.ck.scratch / "out.json"
                    self.ck.done("get", "key", "-o", path)
                    self.assertEqual(repr(json.loads(path.read_text())), repr(value))
                    self.ck.done("verify", "key")

    def test_python_reads_what_ck_writes(self):
        for value in self.values:
            for text in (json.dumps(value), json.dumps(value, ensure_ascii=False, indent=1)):
                with self.subTest(text[:40]):
                    self.ck.write_json("key", text)
                    self.assertEqual(repr(self.python.read_value("key")), repr(value))
                    self.assertEqual(repr(self.ck.read_json("key")), repr(value))

    def test_both_write_the_same_payload_and_metadata(self):
        for value in self.values:
            with self.subTest(repr(value)[:40]):
                self.python.write_value("key", value)
                theirs = SerializationWrapper.unwrap(self.python.backend.get("key"))
                self.ck.write_json("key", json.dumps(value))
                ours = SerializationWrapper.unwrap(self.python.backend.get("key"))
                self.assertEqual(ours[1:], theirs[1:])
                self.assertEqual(bytes(ours[0])[-16:], bytes(theirs[0])[-16:])
                self.assertEqual(StandardSerializer().deserialize(ours[0]), value)

    def test_dates_and_times_go_both_ways(self):
        when = datetime.datetime(2025, 11, 14, 10, 30, tzinfo=datetime.timezone.utc)
        value = {"when": when, "on": when.date(), "at": [when.time()]}
        self.python.write_value("key", value)
        text = self.ck.done("get", "key")
        self.assertEqual(json.loads(text)["on"], {"__date__": True, "value": "2025-11-14"})
        self.ck.write_json("other", text)
        self.assertEqual(self.python.read_value("other"), value)

    def test_what_json_does_not_have_is_an_error(self):
        for value in (b"bytes", [b"bytes"], {1: 2}, float("nan"), float("inf")):
            with self.subTest(repr(value)):
                self.python.write_value("key", value)
                result = self.ck.run("get", "key")
                self.assertEqual((result.returncode, result.stdout), (OTHER, ""))
                self.assertIn("cannot be written as JSON", result.stderr)
                self.assertEqual(self.entries(), [self.python.path("key").name])

    def test_integers_that_python_has_and_messagepack_has_not_are_refused_by_both(self):
        for value in (2**64, -(2**63) - 1):
            with self.assertRaises(Exception):
                self.python.write_value("key", value)
            result = self.ck.run("put", "key", "--json", "-", text=json.dumps([value]))
            self.assertEqual(result.returncode, OTHER)
            self.assertIn(str(value), result.stderr)
        self.assertEqual(self.entries(), [])

    def test_each_sees_the_expiry_that_the_other_sets(self):
        self.ck.write_json("by ck", "1", "--ttl", "1h")
        self.assertIn(self.python.ttl("by ck"), range(3590, 3601))
        self.python.write_value("by python", 1, ttl=7200)
        expiry = json.loads(self.ck.done("stat", "by python", "--json"))["expires_unix_seconds"]
        self.assertIn(expiry - int(time.time()), range(7190, 7201))

    def test_a_damaged_value_is_served_by_neither(self):
        for write in (self.python.write_value, lambda key, value: self.ck.write_json(key, json.dumps(value))):
            write("key", "some text")
            path = self.python.path("key")
            damaged = path.read_bytes().replace(b"some", b"sane")
            path.write_bytes(damaged)
            self.assertEqual(self.ck.run("verify", "key").returncode, CORRUPT)
            with self.assertRaisesRegex(Exception, "integrity"):
                self.python.read_value("key")
            result = self.ck.run("get", "key")
            self.assertEqual((result.returncode, result.stdout), (MISS, ""))
            self.assertEqual(self.entries(), [])

    def test_a_decorated_function_and_ck_take_what_the_other_stored(self):
        for options in ({}, {"serializer": StandardSerializer()}):
            with self.subTest(**options):
                keys = self.python.backend.keys
                keys.clear()

                @cache(backend=self.python.backend, ttl=600, l1_enabled=False, **options)
                def function():
                    return {"made": "by the function"}

                function()
                self.assertEqual(self.ck.read_json(keys[0]), {"made": "by the function"})
                self.ck.write_json(keys[0], '{"made": "by ck"}')
                # A value of a serializer given as an object is recorded under another name.
                self.assertEqual(function(), {"made": "by the function" if options else "by ck"})


class Decorator(Interop):
    """The client as it is used: a decorated function."""

    def test_ck_reads_what_a_decorated_function_stored(self):
        for serializer in ("arrow", ArrowSerializer(compression="none")):
            with self.subTest(serializer=str(serializer)):
                calls = []
                key, function = self.decorated(serializer, lambda: calls.append(1) or multiindex_frame())
                function()
                pd.testing.assert_frame_equal(self.ck.read(key[0]).to_pandas(), multiindex_frame())

    def test_a_decorated_function_takes_what_ck_stored(self):
        key, function = self.decorated("arrow", multiindex_frame)
        function()
        other = multiindex_frame() * 2
        for compression in COMPRESSIONS:
            self.ck.write(key[0], pa.Table.from_pandas(other), compression)
            pd.testing.assert_frame_equal(function(), other)

    def decorated(self, serializer, make):
        backend = self.python.backend
        backend.keys.clear()

        @cache(backend=backend, serializer=serializer, ttl=600, l1_enabled=False)
        def function():
            return make()

        return backend.keys, function


if __name__ == "__main__":
    unittest.main()
