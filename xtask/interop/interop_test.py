"""Each side reads what the other writes, sees its expiry, its touches and its deletions."""

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
from sides import COMPRESSIONS, CORRUPT, MISS, Ck, Python
from tables import all_tables, multiindex_frame, numeric, same, strings, wide


class Interop(unittest.TestCase):
    def setUp(self):
        scratch = tempfile.TemporaryDirectory(prefix="ck-interop-")
        self.addCleanup(scratch.cleanup)
        self.store = Path(scratch.name) / "store"
        self.store.mkdir(mode=0o700)
        self.python = Python(self.store)
        self.ck = Ck(self.store, Path(scratch.name))

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
        Python(self.store, max_size_mb=4).write("by python", wide(1 << 20), "none")
        self.assertIsNone(self.ck.read("by ck 0"))
        self.assert_same(self.ck.read("by ck 7"), wide(1 << 20))
        self.assert_same(self.ck.read("by python"), wide(1 << 20))
        self.ck.write("by ck 0", numeric(), "none")
        self.assert_same(self.python.read("by ck 0"), numeric())


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
