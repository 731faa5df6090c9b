"""Encrypted entries: with the key each side reads what the other encrypts, and neither takes anything else."""

import datetime
import json
import logging
import secrets
import tempfile
import unittest
import uuid
from pathlib import Path

import pandas as pd
import pyarrow as pa
import redis
from cachekit import cache
from cachekit.backends.file.config import FileBackendConfig
from cachekit.backends.memcached import MemcachedBackendConfig
from cachekit.backends.redis.provider import PerRequestRedisBackend
from cachekit.cache_handler import CacheSerializationHandler
from cachekit.decorators.tenant_context import ArgumentNameExtractor
from cachekit.serializers.arrow_serializer import ArrowSerializer
from cachekit.serializers.base import SerializationError, SuspiciousCacheEntryError
from cachekit.serializers.encryption_wrapper import DecryptionAuthenticationError, EncryptionError, TenantMismatchError
from cachekit.serializers.standard_serializer import StandardSerializer
from cachekit.serializers.wrapper import SerializationWrapper
from servers_test import free_port, start
from sides import (
    COMPRESSIONS,
    CORRUPT,
    OTHER,
    USAGE,
    Ck,
    Keys,
    Python,
    PythonEncrypting,
    Recording,
    RecordingFiles,
    RecordingMemcached,
    RecordingRedis,
)
from tables import all_tables, multiindex_frame, numeric, same, strings, wide

OLD, NEW, STRANGE = (secrets.token_hex(32) for _ in range(3))
TENANT, OTHER_TENANT = (str(uuid.uuid4()) for _ in range(2))

VALUES = (
    [0, 2**64 - 1, -(2**63), 1.5, -0.0, None, True, [], {}, [1, [2, [3]]], "", "ü漢\0\"\\\n", "x" * 300_000]
    + [{"b": 1, "a": {"c": [1, 2, 3]}}, list(range(10_000)), {"": None, "ключ": "鍵"}]
)


def setUpModule():
    # Of every entry that it refuses the client logs a warning.
    logging.disable()
    unittest.addModuleCleanup(logging.disable, logging.NOTSET)


def small_tables() -> dict[str, pa.Table]:
    """What `ck` stores in the client's form."""
    return {name: table for name, table in all_tables().items() if table.nbytes < 900_000}


class Encrypted:
    """What holds for every store; subclasses say how to reach it."""

    def setUp(self):
        scratch = tempfile.TemporaryDirectory(prefix="ck-interop-")
        self.addCleanup(scratch.cleanup)
        self.scratch = Path(scratch.name)
        self.python = PythonEncrypting(self.backend(), Keys(OLD))
        self.ck = Ck(self.url, self.scratch, Keys(OLD))
        # Keys of one test mean nothing to another.
        self.key = f"key:{secrets.token_hex(8)}"

    def sides(self, keys: Keys) -> tuple[PythonEncrypting, Ck]:
        return self.python.with_keys(keys), self.ck.with_keys(keys)

    def assert_same(self, got: pa.Table | None, expected: pa.Table):
        self.assertIsNotNone(got, "a miss")
        self.assertTrue(same(got, expected), f"{got.schema}\n{got.num_rows} rows, expected {expected.num_rows}")

    def assert_ck_refuses(self, key: str, keys: Keys | None = None, says: str = ""):
        """An exit code, a reason, and nothing of the entry."""
        ck = self.ck.with_keys(keys or self.ck.keys)
        path = self.scratch / "refused.arrow"
        for command in (["get", key], ["get", key, "-o", path], ["verify", key]):
            result = ck.run(*command)
            self.assertEqual((result.returncode, result.stdout), (CORRUPT, ""), f"{result.args}\n{result.stderr}")
            self.assertIn(says, result.stderr)
        self.assertFalse(path.exists())

    def assert_python_refuses(self, key: str, keys: Keys | None = None, error=DecryptionAuthenticationError):
        python = self.python.with_keys(keys or self.python.keys)
        for serializer in ("default", "arrow"):
            with self.assertRaises(SerializationError):
                python.read_value(key, serializer)
        with self.assertRaises(error):
            python.read_value(key, SerializationWrapper.unwrap(python.backend.get(key))[2])

    def assert_python_decodes_nothing(self, key: str):
        """By no serializer, with encryption or without."""
        serializers = ("default", "arrow", StandardSerializer(), ArrowSerializer(return_format="arrow"))
        for serializer in serializers:
            with self.assertRaises(SerializationError):
                self.python.read_value(key, serializer)
        with self.python.keys.in_force():
            for serializer in (*serializers, "auto"):
                handler = CacheSerializationHandler(serializer, encryption=False)
                with self.assertRaises(SerializationError):
                    handler.deserialize_data(self.python.backend.get(key), cache_key=key)

    def metadata(self) -> dict:
        return SerializationWrapper.unwrap(self.python.backend.get(self.key))[1]

    def both_write(self):
        """Each way to have an entry under `self.key`, and what reads it on both sides."""

        def python_reads_table(python, key):
            self.assert_same(python.read(key), numeric())

        def ck_reads_table(ck, key):
            self.assert_same(ck.read(key), numeric())

        def python_reads_value(python, key):
            self.assertEqual(python.read_value(key), {"n": [1, "text"]})

        def ck_reads_value(ck, key):
            self.assertEqual(ck.read_json(key), {"n": [1, "text"]})

        table, value = (python_reads_table, ck_reads_table), (python_reads_value, ck_reads_value)
        yield "table by python", lambda python, ck: python.write(self.key, numeric(), "zstd"), *table
        yield "table by ck", lambda python, ck: ck.write(self.key, numeric(), "zstd"), *table
        yield "value by python", lambda python, ck: python.write_value(self.key, {"n": [1, "text"]}), *value
        yield "value by ck", lambda python, ck: ck.write_json(self.key, '{"n":[1,"text"]}'), *value

    def secure(self, make, backend=None, **options):
        """A decorated function that encrypts with the keys in force."""

        @cache.secure(backend=backend or self.python.backend, ttl=600, l1_enabled=False, namespace=self.key, **options)
        def function():
            return make()

        return function


class Everywhere(Encrypted):
    def test_ck_reads_the_tables_that_python_encrypts(self):
        for name, table in small_tables().items():
            for compression in COMPRESSIONS:
                with self.subTest(name, compression=compression):
                    self.python.write(self.key, table, compression)
                    self.assert_same(self.ck.read(self.key), table)
                    self.ck.done("verify", self.key)

    def test_python_reads_the_tables_that_ck_encrypts(self):
        for name, table in small_tables().items():
            for compression in COMPRESSIONS:
                with self.subTest(name, compression=compression):
                    self.ck.write(self.key, table, compression)
                    self.assert_same(self.python.read(self.key), table)
                    self.assert_same(self.ck.read(self.key), table)

    def test_values_go_both_ways(self):
        for value in VALUES:
            for checked in (True, False):
                with self.subTest(repr(value)[:40], checked=checked):
                    self.python.write_value(self.key, value, checked=checked)
                    self.assertEqual(repr(self.ck.read_json(self.key)), repr(value))
                    self.ck.done("verify", self.key)
            with self.subTest(repr(value)[:40], by="ck"):
                self.ck.write_json(self.key, json.dumps(value))
                self.assertEqual(repr(self.python.read_value(self.key)), repr(value))
                self.assertEqual(repr(self.ck.read_json(self.key)), repr(value))

    def test_what_the_old_key_encrypted_is_read_with_it_as_a_previous_key(self):
        for name, write, python_reads, ck_reads in self.both_write():
            for keys in (Keys(NEW, (OLD,)), Keys(NEW, (STRANGE, OLD))):
                with self.subTest(name, previous=len(keys.previous)):
                    write(*self.sides(Keys(OLD)))
                    python, ck = self.sides(keys)
                    python_reads(python, self.key)
                    ck_reads(ck, self.key)

    def test_writes_after_a_rotation_use_the_new_key(self):
        for name, write, python_reads, ck_reads in self.both_write():
            with self.subTest(name):
                write(*self.sides(Keys(OLD)))
                write(*self.sides(Keys(NEW, (OLD,))))
                python, ck = self.sides(Keys(NEW))
                python_reads(python, self.key)
                ck_reads(ck, self.key)
                self.assert_python_refuses(self.key, Keys(OLD))
                self.assert_ck_refuses(self.key, Keys(OLD), "encrypted with a key that is not here")

    def test_without_its_key_an_entry_is_read_by_neither_and_stays(self):
        for name, write, python_reads, ck_reads in self.both_write():
            with self.subTest(name):
                write(*self.sides(Keys(OLD)))
                for keys in (Keys(NEW), Keys(STRANGE), Keys(STRANGE, (NEW,)), Keys(NEW, tenant=TENANT)):
                    self.assert_python_refuses(self.key, keys)
                    self.assert_ck_refuses(self.key, keys)
                python_reads(self.python, self.key)
                ck_reads(self.ck, self.key)

    def test_for_another_tenant_ck_reads_nothing_and_the_entry_stays(self):
        # The client in single-tenant mode takes the tenant from the entry: see `Tenants`.
        for name, write, _, ck_reads in self.both_write():
            for own, other in (("", TENANT), (TENANT, ""), (TENANT, OTHER_TENANT)):
                with self.subTest(name, own=own, other=other):
                    write(*self.sides(Keys(OLD, tenant=own)))
                    self.assert_ck_refuses(self.key, Keys(OLD, tenant=other), "another tenant's")
                    ck_reads(self.ck.with_keys(Keys(OLD, tenant=own)), self.key)

    def test_a_tenant_is_the_same_on_both_sides(self):
        for name, write, python_reads, ck_reads in self.both_write():
            with self.subTest(name):
                python, ck = self.sides(Keys(OLD, tenant=TENANT))
                write(python, ck)
                self.assertEqual(self.metadata()["tenant_id"], TENANT)
                python_reads(python, self.key)
                ck_reads(ck, self.key)

    def test_without_a_uuid_the_tenant_is_default(self):
        for name, write, _, _ in self.both_write():
            with self.subTest(name):
                write(self.python, self.ck)
                self.assertEqual(self.metadata()["tenant_id"], "default")

    def test_an_entry_under_another_key_is_read_by_neither(self):
        for name, write, _, _ in self.both_write():
            with self.subTest(name):
                write(self.python, self.ck)
                entry = self.python.backend.get(self.key)
                self.python.backend.set(moved := self.key + "b", entry)
                self.assert_python_refuses(moved)
                self.assert_ck_refuses(moved)
                self.assertEqual(self.python.backend.get(moved), entry)

    def test_an_entry_with_a_flipped_bit_is_read_by_neither(self):
        for name, write, _, _ in self.both_write():
            write(self.python, self.ck)
            entry = self.python.backend.get(self.key)
            payload = len(entry) - len(SerializationWrapper.unwrap(entry)[0])
            places = {"nonce": payload, "start": payload + 12, "end": len(entry) - 17, "tag": len(entry) - 1}
            for place, at in places.items():
                with self.subTest(name, place=place):
                    damaged = bytearray(entry)
                    damaged[at] ^= 1
                    self.python.backend.set(self.key, bytes(damaged))
                    self.assert_python_refuses(self.key)
                    self.assert_ck_refuses(self.key)
                    self.assertEqual(self.python.backend.get(self.key), bytes(damaged))

    def test_a_cut_entry_is_read_by_neither(self):
        for name, write, _, _ in self.both_write():
            write(self.python, self.ck)
            entry = self.python.backend.get(self.key)
            payload = len(entry) - len(SerializationWrapper.unwrap(entry)[0])
            for length in (payload, payload + 12, payload + 27, payload + 28, len(entry) - 1):
                with self.subTest(name, length=length - payload):
                    self.python.backend.set(self.key, entry[:length])
                    self.assert_python_refuses(self.key)
                    self.assert_ck_refuses(self.key)

    def test_plain_entries_are_refused_by_both(self):
        plain = Python(self.python.backend)
        table, value = numeric(), '{"n":1}'
        for name, write in {
            "table by python": lambda: plain.backend.set(self.key, plain_arrow(table)),
            "table by ck": lambda: self.ck.with_keys(None).write(self.key, table, "none"),
            "value by python": lambda: plain.write_value(self.key, json.loads(value)),
            "value by ck": lambda: self.ck.with_keys(None).write_json(self.key, value),
        }.items():
            with self.subTest(name):
                write()
                self.assert_python_refuses(self.key, error=SuspiciousCacheEntryError)
                self.assert_ck_refuses(self.key, says="not encrypted")

    def test_a_large_table_is_data_to_ck_and_an_error_to_python(self):
        for compression in COMPRESSIONS:
            with self.subTest(compression=compression):
                table = wide(3 << 20)
                self.ck.write(self.key, table, compression)
                self.assert_same(self.ck.read(self.key), table)
                self.assert_python_decodes_nothing(self.key)
                self.assert_same(self.ck.read(self.key), table)

    def test_a_large_table_is_a_miss_to_a_decorated_function(self):
        calls = []
        with Keys(OLD).in_force():
            for serializer in ("arrow", "default", ArrowSerializer()):
                with self.subTest(serializer=str(serializer)):
                    frame = multiindex_frame() if serializer != "default" else "no frame"
                    function = self.secure(lambda made=frame: calls.append(1) or made, serializer=serializer)
                    function()
                    self.ck.write(self.python.backend.keys[-1], wide(3 << 20), "none")
                    calls.clear()
                    self.assertEqual(repr(function()), repr(frame))
                    self.assertEqual(len(calls), 1)
                    # Which stores its result, over the table.
                    self.assertEqual(repr(function()), repr(frame))
                    self.assertEqual(len(calls), 1)

    def test_a_decorated_function_and_ck_take_the_tables_that_the_other_stored(self):
        calls = []
        with Keys(OLD).in_force():
            function = self.secure(lambda: calls.append(1) or multiindex_frame(), serializer="arrow")
            function()
            key = self.python.backend.keys[-1]
            pd.testing.assert_frame_equal(self.ck.read(key).to_pandas(), multiindex_frame())
            other = multiindex_frame() * 2
            for compression in COMPRESSIONS:
                self.ck.write(key, pa.Table.from_pandas(other), compression)
                pd.testing.assert_frame_equal(function(), other)
        self.assertEqual(len(calls), 1)

    def test_a_decorated_function_and_ck_take_the_values_that_the_other_stored(self):
        for options in ({}, {"serializer": StandardSerializer()}):
            with self.subTest(**options), Keys(OLD).in_force():
                function = self.secure(lambda: {"made": "by the function"}, **options)
                function()
                key = self.python.backend.keys[-1]
                self.assertEqual(self.ck.read_json(key), {"made": "by the function"})
                self.ck.write_json(key, '{"made": "by ck"}')
                # A value of a serializer given as an object is recorded under another name.
                self.assertEqual(function(), {"made": "by the function" if options else "by ck"})

    def test_a_decorated_function_reads_what_ck_encrypted_before_a_rotation(self):
        with Keys(OLD).in_force():
            self.secure(lambda: 0)()
            key = self.python.backend.keys[-1]
        self.ck.write_json(key, '"by ck"')
        with Keys(NEW, (OLD,)).in_force():
            self.assertEqual(self.secure(lambda: "anew")(), "by ck")
        # Reading does not encrypt anew.
        self.assertEqual(self.ck.read_json(key), "by ck")

    def test_a_decorated_function_without_the_key_misses_and_replaces_the_entry(self):
        with Keys(OLD).in_force():
            self.secure(lambda: 0)()
            key = self.python.backend.keys[-1]
        self.ck.write_json(key, '"by ck"')
        with Keys(NEW).in_force():
            self.assertEqual(self.secure(lambda: "anew")(), "anew")
        self.assertEqual(self.ck.with_keys(Keys(NEW)).read_json(key), "anew")
        self.assert_ck_refuses(key, Keys(OLD), "encrypted with a key that is not here")

    def test_a_decorated_function_that_fails_closed_leaves_the_entry_to_ck(self):
        with Keys(OLD).in_force():
            self.secure(lambda: 0)()
            key = self.python.backend.keys[-1]
        self.ck.write_json(key, '"by ck"')
        with Keys(NEW).in_force(), self.assertRaises(DecryptionAuthenticationError):
            self.secure(lambda: "anew", fail_closed=True)()
        self.assertEqual(self.ck.read_json(key), "by ck")


def plain_arrow(table: pa.Table) -> bytes:
    """A plain entry of the serializer `arrow`."""
    payload, metadata = ArrowSerializer().serialize(table)
    return SerializationWrapper.wrap(payload, metadata.to_dict(), "arrow")


class InFiles(Encrypted):
    def backend(self):
        self.store = self.scratch / "store"
        self.store.mkdir(mode=0o700)
        return RecordingFiles(FileBackendConfig(cache_dir=self.store, max_size_mb=1024, max_value_mb=512))

    @property
    def url(self) -> str:
        return f"file:{self.store}"


class Files(InFiles, Everywhere, unittest.TestCase):
    pass


class Forms(InFiles, unittest.TestCase):
    """What is not a question of the store."""

    def test_both_write_the_same_header(self):
        for keys in (Keys(OLD), Keys(NEW, (OLD,), TENANT)):
            python, ck = self.sides(keys)
            for compression in COMPRESSIONS:
                with self.subTest(compression=compression, tenant=keys.tenant):
                    python.write(self.key, numeric(), compression)
                    theirs = self.header()
                    ck.write(self.key, numeric(), compression)
                    self.assertEqual(self.header(), theirs)
            with self.subTest("value", tenant=keys.tenant):
                python.write_value(self.key, [1])
                theirs = self.header()
                ck.write_json(self.key, "[1]")
                self.assertEqual(self.header(), theirs)

    def test_both_find_the_same_fingerprint_and_ck_shows_it_without_the_key(self):
        for keys in (Keys(OLD), Keys(NEW, (OLD,)), Keys(OLD, tenant=TENANT)):
            python, ck = self.sides(keys)
            for name, write, _, _ in self.both_write():
                with self.subTest(name, tenant=keys.tenant):
                    write(python, ck)
                    self.assertEqual(self.metadata()["key_fingerprint"], python.fingerprint())
                    shown = json.loads(ck.with_keys(None).done("inspect", self.key, "--json"))
                    self.assertEqual(shown["key_fingerprint"], python.fingerprint())

    def test_long_keys_and_capital_digits_mean_the_same_to_both(self):
        for master in (secrets.token_hex(48), secrets.token_hex(32).upper(), f" {OLD}\n"):
            for previous in ((), (secrets.token_hex(40).upper(), STRANGE)):
                with self.subTest(digits=len(master), previous=len(previous)):
                    python, ck = self.sides(Keys(master, previous))
                    python.write(self.key, numeric(), "lz4")
                    self.assert_same(ck.read(self.key), numeric())
                    ck.write(self.key, strings(), "lz4")
                    self.assert_same(python.read(self.key), strings())
                    for old in previous:
                        ck.with_keys(Keys(old)).write_json(self.key, "1")
                        self.assertEqual(python.read_value(self.key), 1)
                        python.with_keys(Keys(old)).write_value(self.key, 2)
                        self.assertEqual(ck.read_json(self.key), 2)

    def test_keys_that_one_refuses_the_other_refuses(self):
        for keys in (
            Keys(OLD[:-2]),
            Keys(OLD[:-1]),
            Keys("xy" * 32),
            Keys(OLD, (OLD,)),
            Keys(OLD, (NEW[:-2],)),
            Keys(OLD, tuple(secrets.token_hex(32) for _ in range(4))),
            Keys(OLD, tenant="acme"),
            Keys(OLD, tenant=TENANT[:-1]),
        ):
            with self.subTest(master=len(keys.master), previous=len(keys.previous), tenant=keys.tenant):
                python, ck = self.sides(keys)
                with self.assertRaises((ValueError, SerializationError)):
                    python.write_value(self.key, 1)
                self.assertEqual(ck.run("put", self.key, "--json", "-", text="1").returncode, USAGE)
                self.assertIsNone(python.backend.get(self.key))

    def test_any_text_is_a_cache_key_that_binds(self):
        for key in ("plain", "ns:users:func:a.b:args:0f:1s", "ключ 鍵", "a/../b\n", "k" * 2000):
            with self.subTest(key=key):
                self.python.write(key, numeric(), "zstd")
                self.assert_same(self.ck.read(key), numeric())
                self.ck.write(key, strings(), "none")
                self.assert_same(self.python.read(key), strings())
                self.python.write_value(key, key)
                self.assertEqual(self.ck.read_json(key), key)

    def test_ck_reads_large_tables_that_python_encrypts_at_once(self):
        for compression in COMPRESSIONS:
            with self.subTest(compression=compression):
                self.python.write(self.key, wide(12 << 20), compression)
                self.assert_same(self.ck.read(self.key), wide(12 << 20))
                self.ck.done("verify", self.key)

    def test_tables_of_up_to_a_mebibyte_are_read_by_python(self):
        for rows, is_small in (((1 << 20) - 8192, True), (1 << 20, False)):
            table = pa.table({"n": pa.array(range(rows), pa.uint64()).cast(pa.uint8(), safe=False)})
            with self.subTest(rows=rows):
                self.ck.write(self.key, table, "none")
                self.assert_same(self.ck.read(self.key), table)
                if is_small:
                    self.assert_same(self.python.read(self.key), table)
                else:
                    with self.assertRaises(SerializationError):
                        self.python.read_value(self.key, "arrow")

    def test_a_large_table_that_was_moved_or_changed_is_read_by_neither(self):
        self.ck.write(self.key, wide(3 << 20), "none")
        entry = self.python.backend.get(self.key)
        self.python.backend.set(moved := self.key + "b", entry)
        self.assert_ck_refuses(moved)
        self.assert_python_decodes_nothing(moved)
        payload = len(entry) - len(SerializationWrapper.unwrap(entry)[0])
        for at in (payload, len(entry) // 2, len(entry) - 1):
            damaged = bytearray(entry)
            damaged[at] ^= 1
            self.python.backend.set(self.key, bytes(damaged))
            self.assert_ck_refuses(self.key)
            self.assert_python_decodes_nothing(self.key)

    def test_large_values_go_both_ways(self):
        # 4 MiB that hardly compress.
        value = {"text": secrets.token_hex(2 << 20)}
        self.python.write_value(self.key, value)
        self.assertEqual(self.ck.read_json(self.key), value)
        self.ck.write_json(self.key, json.dumps(value))
        self.assertEqual(self.python.read_value(self.key), value)

    def test_dates_and_times_go_both_ways(self):
        when = datetime.datetime(2025, 11, 14, 10, 30, tzinfo=datetime.timezone.utc)
        value = {"when": when, "on": when.date(), "at": [when.time()]}
        self.python.write_value(self.key, value)
        text = self.ck.done("get", self.key)
        self.assertEqual(json.loads(text)["on"], {"__date__": True, "value": "2025-11-14"})
        self.ck.write_json(other := self.key + "b", text)
        self.assertEqual(self.python.read_value(other), value)

    def test_without_any_key_ck_says_encrypted_and_python_has_an_error(self):
        for name, write, _, _ in self.both_write():
            with self.subTest(name):
                write(self.python, self.ck)
                result = self.ck.with_keys(None).run("get", self.key)
                self.assertEqual((result.returncode, result.stdout), (OTHER, ""))
                self.assertIn("is encrypted", result.stderr)
                entry = self.python.backend.get(self.key)
                serializer = SerializationWrapper.unwrap(entry)[2]
                with Keys("").in_force(), self.assertRaisesRegex(EncryptionError, "Master key required"):
                    CacheSerializationHandler(serializer).deserialize_data(entry, cache_key=self.key)

    def test_ck_reads_the_tables_of_a_serializer_given_as_an_object(self):
        # It is recorded under the name of its class.
        with Keys(OLD).in_force():
            self.secure(multiindex_frame, serializer=ArrowSerializer(compression="none"))()
        key = self.python.backend.keys[-1]
        self.assertEqual(self.ck.read(key).num_rows, len(multiindex_frame()))
        header = json.loads(self.ck.with_keys(None).done("inspect", key, "--json"))["header"]
        self.assertEqual(header["s"], "ArrowSerializer")

    def test_ck_refuses_a_header_with_any_bit_flipped(self):
        self.python.write_value(self.key, "text")
        path = Path(self.python.backend._key_to_path(self.key))
        stored = path.read_bytes()
        entry = self.python.backend.get(self.key)
        start = len(stored) - len(entry)
        end = len(stored) - len(SerializationWrapper.unwrap(entry)[0])
        for at in range(start, end):
            for bit in (1 << at % 8, 1 << (at + 3) % 8):
                damaged = bytearray(stored)
                damaged[at] ^= bit
                path.write_bytes(damaged)
                result = self.ck.run("get", self.key)
                self.assertEqual((result.returncode, result.stdout), (CORRUPT, ""), bytes(damaged[start:end]))

    def header(self) -> bytes:
        entry = self.python.backend.get(self.key)
        return entry[: len(entry) - len(SerializationWrapper.unwrap(entry)[0])]


class Tenants(InFiles, unittest.TestCase):
    def test_a_uuid_in_another_spelling_is_the_same_tenant(self):
        name = str(uuid.UUID(int=0xABCDEF))
        for spelling in (name.upper(), f"{{{name}}}", f"urn:uuid:{name}", name.replace("-", "")):
            with self.subTest(spelling=spelling):
                python, ck = self.sides(Keys(OLD, tenant=spelling))
                python.write_value(self.key, "by python")
                self.assertEqual(self.metadata()["tenant_id"], name)
                self.assertEqual(ck.read_json(self.key), "by python")
                ck.write_json(self.key, '"by ck"')
                self.assertEqual(python.read_value(self.key), "by ck")
                self.assertEqual(self.metadata()["tenant_id"], name)

    def test_a_function_of_many_tenants_and_ck_read_what_the_other_stored(self):
        with Keys(OLD).in_force():
            function = self.of_tenants(lambda: "by python")
            function(tenant_id=TENANT)
            key = self.python.backend.keys[-1]
            of_tenant = self.ck.with_keys(Keys(OLD, tenant=TENANT))
            self.assertEqual(of_tenant.read_json(key), "by python")
            of_tenant.write_json(key, '"by ck"')
            self.assertEqual(function(tenant_id=TENANT), "by ck")

    def test_a_function_of_many_tenants_reads_nothing_of_another_tenant(self):
        with Keys(OLD).in_force():
            function = self.of_tenants(lambda: "by python", fail_closed=True)
            function(tenant_id=TENANT)
            key = self.python.backend.keys[-1]
            of_other = self.ck.with_keys(Keys(OLD, tenant=OTHER_TENANT))
            of_other.write_json(key, '"by ck"')
            with self.assertRaises(TenantMismatchError):
                function(tenant_id=TENANT)
            self.assertEqual(of_other.read_json(key), "by ck")
            self.assertEqual(self.of_tenants(lambda: "anew")(tenant_id=TENANT), "anew")
            self.assertEqual(self.ck.with_keys(Keys(OLD, tenant=TENANT)).read_json(key), "anew")

    def test_the_wrapper_of_a_tenant_reads_nothing_of_another_tenant(self):
        self.ck.write(self.key, numeric(), "zstd")
        with self.assertRaises(TenantMismatchError):
            self.python.with_keys(Keys(OLD, tenant=TENANT)).read(self.key)
        self.assert_same(self.python.read(self.key), numeric())

    def test_python_in_single_tenant_mode_reads_the_entries_of_every_tenant(self):
        # It derives the key for the tenant that the header names: the tenant is no boundary there.
        for own, other in (("", TENANT), (TENANT, ""), (TENANT, OTHER_TENANT)):
            self.ck.with_keys(Keys(OLD, tenant=own)).write_json(self.key, '"by ck"')
            self.assertEqual(self.python.with_keys(Keys(OLD, tenant=other)).read_value(self.key), "by ck")

    def of_tenants(self, make, **options):
        @cache.secure(
            backend=self.python.backend,
            ttl=600,
            l1_enabled=False,
            namespace=self.key,
            # One cache key for all of them.
            key=lambda tenant_id: "shared",
            tenant_extractor=ArgumentNameExtractor("tenant_id"),
            **options,
        )
        def function(tenant_id):
            return make()

        return function


class Prefixed:
    """The cache key of an entry is the one with the prefix, which a store may add on either side."""

    def test_each_reads_what_the_other_stores_behind_the_same_prefix(self):
        python, ck = self.prefixed_python(), self.prefixed_ck()
        for name, write, python_reads, ck_reads in self.both_write():
            with self.subTest(name):
                write(python, ck)
                python_reads(python, self.key)
                ck_reads(ck, self.key)

    def test_a_decorated_function_and_ck_without_a_prefix_take_what_the_other_stored(self):
        backend = self.prefixed_backend()
        with Keys(OLD).in_force():
            function = self.secure(lambda: "by the function", backend=backend)
            function()
            key = self.prefix + backend.keys[-1]
            self.assertEqual(self.ck.read_json(key), "by the function")
            self.ck.write_json(key, '"by ck"')
            self.assertEqual(function(), "by ck")

    def test_ck_without_a_prefix_finds_the_entries_under_their_whole_keys(self):
        python = self.prefixed_python()
        python.write(self.key, numeric(), "zstd")
        self.assert_same(self.ck.read(self.prefix + self.key), numeric())
        self.ck.write(self.prefix + self.key, strings(), "zstd")
        self.assert_same(python.read(self.key), strings())

    def test_what_was_moved_behind_a_prefix_is_read_by_neither(self):
        for write in (self.python.write, self.ck.write):
            write(self.key, numeric(), "zstd")
            self.python.backend.set(self.prefix + self.key, self.python.backend.get(self.key))
            with self.assertRaises(DecryptionAuthenticationError):
                self.prefixed_python().read(self.key)
            result = self.prefixed_ck().run("get", self.key)
            self.assertEqual((result.returncode, result.stdout), (CORRUPT, ""))

    def prefixed_python(self) -> PythonEncrypting:
        return PythonEncrypting(self.prefixed_backend(), Keys(OLD))

    def prefixed_ck(self) -> Ck:
        return Ck(self.prefixed_url, self.scratch, Keys(OLD))


class RecordingTenantRedis(Recording, PerRequestRedisBackend):
    pass


class Redis(Prefixed, Everywhere, unittest.TestCase):
    prefix = "t:acme:"

    @classmethod
    def setUpClass(cls):
        port = free_port()
        start(cls, port, "redis-server", "--port", str(port), "--save", "", "--bind", "127.0.0.1")
        cls.url = f"redis://127.0.0.1:{port}"
        cls.prefixed_url = f"{cls.url}?key_prefix={cls.prefix}"

    def backend(self):
        return RecordingRedis(self.url)

    def prefixed_backend(self):
        return RecordingTenantRedis(redis.Redis.from_url(self.url), "acme")


class Memcached(Prefixed, Everywhere, unittest.TestCase):
    prefix = "app:"

    @classmethod
    def setUpClass(cls):
        # One, so that an entry is on the same server with a prefix and without.
        port = free_port()
        address = ("-l", "127.0.0.1", "-p", str(port), "-U", "0")
        start(cls, port, "memcached", *address, "-u", "root", "-m", "256")
        cls.server = f"127.0.0.1:{port}"
        cls.url = f"memcached://{cls.server}"
        cls.prefixed_url = f"{cls.url}?key_prefix={cls.prefix}"

    def backend(self):
        return RecordingMemcached(MemcachedBackendConfig(servers=[self.server]))

    def prefixed_backend(self):
        return RecordingMemcached(MemcachedBackendConfig(servers=[self.server], key_prefix=self.prefix))


if __name__ == "__main__":
    unittest.main()
