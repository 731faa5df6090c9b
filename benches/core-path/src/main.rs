//! The core path side by side with its peers: interleaved in one run, medians and their ratios.
//!
//! `cargo run --release -p core-path -- [--python PYTHON] [--dir DIR] [--mib N] [--rounds N]`, in the
//! folder `benches`. PYTHON needs pyarrow (`cargo xtask interop` makes such an environment in
//! `.venv`); without it the comparisons with pyarrow are left out, and the output says so.

mod entries;
mod peer;
mod report;
mod tables;

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use arrow_array::{Array, RecordBatch};
use ck_cache::{Compression, PutOptions, Table, blocking::Cache};

use crate::peer::Peer;
use crate::report::{Report, Series};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

struct Options {
    python: Option<PathBuf>,
    dir: PathBuf,
    mib: usize,
    rounds: usize,
}

fn options() -> Result<Options> {
    let mut options = Options { python: None, dir: std::env::temp_dir(), mib: 512, rounds: 7 };
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        let value = arguments.next().ok_or_else(|| format!("{name} needs a value"))?;
        match name.as_str() {
            "--python" => options.python = Some(value.into()),
            "--dir" => options.dir = value.into(),
            "--mib" => options.mib = value.parse()?,
            "--rounds" => options.rounds = value.parse()?,
            _ => return Err(format!("unknown option {name}").into()),
        }
    }
    Ok(options)
}

fn main() -> Result<()> {
    let options = options()?;
    let dir = options.dir.join(format!("ck-core-path-{}", std::process::id()));
    std::fs::create_dir_all(&dir)?;
    let result = run(&options, &dir);
    std::fs::remove_dir_all(&dir)?;
    result
}

fn run(options: &Options, dir: &Path) -> Result<()> {
    let mut report = Report::default();
    let store = dir.join("store");
    let cache = Cache::open(&format!("file:{}?limit_bytes=64GiB", store.display()))?;
    let rounds = options.rounds;

    let numeric = tables::numeric(options.mib << 20);
    put_against_write(&mut report, &cache, &numeric, dir, rounds)?;
    scan_against_hash(&mut report, &cache, &store, rounds)?;
    open_latency(&mut report, &cache, rounds)?;

    let peer = options.python.as_deref().map(|python| Peer::start(python)).transpose()?;
    match peer {
        None => report.note("pyarrow: left out, no --python given"),
        Some(mut peer) => {
            report.note(&format!("pyarrow {}", peer.version));
            let lineitem = tables::lineitem(options.mib << 20)?;
            let mixed = tables::mixed(options.mib << 20);
            for (name, table) in [("numeric", &numeric), ("lineitem", &lineitem), ("mixed", &mixed)] {
                put_against_feather(&mut report, &cache, name, table, dir, &mut peer, rounds)?;
            }
            sum_against_feather(&mut report, &cache, &numeric, dir, &mut peer, rounds)?;
        }
    }
    entries::compare(&mut report, dir, rounds)?;
    report.print();
    Ok(())
}

fn nbytes(table: &[RecordBatch]) -> usize {
    ck_arrow::retained_bytes(table)
}

/// Uncompressed put, against the same bytes through write(2) into a file of the same file system.
fn put_against_write(
    report: &mut Report,
    cache: &Cache,
    table: &[RecordBatch],
    dir: &Path,
    rounds: usize,
) -> Result<()> {
    let (mut ours, mut plain) = (Series::default(), Series::default());
    let options = PutOptions::new().with_compression(Compression::None);
    let path = dir.join("plain");
    // What is still to be written back takes a core and the disk from whoever is measured.
    rustix::fs::sync();
    for round in 0..rounds {
        for turn in 0..2 {
            if turn == round % 2 {
                cache.remove("numeric")?;
                let source = Table::new(table[0].schema(), table.to_vec())?;
                let start = Instant::now();
                cache.put_table("numeric", source, &options)?.stored()?;
                ours.add(start.elapsed());
                continue;
            }
            let _ = std::fs::remove_file(&path);
            let start = Instant::now();
            let mut file = File::create(&path)?;
            for batch in table {
                for column in batch.columns() {
                    for buffer in column.to_data().buffers() {
                        for piece in buffer.chunks(1 << 20) {
                            file.write_all(piece)?;
                        }
                    }
                }
            }
            drop(file);
            plain.add(start.elapsed());
        }
    }
    std::fs::remove_file(&path)?;
    report.speed("put uncompressed / write(2) of the same bytes", &ours, &plain, nbytes(table), ">= 0.85");
    Ok(())
}

/// A full scan with every column verified, against hashing the mapped file.
fn scan_against_hash(report: &mut Report, cache: &Cache, store: &Path, rounds: usize) -> Result<()> {
    let (mut ours, mut hash) = (Series::default(), Series::default());
    let path = largest_file(store)?;
    let mut bytes = 0;
    for _ in 0..rounds {
        let start = Instant::now();
        let table = cache.open_table("numeric")?.ok_or("the entry is gone")?;
        let mut rows = 0;
        for batch in table.batches() {
            rows += batch?.num_rows();
        }
        assert_eq!(rows as u64, table.num_rows());
        drop(table);
        ours.add(start.elapsed());

        let start = Instant::now();
        let file = File::open(&path)?;
        // SAFETY: nothing truncates the file while this program runs.
        let map = unsafe { memmap2::Mmap::map(&file)? };
        std::hint::black_box(twox_hash::XxHash3_64::oneshot(&map));
        bytes = map.len();
        drop(map);
        hash.add(start.elapsed());
    }
    report.speed("verified full scan / xxh3 of the mapped file", &ours, &hash, bytes, ">= 0.85");
    Ok(())
}

fn largest_file(store: &Path) -> Result<PathBuf> {
    let mut largest = (0, PathBuf::new());
    for entry in std::fs::read_dir(store)? {
        let entry = entry?;
        largest = largest.max((entry.metadata()?.len(), entry.path()));
    }
    Ok(largest.1)
}

/// How long a warm open takes.
fn open_latency(report: &mut Report, cache: &Cache, rounds: usize) -> Result<()> {
    let mut ours = Series::default();
    for _ in 0..rounds * 20 {
        let start = Instant::now();
        let table = cache.open_table("numeric")?.ok_or("the entry is gone")?;
        std::hint::black_box(table.num_rows());
        ours.add(start.elapsed());
    }
    report.time("open of the mapped entry, warm", &ours, "<= 300 us");
    Ok(())
}

/// Compressed put, against pyarrow's feather with all its threads.
fn put_against_feather(
    report: &mut Report,
    cache: &Cache,
    name: &str,
    table: &[RecordBatch],
    dir: &Path,
    peer: &mut Peer,
    rounds: usize,
) -> Result<()> {
    let source = dir.join(format!("{name}.arrow"));
    tables::write_ipc(table, &source)?;
    peer.load(&source)?;
    let out = dir.join("out.feather");
    for (codec, compression, level) in
        [("zstd", Compression::Zstd(1), Some(1)), ("zstd", Compression::Zstd(3), Some(3)), ("lz4", Compression::Lz4, None)]
    {
        let (mut ours, mut theirs) = (Series::default(), Series::default());
        let options = PutOptions::new().with_compression(compression);
        let (mut stored, mut their_bytes) = (0, 0);
        for _ in 0..rounds {
            cache.remove("compressed")?;
            let copy = Table::new(table[0].schema(), table.to_vec())?;
            let start = Instant::now();
            stored = cache.put_table("compressed", copy, &options)?.stored()?;
            ours.add(start.elapsed());
            let (seconds, bytes) = peer.write(&source, &out, codec, level)?;
            theirs.add_seconds(seconds);
            their_bytes = bytes;
        }
        let what = format!(
            "put {name} {compression} / pyarrow feather ({} MiB stored / {} MiB)",
            stored >> 20,
            their_bytes >> 20
        );
        report.speed(&what, &ours, &theirs, nbytes(table), ">= 1");
    }
    cache.remove("compressed")?;
    std::fs::remove_file(&source)?;
    let _ = std::fs::remove_file(&out);
    Ok(())
}

/// Open and sum one column, against pyarrow's memory-mapped feather file.
fn sum_against_feather(
    report: &mut Report,
    cache: &Cache,
    table: &[RecordBatch],
    dir: &Path,
    peer: &mut Peer,
    rounds: usize,
) -> Result<()> {
    let source = dir.join("source.arrow");
    tables::write_ipc(table, &source)?;
    let path = dir.join("plain.feather");
    peer.write(&source, &path, "uncompressed", None)?;
    for column in ["c0", "c4"] {
        let (mut ours, mut theirs) = (Series::default(), Series::default());
        for _ in 0..rounds * 3 {
            let start = Instant::now();
            let reader = cache.open_table("numeric")?.ok_or("the entry is gone")?.select(&[column])?;
            let mut total = 0.0;
            for batch in reader.batches() {
                total += tables::sum(batch?.column(0));
            }
            ours.add(start.elapsed());
            let (seconds, their_total) = peer.sum(&path, column)?;
            theirs.add_seconds(seconds);
            assert!((total - their_total).abs() <= 1e-6 * total.abs(), "{total} is not {their_total}");
        }
        let what = format!("open and sum of column {column}, verified / pyarrow read_table(memory_map)");
        report.speed(&what, &ours, &theirs, nbytes(table) / 8, ">= 1");
    }
    // Keeps the file from being dropped out of the page cache by its size alone.
    File::open(&path)?.read_exact_at(&mut [0; 16], 0)?;
    std::fs::remove_file(&source)?;
    Ok(())
}
