//! The command `ck`, as a process of its own: its whole peak, program and libraries included.

use std::env;
use std::fs::File;
use std::io::BufWriter;
use std::path::Path;
use std::process::{Command, Stdio};

use arrow_ipc::writer::FileWriter;

use super::{Setting, TABLE};
use crate::Result;
use crate::probe::Figures;
use crate::tables::Make;
use crate::watch::Watch;

/// `ck get` of the table into a file of this kind, and `ck put` of that file.
pub(super) fn round_trip(setting: &Setting, kind: &str) -> Result<Figures> {
    let file = setting.dir.join(format!("table.{kind}"));
    let get = ck(setting, &["get", TABLE, "-o"], &file)?;
    let put = ck(setting, &["put", "again"], &file)?;
    let mut figures = Figures::default();
    figures.add("get_anon", get.bytes("anon")?);
    figures.add("put", put.bytes("rss")?);
    figures.series = put.series;
    Ok(figures)
}

/// `ck put` of an Arrow file whose batches are as large as can be.
pub(super) fn put_large_batches(setting: &Setting, make: Make) -> Result<Figures> {
    let file = setting.dir.join("table.arrow");
    write_arrow(&file, setting, make)?;
    let put = ck(setting, &["put", "large"], &file)?;
    let mut figures = Figures::default();
    figures.add("put", put.bytes("rss")?);
    figures.series = put.series;
    Ok(figures)
}

fn write_arrow(file: &Path, setting: &Setting, make: Make) -> Result<()> {
    let batches = make(setting.bytes)?;
    let out = BufWriter::new(File::create(file)?);
    let mut writer = FileWriter::try_new(out, &batches[0].schema())?;
    for batch in batches {
        writer.write(&batch)?;
    }
    Ok(writer.finish()?)
}

/// The peaks of the command.
fn ck(setting: &Setting, args: &[&str], file: &Path) -> Result<Figures> {
    let program = env::var_os("CK").ok_or("CK does not name the command")?;
    let mut child = Command::new(program)
        .args(["--store", &setting.directory()])
        .args(args)
        .arg(file)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()?;
    let mut watch = Watch::whole(&child)?;
    let mut exit = None;
    watch.until(|| {
        exit = child.try_wait()?;
        Ok(exit.is_some())
    })?;
    match exit {
        Some(exit) if exit.success() => Ok(watch.figures()),
        exit => Err(format!("ck {}: {exit:?}", args.join(" ")).into()),
    }
}
