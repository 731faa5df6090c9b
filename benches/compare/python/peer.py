"""The Python side of the comparison: reads one JSON command a line, answers with seconds.

A command names a work and its arguments. Sources are loaded and files removed before the clock starts,
and sizes are taken after it has stopped.
"""

import functools
import gc
import importlib.metadata
import json
import mmap
import os
import pickle
import shutil
import sys
import time

import pyarrow as pa
import xxhash

WORKS = {}

measures_memory = False


def work(function):
    """A function that makes ready and returns what is timed; its result, if any, is the bytes stored."""
    WORKS[function.__name__] = function
    return function


# Sources


@functools.cache
def table(path):
    with pa.OSFile(path, "rb") as source:
        return pa.ipc.open_file(source).read_all()


@functools.cache
def frame(path):
    return table(path).to_pandas()


@functools.cache
def polars_frame(path):
    import polars

    return polars.from_arrow(table(path))


@functools.cache
def array(path):
    """The columns as one numpy array, row after row."""
    import numpy

    return numpy.stack([column.to_numpy() for column in table(path).columns], axis=1).astype("f8")


@functools.cache
def values(size, count):
    return [(b"%016d" % number) + bytes(size - 16) for number in range(count)]


# Helpers


def fresh(path):
    if os.path.isdir(path):
        shutil.rmtree(path)
    elif os.path.exists(path):
        os.unlink(path)


def hash_file(path):
    """The xxh3 that our side keeps, of all bytes of the file.

    Mapped, without a copy; but where memory is measured in pieces, so that the pages do not count as the peer's.
    """
    with open(path, "rb", buffering=0) as file:
        if measures_memory:
            hash, piece = xxhash.xxh3_64(), bytearray(1 << 20)
            while count := file.readinto(piece):
                hash.update(memoryview(piece)[:count])
            return hash.intdigest()
        with mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
            return xxhash.xxh3_64_intdigest(mapped)


def hash_column(column):
    for chunk in column.chunks:
        for buffer in chunk.buffers():
            if buffer is not None:
                xxhash.xxh3_64_intdigest(buffer)


def sync_directory(path):
    fd = os.open(path, os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)


def size_of(path):
    if not os.path.isdir(path):
        return os.path.getsize(path)
    return sum(os.path.getsize(os.path.join(at, name)) for at, _, names in os.walk(path) for name in names)


def chunk_rows(data):
    """As many rows as our batches have."""
    return max(1, data.num_rows * (8 << 20) // max(1, data.nbytes))


# pyarrow


@work
def feather_put(source, out, compression, level=None):
    from pyarrow import feather

    data = table(source)
    fresh(out)

    def run():
        feather.write_feather(
            data, out, compression=compression, compression_level=level, chunksize=chunk_rows(data)
        )
        hash_file(out)
        return lambda: size_of(out)

    return run


@work
def feather_get(path, mapped, columns=None, proof=None):
    from pyarrow import feather

    def run():
        if proof == "file":
            hash_file(path)
        data = feather.read_table(path, memory_map=mapped, columns=columns)
        if proof == "columns":
            for column in data.columns:
                hash_column(column)

    return run


@work
def feather_sum(path, column, proof=None):
    from pyarrow import compute, feather

    def run():
        data = feather.read_table(path, memory_map=True)[column]
        if proof == "columns":
            hash_column(data)
        compute.sum(data).as_py()

    return run


@work
def parquet_put(source, out):
    from pyarrow import parquet

    data = table(source)
    fresh(out)

    def run():
        parquet.write_table(data, out, compression="zstd", compression_level=3, write_page_checksum=True)
        return lambda: size_of(out)

    return run


@work
def parquet_get(path, columns=None):
    from pyarrow import parquet

    return lambda: drop(parquet.read_table(path, columns=columns, page_checksum_verification=True))


def drop(_):
    """Nothing to measure afterwards."""


# polars


@work
def polars_put(source, out, compression):
    data = polars_frame(source)
    fresh(out)

    def run():
        data.write_ipc(out, compression=compression)
        hash_file(out)
        return lambda: size_of(out)

    return run


@work
def polars_get(path, columns=None):
    import polars

    return lambda: drop(polars.read_ipc(path, columns=columns))


# joblib


@work
def joblib_put(source, out):
    import joblib

    data = frame(source)
    fresh(out)

    def run():
        joblib.dump(data, out)
        hash_file(out)
        return lambda: size_of(out)

    return run


@work
def joblib_get(path, mapped):
    import joblib

    return lambda: drop(joblib.load(path, mmap_mode="r" if mapped else None))


# diskcache


@functools.cache
def disk_cache(path):
    import diskcache

    return diskcache.Cache(path, size_limit=1 << 40)


@work
def diskcache_put(path, size, count):
    cache, held = disk_cache(path), values(size, count)

    def run():
        for number, value in enumerate(held):
            xxhash.xxh3_64_intdigest(value)
            cache.set(number, value)

    return run


@work
def diskcache_get(path, count):
    cache = disk_cache(path)

    def run():
        for number in range(count):
            xxhash.xxh3_64_intdigest(cache[number])

    return run


@work
def diskcache_put_table(source, path):
    cache, data = disk_cache(path), table(source)
    cache.clear()

    def run():
        value = pickle.dumps(data, protocol=5)
        xxhash.xxh3_64_intdigest(value)
        cache.set("table", value)
        return lambda: size_of(path)

    return run


@work
def diskcache_get_table(path):
    cache = disk_cache(path)

    def run():
        value = cache["table"]
        xxhash.xxh3_64_intdigest(value)
        pickle.loads(value)

    return run


# flamepy


@work
def flame_put(source, tensor=False):
    from flamepy.core.cache import _serialize_object_data

    value = array(source) if tensor else table(source)
    return lambda: drop(_serialize_object_data(value))


@functools.cache
def flame_payload(source, tensor):
    from flamepy.core.cache import _serialize_object_data

    return _serialize_object_data(array(source) if tensor else table(source))


@work
def flame_get(source, tensor=False):
    from flamepy.core.cache import _deserialize_object_data

    payload = flame_payload(source, tensor)
    return lambda: drop(_deserialize_object_data(payload))


# cachekit


@functools.cache
def cachekit_store(path):
    from cachekit.backends.file import FileBackend
    from cachekit.backends.file.config import FileBackendConfig

    return FileBackend(FileBackendConfig(cache_dir=path, max_size_mb=1 << 16, max_value_mb=1 << 15))


def cachekit_handler(compression):
    from cachekit.cache_handler import CacheSerializationHandler
    from cachekit.serializers.arrow_serializer import ArrowSerializer

    serializer = ArrowSerializer(return_format="arrow", compression=compression)
    # With a master key at hand it wants to be told.
    return CacheSerializationHandler(serializer, encryption=False)


@work
def cachekit_put(source, path, compression, streamed=True):
    store, data, handler = cachekit_store(path), table(source), cachekit_handler(compression)
    store.delete("table")

    def run():
        if streamed:
            store.set_streaming("table", lambda sink: handler.write_serialized_to(sink, data))
        else:
            store.set("table", handler.serialize_data(data, cache_key="table"))
        sync_directory(path)
        return lambda: size_of(path)

    return run


@work
def cachekit_get(path, columns=None):
    from cachekit.serializers.arrow_serializer import ArrowSerializer
    from cachekit.serializers.wrapper import SerializationWrapper

    store = cachekit_store(path)

    def run():
        handle = store.get_buffer("table")
        payload, metadata, _ = SerializationWrapper.unwrap_metadata(handle.view)
        data = ArrowSerializer(return_format="arrow").deserialize(payload, metadata)
        if columns is not None:
            data = data.select(columns)

    return run


@functools.cache
def cachekit_wrapper(compression):
    """The client's encryption of the bytes that `cachekit_handler` makes, under the key of `main`."""
    from cachekit.serializers.arrow_serializer import ArrowSerializer
    from cachekit.serializers.encryption_wrapper import EncryptionWrapper

    return EncryptionWrapper(ArrowSerializer(return_format="arrow", compression=compression), tenant_id="bench")


@work
def cachekit_put_encrypted(source, path, compression):
    from cachekit.serializers.wrapper import SerializationWrapper

    store, data, wrapper = cachekit_store(path), table(source), cachekit_wrapper(compression)
    store.delete("table")

    def run():
        payload, metadata = wrapper.serialize(data, "table")
        store.set("table", SerializationWrapper.wrap(payload, metadata.to_dict(), "arrow"))
        sync_directory(path)
        return lambda: size_of(path)

    return run


@work
def cachekit_get_encrypted(path):
    from cachekit.serializers.wrapper import SerializationWrapper

    store, wrapper = cachekit_store(path), cachekit_wrapper("none")

    def run():
        payload, metadata, _ = SerializationWrapper.unwrap_metadata(store.get("table"))
        wrapper.deserialize(payload, metadata, "table")

    return run


# The loop


def status(name):
    with open("/proc/self/status") as file:
        for line in file:
            if line.startswith(name):
                return int(line.split()[1]) * 1024
    raise SystemExit(f"no {name}")


def do(command):
    global measures_memory
    function = WORKS[command.pop("work")]
    peak = measures_memory = command.pop("peak", False)
    run = function(**command)
    gc.collect()
    pa.default_memory_pool().release_unused()
    if peak:
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")
        before = status("VmHWM:")
    start = time.perf_counter()
    measure = run()
    answer = {"seconds": time.perf_counter() - start}
    if peak:
        answer["peak"] = max(0, status("VmHWM:") - before)
    if measure is not None:
        answer["stored"] = measure()
    return answer


def main():
    # Larger than any table here; the default is 100 MiB.
    os.environ["CACHEKIT_MAX_VALUE_SIZE"] = str(1 << 40)
    os.environ["CACHEKIT_MASTER_KEY"] = "5e" * 32
    names = ["pyarrow", "polars", "joblib", "diskcache", "flamepy", "cachekit"]
    print(json.dumps({name: importlib.metadata.version(name) for name in names}), flush=True)
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer
    for line in sys.stdin:
        print(json.dumps(do(json.loads(line))), file=answers, flush=True)


main()
