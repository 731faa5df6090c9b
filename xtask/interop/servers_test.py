"""On a Redis server and on memcached servers each side reads what the other writes, live."""

import json
import secrets
import socket
import subprocess
import tempfile
import time
import unittest
from pathlib import Path

import pandas as pd
import pyarrow as pa
import redis
from cachekit import cache
from cachekit.backends.memcached import MemcachedBackendConfig
from sides import COMPRESSIONS, CORRUPT, MISS, Ck, Python, RecordingMemcached, RecordingRedis
from tables import all_tables, multiindex_frame, numeric, same, strings, wide

# Keys as people and the decorator make them.
KEYS = ("plain", "ns:users:func:a.b:args:0f:1s", "ключ 鍵", "a/../b\n", "k" * 2000)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start(case: type[unittest.TestCase], port: int, *command: str) -> None:
    """A server that ends with the tests of `case`."""
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    case.addClassCleanup(server.wait)
    case.addClassCleanup(server.kill)
    for _ in range(500):
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            assert server.poll() is None, f"{command} ended"
            time.sleep(0.01)
    raise AssertionError(f"{command} does not answer")


class OverTheWire:
    """What holds for every server; subclasses start one and say how to reach it."""

    keys = KEYS

    def setUp(self):
        scratch = tempfile.TemporaryDirectory(prefix="ck-interop-")
        self.addCleanup(scratch.cleanup)
        self.python = Python(self.backend())
        self.ck = Ck(self.url, Path(scratch.name))
        # Keys of one test mean nothing to another.
        self.key = f"key {secrets.token_hex(8)}".replace(" ", ":")

    def assert_same(self, got: pa.Table | None, expected: pa.Table):
        self.assertIsNotNone(got, "a miss")
        self.assertTrue(same(got, expected), f"{got.schema}\n{got.num_rows} rows, expected {expected.num_rows}")

    def test_each_reads_the_tables_that_the_other_writes(self):
        for name, table in all_tables().items():
            for compression in COMPRESSIONS:
                with self.subTest(name, compression=compression):
                    if self.fits(table):
                        self.python.write(self.key, table, compression)
                        self.assert_same(self.ck.read(self.key), table)
                        self.ck.write(self.key, table, compression)
                        self.assert_same(self.python.read(self.key), table)

    def test_each_replaces_the_entry_of_the_other(self):
        for key in self.keys:
            with self.subTest(key=key):
                self.python.write(key, numeric(), "zstd")
                self.ck.write(key, strings(), "none")
                self.assert_same(self.python.read(key), strings())
                self.python.write(key, numeric(), "lz4")
                self.assert_same(self.ck.read(key), numeric())
                self.ck.done("rm", key)
                self.assertIsNone(self.python.read(key))

    def test_values_go_both_ways(self):
        for value in (None, 2**64 - 1, -0.0, "ü漢\0", [1, [2]], {"a": {"b": list(range(10_000))}}):
            with self.subTest(repr(value)[:40]):
                self.python.write_value(self.key, value)
                self.assertEqual(repr(self.ck.read_json(self.key)), repr(value))
                self.ck.write_json(self.key, json.dumps(value))
                self.assertEqual(repr(self.python.read_value(self.key)), repr(value))

    def test_what_one_removes_is_a_miss_for_the_other(self):
        self.python.write(self.key, numeric(), "none")
        self.ck.done("rm", self.key)
        self.assertIsNone(self.python.read(self.key))
        self.ck.write(self.key, numeric(), "none")
        self.assertTrue(self.python.backend.exists(self.key))
        self.assertTrue(self.python.backend.delete(self.key))
        for command in (["get"], ["stat"], ["verify"]):
            self.assertEqual(self.ck.run(*command, self.key).returncode, MISS, command)

    def test_each_sees_the_expiry_and_the_touch_of_the_other(self):
        self.python.write(self.key, numeric(), "none", ttl=7200)
        self.assert_left(7200)
        self.assertTrue(self.touch(300))
        self.assert_left(300)
        self.ck.done("touch", self.key, "1s")
        self.assertIsNotNone(self.python.read(self.key))
        self.ck.write(other := self.key + "b", numeric(), "none", ttl="1s")
        time.sleep(2.1)
        for key in (self.key, other):
            self.assertIsNone(self.python.read(key))
            self.assertIsNone(self.ck.read(key))
        self.python.write(self.key, numeric(), "none")
        self.assertIsNone(self.expiry())

    def test_a_damaged_entry_is_served_by_neither(self):
        for write in (self.python.write, self.ck.write):
            write(self.key, numeric(), "none")
            damaged = bytearray(self.python.backend.get(self.key))
            damaged[len(damaged) // 2] ^= 1
            self.python.backend.set(self.key, bytes(damaged))
            with self.assertRaisesRegex(Exception, "Checksum validation failed"):
                self.python.read(self.key)
            self.assertEqual(self.ck.run("verify", self.key).returncode, CORRUPT)

    def test_a_decorated_function_and_ck_take_what_the_other_stored(self):
        calls = []
        function = self.decorated(lambda: calls.append(1) or multiindex_frame())
        function()
        key = self.python.backend.keys[-1]
        pd.testing.assert_frame_equal(self.ck.read(key).to_pandas(), multiindex_frame())
        other = multiindex_frame() * 2
        for compression in COMPRESSIONS:
            self.ck.write(key, pa.Table.from_pandas(other), compression)
            pd.testing.assert_frame_equal(function(), other)
        self.assertEqual(len(calls), 1)

    def test_an_entry_in_chunks_is_a_miss_for_a_decorated_function(self):
        calls = []
        function = self.decorated(lambda: calls.append(1) or multiindex_frame())
        function()
        key = self.python.backend.keys[-1]
        chunked = Ck(self.chunked_url, self.ck.scratch)
        chunked.write(key, wide(5 << 20), "none")
        self.assert_same(self.ck.read(key), wide(5 << 20))
        pd.testing.assert_frame_equal(function(), multiindex_frame())
        self.assertEqual(len(calls), 2)
        # Which stores its result, over the manifest.
        pd.testing.assert_frame_equal(self.ck.read(key).to_pandas(), multiindex_frame())

    def decorated(self, make):
        @cache(backend=self.python.backend, serializer="arrow", ttl=600, l1_enabled=False, namespace=self.key)
        def function():
            return make()

        return function

    def expiry(self) -> int | None:
        """The Unix second in which the entry expires, as `ck stat` says."""
        return json.loads(self.ck.done("stat", self.key, "--json"))["expires_unix_seconds"]

    def assert_left(self, ttl: int):
        """That the entry lives for `ttl` seconds from a moment ago; servers count parts of a second, `ck` rounds up."""
        left = self.expiry() - time.time()
        self.assertGreater(left, ttl - 10)
        self.assertLess(left, ttl + 1)


class Redis(OverTheWire, unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        port = free_port()
        start(cls, port, "redis-server", "--port", str(port), "--save", "", "--bind", "127.0.0.1")
        cls.url = f"redis://127.0.0.1:{port}"
        cls.chunked_url = f"{cls.url}?single_value_bytes=64KiB&chunk_bytes=256KiB"

    def backend(self):
        return RecordingRedis(self.url)

    def fits(self, _table) -> bool:
        return True

    def touch(self, ttl: int) -> bool:
        # The client's own touch is for stores of its service; on Redis it is this command.
        return redis.Redis.from_url(self.url).expire(self.key, ttl)

    def test_the_server_keeps_the_same_seconds_for_both(self):
        client = redis.Redis.from_url(self.url)
        self.ck.write(self.key, numeric(), "none", ttl="1h")
        self.assertIn(client.ttl(self.key), range(3590, 3601))
        self.ck.done("touch", self.key, "never")
        self.assertEqual(client.ttl(self.key), -1)

    def test_a_large_table_is_one_value_for_both(self):
        table = wide(40 << 20)
        self.ck.write(self.key, table, "none")
        self.assert_same(self.python.read(self.key), table)
        self.python.write(self.key, table, "none")
        self.assert_same(self.ck.read(self.key), table)


class Memcached(OverTheWire, unittest.TestCase):
    # What the client refuses to send is between it and the server: spaces, other letters, 250 bytes.
    keys = ("plain", "ns:users:func:a.b:args:0f:1s", "k" * 250)

    @classmethod
    def setUpClass(cls):
        cls.servers = []
        for _ in range(3):
            port = free_port()
            address = ("-l", "127.0.0.1", "-p", str(port), "-U", "0")
            start(cls, port, "memcached", *address, "-u", "root", "-m", "256")
            cls.servers.append(f"127.0.0.1:{port}")
        cls.url = cls.chunked_url = "memcached://" + ",".join(cls.servers)

    def backend(self):
        return RecordingMemcached(MemcachedBackendConfig(servers=self.servers))

    def fits(self, table) -> bool:
        return table.nbytes < 900_000

    def touch(self, ttl: int) -> bool:
        return self.python.touch(self.key, ttl)

    def test_both_find_an_entry_on_the_same_server(self):
        for i in range(60):
            self.python.write(key := f"{self.key}{i}", numeric(), "zstd")
            self.assertEqual(self.ck.run("stat", key).returncode, 0)
            self.ck.write(key, strings(), "zstd")
            self.assert_same(self.python.read(key), strings())


if __name__ == "__main__":
    unittest.main()
