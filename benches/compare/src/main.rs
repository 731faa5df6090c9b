//! The same work on both sides, ours and a peer's: in turns within one run, each figure under its own name.
//!
//! `cargo xtask bench` builds and runs this, and makes tables and pictures of the JSON lines that it prints:
//! one about the run, then one for each row, with the seconds of every round.

mod ipc;
mod python;
mod row;
mod rows;
mod run;
mod scene;
mod tables;

use std::path::PathBuf;

use crate::scene::Scene;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

const USAGE: &str = "compare [--quick] [--only PATTERN] [--python PYTHON] [--dir DIR]
    --quick    tables of 32 MiB instead of 256, fewer rounds, and no memory
    --only     rows whose names contain PATTERN
    --python   the interpreter with the packages of requirements.txt; without it their rows are left out
    --dir      where files are written (default: the system's temporary directory)
    --side     (of the program itself) `ours` or `peer` of the row of this name alone, for its memory";

struct Options {
    quick: bool,
    only: String,
    python: Option<PathBuf>,
    dir: PathBuf,
    side: Option<String>,
}

fn options() -> Result<Options> {
    let mut options = Options {
        quick: false,
        only: String::new(),
        python: None,
        dir: std::env::temp_dir(),
        side: None,
    };
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        if name == "--quick" {
            options.quick = true;
            continue;
        }
        let value = arguments
            .next()
            .ok_or_else(|| format!("{name} means nothing alone\n{USAGE}"))?;
        match name.as_str() {
            "--only" => options.only = value,
            "--python" => options.python = Some(value.into()),
            "--dir" => options.dir = value.into(),
            "--side" => options.side = Some(value),
            _ => return Err(format!("unknown argument {name}\n{USAGE}").into()),
        }
    }
    Ok(options)
}

fn main() -> Result<()> {
    let options = options()?;
    if let Some(side) = &options.side {
        // The directory is the parent's.
        let scene = Scene::new(
            options.dir.clone(),
            options.quick,
            options.python.clone(),
            true,
        )?;
        return run::memory_of(&scene, &rows::all(&scene), &options.only, side);
    }
    let dir = options
        .dir
        .join(format!("ck-compare-{}", std::process::id()));
    std::fs::create_dir_all(&dir)?;
    let result = (|| {
        let scene = Scene::new(dir.clone(), options.quick, options.python.clone(), false)?;
        run::compare(&scene, &rows::all(&scene), &options.only)
    })();
    std::fs::remove_dir_all(&dir)?;
    result
}
