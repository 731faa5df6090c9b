//! A data frame of 300 MB in a process that may have 512 MB.
//!
//! The work is done by a child that has set the limit on itself: `RLIMIT_DATA`, which is about heap, stacks
//! and all other memory that is the process's own, used or not. Mapped files are not: the kernel can take
//! their pages back at any time.

use std::env;
use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};

use arrow_ipc::writer::FileWriter;
use ck_cache::{Compression, PutOptions};
use rustix::process::{Resource, Rlimit, setrlimit};

use super::cell::{scan, table};
use super::{Setting, ZSTD};
use crate::digest::Digest;
use crate::probe::{Figures, Probe};
use crate::{Result, tables};

/// The size of the frame.
pub(crate) const FRAME: u64 = 300_000_000;

/// What the process may have.
const LIMIT: u64 = 512_000_000;

/// What [`inside`] is told to do.
const CACHED: &str = "cached";
const BUFFERED: &str = "buffered";

/// Puts the frame, with zstd and without, reads both back by batches beside it, lets go of it, and gets both
/// whole, one after the other; all in one process.
pub(super) fn cached(setting: &Setting) -> Result<Figures> {
    run(setting, CACHED)
}

/// Puts the frame the way of systems that encode a value before they store it.
pub(super) fn buffered(setting: &Setting) -> Result<Figures> {
    run(setting, BUFFERED)
}

/// `finished` is 1 for work that was done within the limit, 0 for work that memory was refused to.
fn run(setting: &Setting, work: &str) -> Result<Figures> {
    let output = Command::new(env::current_exe()?)
        .args(["inside", work, &setting.bytes.to_string()])
        .arg(&setting.dir)
        .args(&setting.server)
        // What one thread frees, another can use: with a heap for each thread the C library keeps it apart.
        .env("MALLOC_ARENA_MAX", "1")
        // The report of a refused allocation would allocate for a backtrace, and wait for itself.
        .env("RUST_BACKTRACE", "0")
        .stdin(Stdio::null())
        .output()?;
    let mut figures = Figures::default();
    let said = String::from_utf8_lossy(&output.stderr);
    if output.status.success() {
        figures = Figures::parse(&output.stdout)?;
        figures.add("finished", 1);
    } else if said.contains("memory allocation of") {
        figures.add("finished", 0);
    } else {
        return Err(format!("within the limit: {}\n{said}", output.status).into());
    }
    Ok(figures)
}

/// The child: limits itself and works.
pub(crate) fn inside(work: &str, setting: &Setting) -> Result<Figures> {
    let limit = Rlimit {
        current: Some(LIMIT),
        maximum: Some(LIMIT),
    };
    let probe = Probe::start()?;
    setrlimit(Resource::Data, limit)?;
    match work {
        CACHED => put_and_get(setting)?,
        BUFFERED => encode(setting)?,
        _ => return Err(format!("no work {work:?}").into()),
    }
    probe.stop()
}

fn put_and_get(setting: &Setting) -> Result<()> {
    let kinds = [("none", Compression::None), ("zstd", ZSTD)];
    let cache = setting.store()?;
    let frame = table(tables::mixed(setting.bytes)?)?;
    let expected = Digest::of(frame.batches())?.json();
    for (key, compression) in kinds {
        let options = PutOptions::new().with_compression(compression);
        cache.put_table(key, &frame, &options)?.stored()?;
    }
    for (key, _) in kinds {
        let found = cache.open_table(key)?.ok_or("a miss")?;
        scan(&found)?.check(&expected)?;
    }
    drop(frame);
    for (key, _) in kinds {
        let found = cache.get_table(key)?.ok_or("a miss")?;
        Digest::of(found.batches())?.check(&expected)?;
    }
    Ok(())
}

fn encode(setting: &Setting) -> Result<()> {
    let batches = tables::mixed(setting.bytes)?;
    let mut value = Vec::new();
    let mut writer = FileWriter::try_new(&mut value, &batches[0].schema())?;
    for batch in &batches {
        writer.write(batch)?;
    }
    writer.finish()?;
    drop(writer);
    let mut file = fs::File::create(setting.dir.join("value"))?;
    Ok(file.write_all(&value)?)
}
