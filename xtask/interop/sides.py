"""The two sides: the Python client, put together from its public pieces, and the `ck` command."""

import asyncio
import contextlib
import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import pyarrow as pa
from cachekit.backends.file import FileBackend
from cachekit.backends.file.config import FileBackendConfig
from cachekit.backends.memcached import MemcachedBackend
from cachekit.backends.redis.backend import RedisBackend
from cachekit.cache_handler import CacheSerializationHandler
from cachekit.config.singleton import reset_settings
from cachekit.serializers.arrow_serializer import ArrowSerializer
from cachekit.serializers.encryption_wrapper import EncryptionWrapper
from cachekit.serializers.wrapper import SerializationWrapper

COMPRESSIONS = ("none", "lz4", "zstd")

# Exit codes of the command.
DONE, OTHER, USAGE, MISS, CORRUPT, UNREACHABLE = range(6)


@dataclass(frozen=True)
class Keys:
    """What both sides take from the environment to encrypt."""

    master: str
    previous: tuple[str, ...] = ()
    tenant: str = ""

    def variables(self) -> dict[str, str]:
        """To both sides an empty one is none."""
        return {
            "CACHEKIT_MASTER_KEY": self.master,
            "CACHEKIT_PREVIOUS_MASTER_KEYS": ",".join(self.previous),
            "CACHEKIT_DEPLOYMENT_UUID": self.tenant,
        }

    @contextlib.contextmanager
    def in_force(self) -> Iterator[None]:
        """For the client in this process, which remembers what it has read of the environment."""
        with mock.patch.dict(os.environ, self.variables()):
            reset_settings()
            try:
                yield
            finally:
                reset_settings()


class Python:
    """The client's serializers over one of its backends."""

    def __init__(self, backend):
        self.backend = backend

    def write(self, key: str, table: pa.Table, compression: str, ttl: int | None = None) -> None:
        """The buffered way: the whole value, then `set`."""
        value = _handler(compression).serialize_data(table, cache_key=key)
        self.backend.set(key, value, ttl)

    def read(self, key: str) -> pa.Table | None:
        """The buffered way."""
        value = self.backend.get(key)
        return None if value is None else _decode(value)

    def write_value(self, key: str, value, ttl: int | None = None, checked: bool = True) -> None:
        """By the default serializer."""
        handler = CacheSerializationHandler(enable_integrity_checking=checked)
        self.backend.set(key, handler.serialize_data(value, cache_key=key), ttl)

    def read_value(self, key: str):
        """By the default serializer; what must be there."""
        value = self.backend.get(key)
        assert value is not None, "a miss"
        return CacheSerializationHandler().deserialize_data(value, cache_key=key)

    def touch(self, key: str, ttl: int) -> bool:
        return asyncio.run(self.backend.refresh_ttl(key, ttl))


class PythonFiles(Python):
    """The client over a directory."""

    def __init__(self, directory: Path, max_size_mb: int = 1024):
        config = FileBackendConfig(cache_dir=directory, max_size_mb=max_size_mb, max_value_mb=max_size_mb // 2)
        super().__init__(RecordingFiles(config))

    def write_streamed(self, key: str, table: pa.Table, compression: str, ttl: int | None = None) -> None:
        """The streamed way: record batches straight into the file."""
        handler = _handler(compression)
        self.backend.set_streaming(key, lambda sink: handler.write_serialized_to(sink, table), ttl)

    def read_mapped(self, key: str) -> pa.Table | None:
        """The mapped way."""
        handle = self.backend.get_buffer(key)
        return None if handle is None else _decode(handle.view)

    def ttl(self, key: str) -> int | None:
        return asyncio.run(self.backend.get_ttl(key))

    def path(self, key: str) -> Path:
        return Path(self.backend._key_to_path(key))


class PythonEncrypting(Python):
    """The client's encryption over one of its backends."""

    def __init__(self, backend, keys: Keys):
        super().__init__(backend)
        self.keys = keys

    def with_keys(self, keys: Keys) -> "PythonEncrypting":
        return PythonEncrypting(self.backend, keys)

    def write(self, key: str, table: pa.Table, compression: str, ttl: int | None = None) -> None:
        """As the handler does it for the serializer `arrow`, which has one compression in a process."""
        with self.keys.in_force():
            payload, metadata = self._wrapper(compression).serialize(table, self._prefix() + key)
        self.backend.set(key, SerializationWrapper.wrap(payload, metadata.to_dict(), "arrow"), ttl)

    def read(self, key: str) -> pa.Table | None:
        value = self.backend.get(key)
        if value is None:
            return None
        payload, metadata, name = SerializationWrapper.unwrap_metadata(value)
        assert name == "arrow", name
        with self.keys.in_force():
            return self._wrapper("none").deserialize(payload, metadata, self._prefix() + key)

    def write_value(self, key: str, value, ttl: int | None = None, checked: bool = True) -> None:
        with self.keys.in_force():
            value = self._handler("default", checked).serialize_data(value, cache_key=key)
        self.backend.set(key, value, ttl)

    def read_value(self, key: str, serializer="default"):
        value = self.backend.get(key)
        assert value is not None, "a miss"
        with self.keys.in_force():
            return self._handler(serializer).deserialize_data(value, cache_key=key)

    def fingerprint(self) -> str:
        with self.keys.in_force():
            return self._wrapper("none").get_encryption_info()["key_fingerprint"]

    def _wrapper(self, compression: str) -> EncryptionWrapper:
        serializer = ArrowSerializer(return_format="arrow", compression=compression)
        return EncryptionWrapper(serializer, tenant_id=self.keys.tenant or "default")

    def _handler(self, serializer, checked: bool = True) -> CacheSerializationHandler:
        """As the decorator makes it: keys and tenant are those of the environment."""
        return CacheSerializationHandler(
            serializer,
            encryption=True,
            single_tenant_mode=True,
            enable_integrity_checking=checked,
            backend_key_prefix=self._prefix,
        )

    def _prefix(self) -> str:
        return getattr(self.backend, "key_prefix", None) or ""


class Recording:
    """A backend that remembers the keys that the decorator makes up."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.keys: list[str] = []

    def set(self, key, value, ttl=None):
        self.keys.append(key)
        super().set(key, value, ttl)


class RecordingFiles(Recording, FileBackend):
    def set_streaming(self, key, write_payload, ttl=None):
        self.keys.append(key)
        super().set_streaming(key, write_payload, ttl)


class RecordingRedis(Recording, RedisBackend):
    pass


class RecordingMemcached(Recording, MemcachedBackend):
    pass


def _handler(compression: str) -> CacheSerializationHandler:
    return CacheSerializationHandler(ArrowSerializer(return_format="arrow", compression=compression))


def _decode(value) -> pa.Table:
    payload, metadata, name = SerializationWrapper.unwrap_metadata(value)
    assert name in ("arrow", "ArrowSerializer"), name
    return ArrowSerializer(return_format="arrow").deserialize(payload, metadata)


class Ck:
    """The command on one store. With keys it encrypts."""

    def __init__(self, store: str, scratch: Path, keys: Keys | None = None):
        self.store = store
        self.scratch = scratch
        self.keys = keys

    def with_keys(self, keys: Keys | None) -> "Ck":
        return Ck(self.store, self.scratch, keys)

    def run(self, *args: str, text: str = "") -> subprocess.CompletedProcess:
        """With `text` on standard input."""
        encrypt = ["--encrypt"] if self.keys else []
        command = [os.environ["CK"], "--store", self.store, *encrypt, *map(str, args)]
        environment = os.environ | (self.keys.variables() if self.keys else {})
        return subprocess.run(command, capture_output=True, text=True, input=text, timeout=120, env=environment)

    def done(self, *args: str, text: str = "") -> str:
        """Runs what must succeed; what it printed."""
        result = self.run(*args, text=text)
        assert result.returncode == DONE, f"{result.args}: {result.returncode}\n{result.stderr}"
        return result.stdout

    def write(self, key: str, table: pa.Table, compression: str, ttl: str | None = None) -> None:
        path = self.scratch / "in.arrow"
        with pa.ipc.new_file(path, table.schema) as writer:
            writer.write_table(table)
        self.done("put", key, path, "--compression", compression, *(("--ttl", ttl) if ttl else ()))

    def write_json(self, key: str, text: str, *options: str) -> None:
        self.done("put", key, "--json", "-", *options, text=text)

    def read_json(self, key: str):
        return json.loads(self.done("get", key))

    def read(self, key: str) -> pa.Table | None:
        path = self.scratch / "out.arrow"
        path.unlink(missing_ok=True)
        result = self.run("get", key, "-o", path)
        if result.returncode == MISS:
            assert not path.exists(), "a miss left a file"
            return None
        assert result.returncode == DONE, f"{result.args}: {result.returncode}\n{result.stderr}"
        with pa.ipc.open_file(path) as reader:
            return reader.read_all()
