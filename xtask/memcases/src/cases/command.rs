//! The command `ck`, as a process of its own: its whole peak, program and libraries included.

use std::env;
use std::fs::File;
use std::io::BufWriter;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use arrow_ipc::writer::FileWriter;

use super::{Setting, TABLE};
use crate::Result;
use crate::probe::Metrics;
use crate::rss::{Resident, Status};
use crate::tables::Make;

const INTERVAL: Duration = Duration::from_millis(1);

/// `ck get` of the table into a file of this kind, and `ck put` of that file.
pub(super) fn round_trip(setting: &Setting, kind: &str) -> Result<Metrics> {
    let file = setting.dir.join(format!("table.{kind}"));
    let get = ck(setting, &["get", TABLE, "-o"], &file)?;
    let put = ck(setting, &["put", "again"], &file)?;
    let mut metrics = Metrics::new();
    metrics.insert("get_anon".to_owned(), get.anon.into());
    metrics.insert("put".to_owned(), put.peak.into());
    Ok(metrics)
}

/// `ck put` of an Arrow file whose batches are as large as can be.
pub(super) fn put_large_batches(setting: &Setting, make: Make) -> Result<Metrics> {
    let file = setting.dir.join("table.arrow");
    let batches = make(setting.bytes)?;
    let out = BufWriter::new(File::create(&file)?);
    let mut writer = FileWriter::try_new(out, &batches[0].schema())?;
    for batch in batches {
        writer.write(&batch)?;
    }
    writer.finish()?;
    drop(writer);
    let put = ck(setting, &["put", "large"], &file)?;
    let mut metrics = Metrics::new();
    metrics.insert("put".to_owned(), put.peak.into());
    Ok(metrics)
}

/// The peaks of the command. Its `anon` is sampled.
fn ck(setting: &Setting, args: &[&str], file: &Path) -> Result<Resident> {
    let program = env::var_os("CK").ok_or("CK does not name the command")?;
    let mut child = Command::new(program)
        .args(["--store", &setting.url()])
        .args(args)
        .arg(file)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()?;
    let status = Status::of(child.id())?;
    let mut peaks = Resident::default();
    let exit = loop {
        // The kernel keeps the peak of the whole; it is gone only when the process is.
        if let Some(now) = status.read() {
            peaks.anon = peaks.anon.max(now.anon);
            peaks.peak = peaks.peak.max(now.peak);
        }
        if let Some(exit) = child.try_wait()? {
            break exit;
        }
        thread::sleep(INTERVAL);
    };
    if exit.success() {
        Ok(peaks)
    } else {
        Err(format!("ck {}: {exit}", args.join(" ")).into())
    }
}
