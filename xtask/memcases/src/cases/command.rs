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
    let get = watched(&mut ck(setting, &["get", TABLE, "-o"], &file)?)?;
    let put = watched(&mut ck(setting, &["put", "again"], &file)?)?;
    figures(Some(&get), put)
}

/// `ck put` of an Arrow file whose batches are as large as can be.
pub(super) fn put_large_batches(setting: &Setting, make: Make) -> Result<Figures> {
    let file = setting.dir.join("table.arrow");
    write_arrow(&file, setting, make)?;
    let put = watched(&mut ck(setting, &["put", "large"], &file)?)?;
    figures(None, put)
}

/// A command that holds all of its source in memory, in place of both.
pub(super) fn hoard(setting: &Setting) -> Result<Figures> {
    let mut hoarding = Command::new(env::current_exe()?);
    hoarding
        .args(["inside", super::HOARD, &setting.bytes.to_string()])
        .arg(&setting.dir);
    let hoarded = watched(&mut hoarding)?;
    let get = Figures {
        metrics: hoarded.metrics.clone(),
        series: None,
    };
    figures(Some(&get), hoarded)
}

/// `put`, the whole peak of a put, and `get_anon`, that of heap and stacks of a get.
fn figures(get: Option<&Figures>, put: Figures) -> Result<Figures> {
    let mut figures = Figures::default();
    if let Some(get) = get {
        figures.add("get_anon", get.bytes("anon")?);
    }
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

fn ck(setting: &Setting, args: &[&str], file: &Path) -> Result<Command> {
    let mut command = Command::new(env::var_os("CK").ok_or("CK does not name the command")?);
    command
        .args(["--store", &setting.directory()])
        .args(args)
        .arg(file);
    Ok(command)
}

/// The peaks of a command.
fn watched(command: &mut Command) -> Result<Figures> {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn()?;
    let mut watch = Watch::whole(&child)?;
    let mut exit = None;
    watch.until(|| {
        exit = child.try_wait()?;
        Ok(exit.is_some())
    })?;
    match exit {
        Some(exit) if exit.success() => Ok(watch.figures()),
        exit => Err(format!("{command:?}: {exit:?}").into()),
    }
}
