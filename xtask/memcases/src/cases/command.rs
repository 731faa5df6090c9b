//! The command `ck`, as a process of its own: its whole peak, program and libraries included.

use std::env;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use super::{Setting, TABLE};
use crate::Result;
use crate::probe::Metrics;
use crate::rss::Status;

const INTERVAL: Duration = Duration::from_millis(1);

/// `ck get` of the table into a file of this kind, and `ck put` of that file.
pub(super) fn round_trip(setting: &Setting, kind: &str) -> Result<Metrics> {
    let file = setting.dir.join(format!("table.{kind}"));
    let mut metrics = Metrics::new();
    metrics.insert(
        "get".to_owned(),
        ck(setting, &["get", TABLE, "-o"], &file)?.into(),
    );
    metrics.insert(
        "put".to_owned(),
        ck(setting, &["put", "again"], &file)?.into(),
    );
    Ok(metrics)
}

/// The peak of the resident size of the command.
fn ck(setting: &Setting, args: &[&str], file: &Path) -> Result<u64> {
    let program = env::var_os("CK").ok_or("CK does not name the command")?;
    let mut child = Command::new(program)
        .args(["--store", &setting.url()])
        .args(args)
        .arg(file)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()?;
    let status = Status::of(child.id())?;
    let mut peak = 0;
    let exit = loop {
        // The kernel keeps the peak; it is gone only when the process is.
        if let Some(resident) = status.read() {
            peak = peak.max(resident.peak);
        }
        if let Some(exit) = child.try_wait()? {
            break exit;
        }
        thread::sleep(INTERVAL);
    };
    if exit.success() {
        Ok(peak)
    } else {
        Err(format!("ck {}: {exit}", args.join(" ")).into())
    }
}
