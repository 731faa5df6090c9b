//! What Python programs use: each work is done by the long-lived interpreter, by its own clock.

use arrow_buffer::Buffer;
use bytes::Bytes;
use ck_backend_file::Durability;
use ck_cache::PutOptions;
use ck_cache::Verification::{Off, OnTouch};
use ck_codec::{Flm, Order, Tensor};
use serde_json::{Value, json};

use super::small::SIZES;
use super::{FAST, READ, SYNCED, encrypted, local, terms};
use crate::Result;
use crate::ipc::Codec;
use crate::row::{Group, Open, Row, Sample};
use crate::scene::Scene;
use crate::tables::{Kind, THREE};

const HASHED: &str = "xxh3 of all bytes";
const COLUMNS: &str = "xxh3 of the columns read";
const PAGES: &str = "xxh3 of columns / CRC-32 of pages";
const TAGGED: &str = "xxh3 and the tags of AES-256-GCM, with AES instructions";
const NONE: &str = "off";

pub(super) fn rows(scene: &Scene) -> Vec<Row> {
    let mut rows = feather();
    rows.extend(parquet_and_polars());
    rows.extend(joblib());
    rows.extend(diskcache(scene));
    rows.extend(flamepy());
    rows.extend(cachekit());
    rows
}

fn row(
    work: impl Into<String>,
    peer: &str,
    durability: &'static str,
    verification: &'static str,
    ours: Open,
    theirs: Open,
) -> Row {
    Row::new(
        Group::Python,
        work,
        peer,
        terms(durability, verification),
        ours,
        theirs,
    )
}

fn feather() -> Vec<Row> {
    use Kind::{Lineitem, Mixed, Numeric, Wide};
    let mut rows = Vec::new();
    for (codec, name, args) in [
        (
            Codec::Zstd(1),
            "zstd 1",
            json!({"compression": "zstd", "level": 1}),
        ),
        (
            Codec::Zstd(3),
            "zstd 3",
            json!({"compression": "zstd", "level": 3}),
        ),
        (Codec::Lz4, "lz4", json!({"compression": "lz4"})),
        (Codec::None, "none", json!({"compression": "uncompressed"})),
    ] {
        for kind in [Lineitem, Mixed, Numeric] {
            let work = format!("put {name}, {}", kind.name());
            rows.push(row(
                work,
                "pyarrow feather + xxh3",
                FAST,
                HASHED,
                local::put(kind, codec, Durability::Fast),
                put("feather_put", kind, args.clone()),
            ));
        }
    }
    let plain = || json!({"compression": "uncompressed"});
    let zstd = || json!({"compression": "zstd", "level": 3});
    let feather = |kind, args, then| stored("feather_put", kind, args, then);
    rows.push(row(
        "open + sum of 1 of 8 columns",
        "pyarrow read_table(memory_map) + xxh3",
        READ,
        COLUMNS,
        local::sum(Numeric, "c0", OnTouch),
        feather(
            Numeric,
            plain(),
            json!({"work": "feather_sum", "column": "c0", "proof": "columns"}),
        ),
    ));
    rows.push(row(
        "open + sum of 1 of 8 columns",
        "pyarrow read_table(memory_map)",
        READ,
        "ours xxh3 of the column, the peer none",
        local::sum(Numeric, "c0", OnTouch),
        feather(
            Numeric,
            plain(),
            json!({"work": "feather_sum", "column": "c0"}),
        ),
    ));
    rows.push(row(
        "get, mapped, lineitem",
        "pyarrow read_table(memory_map)",
        READ,
        NONE,
        local::get(Lineitem, Codec::None, Off),
        feather(
            Lineitem,
            plain(),
            json!({"work": "feather_get", "mapped": true}),
        ),
    ));
    rows.push(row(
        "get zstd 3, lineitem",
        "pyarrow feather + xxh3",
        READ,
        HASHED,
        local::get(Lineitem, Codec::Zstd(3), OnTouch),
        feather(
            Lineitem,
            zstd(),
            json!({"work": "feather_get", "mapped": false, "proof": "file"}),
        ),
    ));
    rows.push(row(
        "3 of 200 columns, zstd 3",
        "pyarrow feather",
        READ,
        NONE,
        local::project(Wide, Codec::Zstd(3), &THREE, Off),
        feather(
            Wide,
            zstd(),
            json!({"work": "feather_get", "mapped": true, "columns": three()}),
        ),
    ));
    rows
}

fn parquet_and_polars() -> Vec<Row> {
    use Kind::{Lineitem, Strings, Wide};
    let zstd = Codec::Zstd(3);
    let parquet = |kind, then| stored("parquet_put", kind, json!({}), then);
    let polars = |kind, compression, then| {
        stored(
            "polars_put",
            kind,
            json!({"compression": compression}),
            then,
        )
    };
    let columns = |work: &str| json!({"work": work, "columns": three()});
    vec![
        row(
            "put zstd 3, lineitem",
            "pyarrow parquet, zstd 3",
            FAST,
            PAGES,
            local::put(Lineitem, zstd, Durability::Fast),
            put("parquet_put", Lineitem, json!({})),
        ),
        row(
            "get zstd 3, lineitem",
            "pyarrow parquet, zstd 3",
            READ,
            PAGES,
            local::get(Lineitem, zstd, OnTouch),
            parquet(Lineitem, json!({"work": "parquet_get"})),
        ),
        row(
            "3 of 200 columns, zstd 3",
            "pyarrow parquet, zstd 3",
            READ,
            PAGES,
            local::project(Wide, zstd, &THREE, OnTouch),
            parquet(Wide, columns("parquet_get")),
        ),
        row(
            "put zstd 3, lineitem",
            "polars IPC zstd + xxh3",
            FAST,
            HASHED,
            local::put(Lineitem, zstd, Durability::Fast),
            put("polars_put", Lineitem, json!({"compression": "zstd"})),
        ),
        row(
            "put zstd 3, strings",
            "polars IPC zstd + xxh3",
            FAST,
            HASHED,
            local::put(Strings, zstd, Durability::Fast),
            put("polars_put", Strings, json!({"compression": "zstd"})),
        ),
        row(
            "get, mapped, lineitem",
            "polars IPC",
            READ,
            NONE,
            local::get(Lineitem, Codec::None, Off),
            polars(Lineitem, "uncompressed", json!({"work": "polars_get"})),
        ),
        row(
            "get zstd 3, lineitem",
            "polars IPC zstd",
            READ,
            NONE,
            local::get(Lineitem, zstd, Off),
            polars(Lineitem, "zstd", json!({"work": "polars_get"})),
        ),
        row(
            "3 of 200 columns, zstd 3",
            "polars IPC zstd",
            READ,
            NONE,
            local::project(Wide, zstd, &THREE, Off),
            polars(Wide, "zstd", columns("polars_get")),
        ),
    ]
}

fn joblib() -> Vec<Row> {
    let kind = Kind::Features;
    let joblib = |mapped| {
        stored(
            "joblib_put",
            kind,
            json!({}),
            json!({"work": "joblib_get", "mapped": mapped}),
        )
    };
    vec![
        row(
            "put none, features",
            "joblib.dump of a DataFrame + xxh3",
            FAST,
            HASHED,
            local::put(kind, Codec::None, Durability::Fast),
            put("joblib_put", kind, json!({})),
        ),
        row(
            "get, mapped, features",
            "joblib.load(mmap_mode)",
            READ,
            NONE,
            local::get(kind, Codec::None, Off),
            joblib(true),
        ),
        row(
            "get, mapped, features",
            "joblib.load",
            READ,
            NONE,
            local::get(kind, Codec::None, Off),
            joblib(false),
        ),
    ]
}

fn diskcache(scene: &Scene) -> Vec<Row> {
    let mut rows = Vec::new();
    for (size, name) in SIZES {
        let count = (if scene.quick { 16 << 20 } else { 64 << 20 } / size as u64).clamp(32, 500);
        let value = || json!({"size": size, "count": count});
        rows.push(
            row(
                format!("put {name}"),
                "diskcache + xxh3",
                FAST,
                HASHED,
                small_put(size, count),
                in_directory(None, with(&value(), "diskcache_put")),
            )
            .of_operations(count),
        );
        let get = json!({"work": "diskcache_get", "count": count});
        rows.push(
            row(
                format!("get {name}"),
                "diskcache + xxh3",
                READ,
                HASHED,
                small_get(size, count),
                in_directory(Some(with(&value(), "diskcache_put")), get),
            )
            .of_operations(count),
        );
    }
    let kind = Kind::Lineitem;
    rows.push(row(
        "put none, lineitem",
        "diskcache of a pickled pyarrow Table + xxh3",
        FAST,
        HASHED,
        local::put(kind, Codec::None, Durability::Fast),
        in_directory(
            None,
            json!({"work": "diskcache_put_table", "source": kind.name()}),
        ),
    ));
    rows.push(row(
        "get, mapped, lineitem",
        "diskcache of a pickled pyarrow Table + xxh3",
        READ,
        HASHED,
        local::get(kind, Codec::None, OnTouch),
        in_directory(
            Some(json!({"work": "diskcache_put_table", "source": kind.name()})),
            json!({"work": "diskcache_get_table"}),
        ),
    ));
    rows
}

fn flamepy() -> Vec<Row> {
    let mut rows = Vec::new();
    for (kind, name, tensor) in [
        (Kind::Lineitem, "a table (lineitem)", false),
        (Kind::Features, "a tensor (features)", true),
    ] {
        let theirs = |work: &str| {
            in_directory(
                None,
                json!({"work": work, "source": kind.name(), "tensor": tensor}),
            )
        };
        let in_memory = "in memory";
        rows.push(row(
            format!("encode {name}"),
            "flamepy's serializer",
            in_memory,
            NONE,
            flm_encode(kind, tensor),
            theirs("flame_put"),
        ));
        rows.push(row(
            format!("decode {name}"),
            "flamepy's serializer",
            in_memory,
            NONE,
            flm_decode(kind, tensor),
            theirs("flame_get"),
        ));
    }
    rows
}

fn cachekit() -> Vec<Row> {
    use Kind::{Lineitem, Wide};
    let put = |codec, name: &str, streamed: bool| {
        let (way, compression) = (
            if streamed { "streamed" } else { "buffered" },
            if codec == Codec::None { "none" } else { "zstd" },
        );
        let peer = format!("cachekit file backend, {way}");
        let command = json!({"work": "cachekit_put", "source": "lineitem", "compression": compression, "streamed": streamed});
        row(
            format!("put {name}, lineitem, synced"),
            &peer,
            SYNCED,
            HASHED,
            local::put(Lineitem, codec, Durability::Synced),
            in_directory(None, command),
        )
    };
    let get = |kind: Kind, compression: &str, columns: Option<Vec<String>>| {
        let before =
            json!({"work": "cachekit_put", "source": kind.name(), "compression": compression});
        in_directory(
            Some(before),
            json!({"work": "cachekit_get", "columns": columns}),
        )
    };
    let sealed = |work: &str| json!({"work": work, "source": "lineitem", "compression": "zstd"});
    vec![
        put(Codec::None, "none", true),
        put(Codec::None, "none", false),
        put(Codec::Zstd(1), "zstd 1", true),
        row(
            "get, mapped, lineitem",
            "cachekit file backend, mapped",
            READ,
            HASHED,
            local::get(Lineitem, Codec::None, OnTouch),
            get(Lineitem, "none", None),
        ),
        row(
            "get zstd 1, lineitem",
            "cachekit file backend",
            READ,
            HASHED,
            local::get(Lineitem, Codec::Zstd(1), OnTouch),
            get(Lineitem, "zstd", None),
        ),
        row(
            "3 of 200 columns, mapped",
            "cachekit file backend, mapped",
            READ,
            "each side's own: the columns / all bytes",
            local::project(Wide, Codec::None, &THREE, OnTouch),
            get(Wide, "none", Some(three())),
        ),
        row(
            "encrypted put zstd 1, lineitem, synced",
            "cachekit file backend, encrypted",
            SYNCED,
            TAGGED,
            encrypted::put(Lineitem, Codec::Zstd(1), Durability::Synced),
            in_directory(None, sealed("cachekit_put_encrypted")),
        ),
        row(
            "encrypted get zstd 1, lineitem",
            "cachekit file backend, encrypted",
            READ,
            TAGGED,
            encrypted::get(Lineitem, Codec::Zstd(1)),
            in_directory(
                Some(sealed("cachekit_put_encrypted")),
                json!({"work": "cachekit_get_encrypted"}),
            ),
        ),
    ]
}

fn three() -> Vec<String> {
    THREE.iter().map(|column| format!("c{column}")).collect()
}

fn with(args: &Value, work: &str) -> Value {
    let mut command = args.clone();
    command["work"] = json!(work);
    command
}

/// Stores a table with `work`.
fn put(work: &'static str, kind: Kind, args: Value) -> Open {
    Box::new(move |scene| {
        let mut command = with(&args, work);
        command["source"] = json!(scene.source(kind)?);
        command["out"] = json!(scene.side("peer")?.join("out"));
        run(scene, command)
    })
}

/// Stores a table with `work`, then does `command` with the file, round by round.
fn stored(work: &'static str, kind: Kind, args: Value, command: Value) -> Open {
    Box::new(move |scene| {
        put(work, kind, args.clone())(scene)?()?;
        let mut command = command.clone();
        command["path"] = json!(scene.side("peer")?.join("out"));
        run(scene, command)
    })
}

/// Works on a directory: `before` once, `command` round by round. A source is named by its table.
fn in_directory(before: Option<Value>, command: Value) -> Open {
    Box::new(move |scene| {
        let dir = scene.side("peer")?;
        let complete = |command: &Value| -> Result<Value> {
            let mut command = command.clone();
            if let Some(name) = command["source"].as_str() {
                let kinds = [Kind::Lineitem, Kind::Features, Kind::Wide];
                let kind = kinds
                    .into_iter()
                    .find(|kind| kind.name() == name)
                    .ok_or("no such table")?;
                command["source"] = json!(scene.source(kind)?);
            }
            if command["work"] != "flame_put" && command["work"] != "flame_get" {
                command["path"] = json!(dir);
            }
            command
                .as_object_mut()
                .ok_or("no object")?
                .retain(|_, value| !value.is_null());
            Ok(command)
        };
        if let Some(before) = &before {
            scene.peer()?.ask(&complete(before)?)?;
        }
        run(scene, complete(&command)?)
    })
}

fn run(scene: &Scene, mut command: Value) -> Result<crate::row::Side> {
    let peer = scene.peer()?;
    command["peak"] = json!(scene.alone);
    Ok(Box::new(move || peer.run(&command)))
}

fn small_put(size: usize, count: u64) -> Open {
    Box::new(move |scene| {
        let cache = scene.cache(Durability::Fast, OnTouch)?;
        let value = Bytes::from(vec![7; size]);
        Ok(Box::new(move || {
            Sample::timed(|| {
                for number in 0..count {
                    cache
                        .put_bytes(number.to_string(), value.clone(), &PutOptions::new())?
                        .stored()?;
                }
                Ok(())
            })
        }))
    })
}

fn small_get(size: usize, count: u64) -> Open {
    Box::new(move |scene| {
        let cache = scene.cache(Durability::Fast, OnTouch)?;
        for number in 0..count {
            cache
                .put_bytes(number.to_string(), vec![7; size], &PutOptions::new())?
                .stored()?;
        }
        Ok(Box::new(move || {
            Sample::timed(|| {
                for number in 0..count {
                    std::hint::black_box(cache.get_bytes(number.to_string())?.ok_or("a miss")?);
                }
                Ok(())
            })
        }))
    })
}

fn flm_value(scene: &Scene, kind: Kind, tensor: bool) -> Result<Flm> {
    let table = scene.table(kind)?;
    if !tensor {
        return Ok(Flm::Table(ck_cache::Table::new(
            table[0].schema(),
            table.to_vec(),
        )?));
    }
    let rows: usize = table.iter().map(arrow_array::RecordBatch::num_rows).sum();
    let columns = table[0].num_columns();
    let values: Vec<f64> = (0..rows * columns).map(|at| at as f64 / 100.0).collect();
    let data = Buffer::from_vec(values);
    let tensor = Tensor::new(
        arrow_schema::DataType::Float64,
        vec![rows, columns],
        Order::RowMajor,
        data,
    )?;
    Ok(Flm::Tensor(tensor))
}

fn flm_encode(kind: Kind, tensor: bool) -> Open {
    Box::new(move |scene| {
        let value = flm_value(scene, kind, tensor)?;
        Ok(Box::new(move || Sample::timed(|| Ok(value.to_bytes()?))))
    })
}

fn flm_decode(kind: Kind, tensor: bool) -> Open {
    Box::new(move |scene| {
        // Somewhere in memory, as it comes from a socket: bringing its value where it can be used is a part of the work.
        let mut received = vec![0];
        received.extend_from_slice(&flm_value(scene, kind, tensor)?.to_bytes()?);
        let payload = Bytes::from(received).slice(1..);
        Ok(Box::new(move || {
            Sample::timed(|| Ok(Flm::decode(&Flm::aligned(&payload)?)?))
        }))
    })
}
