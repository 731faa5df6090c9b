//! The same work by other systems, watched by the same rule. What they need has no ceilings.

use std::env;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread;

use arrow_ipc::writer::FileWriter;

use super::Setting;
use crate::probe::{Figures, Probe};
use crate::watch::Watch;
use crate::{Result, tables};

/// Works of other systems, as `peers.py` has them: by name, with codec.
pub(super) const WORKS: &[(&str, &str)] = &[
    ("put-feather", "none"),
    ("put-feather", "zstd"),
    ("put-parquet", "none"),
    ("put-parquet", "zstd"),
    ("put-cachekit", "none"),
    ("put-cachekit", "zstd"),
    ("put-cachekit-streamed", "none"),
    ("put-cachekit-streamed", "zstd"),
    ("get-feather", "none"),
    ("get-feather", "zstd"),
    ("get-parquet", "zstd"),
    ("get-cachekit", "none"),
    ("get-cachekit", "zstd"),
    ("get-cachekit-streamed", "none"),
    ("get-cachekit-streamed", "zstd"),
];

/// The bare writer of arrow-ipc into a file, which the others take as their source.
pub(super) fn arrow_ipc(setting: &Setting) -> Result<Figures> {
    let batches = tables::numeric(setting.bytes)?;
    let probe = Probe::start()?;
    let mut writer = FileWriter::try_new(File::create(source(setting))?, &batches[0].schema())?;
    for batch in &batches {
        writer.write(batch)?;
    }
    writer.finish()?;
    probe.stop()
}

/// Runs `peers.py`; what counts is what comes on top of its source.
pub(super) fn python(setting: &Setting, work: &str, codec: &str) -> Result<Figures> {
    let variable = |name| env::var_os(name).ok_or(format!("{name} is not set"));
    let mut child = Command::new(variable("PYTHON")?)
        .arg(variable("PEERS")?)
        .args([work, codec])
        .args([source(setting), setting.dir.clone()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let (to, from) = (child.stdin.take(), child.stdout.take());
    let (mut to, mut from) = (to.ok_or("no pipe")?, BufReader::new(from.ok_or("no pipe")?));
    expect(&mut from, "ready")?;
    let mut watch = Watch::from_here(&child)?;
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let answer = scope.spawn(|| {
            let answer = writeln!(to).map_err(Into::into);
            let answer = answer.and_then(|()| expect(&mut from, "done"));
            done.store(true, SeqCst);
            answer.map_err(|error| error.to_string())
        });
        watch.until(|| Ok(done.load(SeqCst)))?;
        answer.join().map_err(|_| "the reader failed")??;
        Ok::<_, crate::Error>(())
    })?;
    drop(to);
    match child.wait()? {
        exit if exit.success() => Ok(watch.figures()),
        exit => Err(format!("{work}: {exit}").into()),
    }
}

fn expect(from: &mut impl BufRead, word: &str) -> Result<()> {
    let mut line = String::new();
    // Others print warnings.
    while from.read_line(&mut line)? > 0 {
        if line.trim_end() == word {
            return Ok(());
        }
        line.clear();
    }
    Err(format!("it ended before it said {word:?}").into())
}

fn source(setting: &Setting) -> PathBuf {
    setting.dir.join("source.arrow")
}
