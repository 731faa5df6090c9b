"""One stage of another system, for `memcases` to watch: `peers.py WORK CODEC TABLE DIR`.

It does all of it once with a small table, so that code that stays for good is no part of what is measured. Prints
"ready" when the source stands, works when a line comes in, prints "done", and holds what it got until standard
input ends.
"""

import os
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet


class Feather:
    def __init__(self, codec: str, directory: Path):
        self.codec = "uncompressed" if codec == "none" else codec
        self.path = directory / f"{codec}.feather"

    def put(self, table: pa.Table) -> None:
        pyarrow.feather.write_feather(table, self.path, compression=self.codec)

    def get(self) -> pa.Table:
        return pyarrow.feather.read_table(self.path, memory_map=False)


class Parquet:
    def __init__(self, codec: str, directory: Path):
        self.codec = codec
        self.path = directory / f"{codec}.parquet"

    def put(self, table: pa.Table) -> None:
        pyarrow.parquet.write_table(table, self.path, compression=self.codec)

    def get(self) -> pa.Table:
        return pyarrow.parquet.read_table(self.path)


class Cachekit:
    """Its Arrow serializer over its file backend, whole values at a time, as with its other backends."""

    def __init__(self, codec: str, directory: Path):
        os.environ["CACHEKIT_MAX_VALUE_SIZE"] = str(5 << 30)
        from cachekit.backends.file import FileBackend
        from cachekit.backends.file.config import FileBackendConfig
        from cachekit.cache_handler import CacheSerializationHandler
        from cachekit.serializers.arrow_serializer import ArrowSerializer
        from cachekit.serializers.wrapper import SerializationWrapper

        limits = {"max_size_mb": 10240, "max_value_mb": 5120}
        config = FileBackendConfig(cache_dir=directory / f"cachekit-{codec}", **limits)
        self.backend = FileBackend(config)
        self.serializer = ArrowSerializer(return_format="arrow", compression=codec)
        self.handler = CacheSerializationHandler(self.serializer)
        self.unwrap = SerializationWrapper.unwrap_metadata

    def put(self, table: pa.Table) -> None:
        self.backend.set("table", self.handler.serialize_data(table, cache_key="table"))

    def get(self) -> pa.Table:
        payload, metadata, _ = self.unwrap(self.backend.get("table"))
        return self.serializer.deserialize(payload, metadata)


class StreamedCachekit(Cachekit):
    """The same, batch by batch into the file, and mapped."""

    def put(self, table: pa.Table) -> None:
        self.backend.set_streaming("table", lambda sink: self.handler.write_serialized_to(sink, table))

    def get(self) -> pa.Table:
        self.handle = self.backend.get_buffer("table")
        if self.handle is None:
            # Files above 1 GiB are not mapped; the client then reads them.
            return super().get()
        payload, metadata, _ = self.unwrap(self.handle.view)
        return self.serializer.deserialize(payload, metadata)


PEERS = {
    "feather": Feather,
    "parquet": Parquet,
    "cachekit": Cachekit,
    "cachekit-streamed": StreamedCachekit,
}


def main(work: str, codec: str, source: str, directory: Path) -> None:
    stage, _, name = work.partition("-")
    warm = PEERS[name](codec, directory / "warm")
    warm.put(pa.table({"c0": list(range(1000))}))
    warm.get()
    peer = PEERS[name](codec, directory)
    table = None
    if stage == "put":
        with pa.OSFile(source) as file:
            table = pa.ipc.open_file(file).read_all()
    print("ready", flush=True)
    sys.stdin.readline()
    held = peer.put(table) if stage == "put" else peer.get()
    print("done", flush=True)
    sys.stdin.read()
    del held


if __name__ == "__main__":
    work, codec, source, directory = sys.argv[1:]
    (Path(directory) / "warm").mkdir(exist_ok=True)
    main(work, codec, source, Path(directory))
