//! Both directions against the Python client, live, in a virtual environment of our own.

use std::fs;
use std::path::{Path, PathBuf};

use crate::cmd::Cmd;
use crate::workspace::{read, root, target_dir, write};
use crate::{Result, debian, unknown_argument};

pub(crate) const USAGE: &str = "interop
    Builds `ck` and the examples of ck-codec, and proves, with the Python clients from PyPI
    (xtask/interop/requirements.txt, installed into .venv), that each reads what the other writes.
";

pub(crate) fn run(args: &[String]) -> Result<()> {
    if let Some(arg) = args.first() {
        return Err(unknown_argument(arg));
    }
    debian::servers()?;
    Cmd::cargo()
        .args(["build", "--release", "--package", "ck-cli"])
        .run()?;
    Cmd::cargo()
        .args(["build", "--package", "ck-codec", "--examples"])
        .run()?;
    let python = environment()?;
    Cmd::new(python)
        // The client's pools end with the process.
        .args(["-W", "ignore::ResourceWarning"])
        .args(["-m", "unittest", "discover", "--pattern", "*_test.py"])
        .arg("--start-directory")
        .arg(root().join("xtask/interop"))
        .env("CK", target_dir().join("release/ck"))
        .env("CK_EXAMPLES", target_dir().join("debug/examples"))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .run()
}

/// The interpreter of an environment that has exactly the pinned packages.
fn environment() -> Result<PathBuf> {
    let requirements = root().join("xtask/interop/requirements.txt");
    let pins = read(&requirements)?;
    let dir = root().join(".venv");
    let (python, stamp) = (dir.join("bin/python"), dir.join("requirements.txt"));
    if is_current(&stamp, &pins) && Cmd::new(&python).arg("--version").succeeds() {
        return Ok(python);
    }
    ensure_venv_module()?;
    println!("installing the Python client into {}", dir.display());
    Cmd::new("python3")
        .args(["-m", "venv", "--clear"])
        .arg(&dir)
        .run()?;
    Cmd::new(&python)
        .args(["-m", "pip", "install", "--quiet", "--requirement"])
        .arg(requirements)
        .run()?;
    write(&stamp, &pins)?;
    Ok(python)
}

/// Whether an environment was made from these pins.
fn is_current(stamp: &Path, pins: &str) -> bool {
    fs::read_to_string(stamp).is_ok_and(|made_from| made_from == pins)
}

/// Debian and Ubuntu ship Python without it.
fn ensure_venv_module() -> Result<()> {
    let present = || {
        Cmd::new("python3")
            .args(["-c", "import venv, ensurepip"])
            .succeeds()
    };
    debian::install(&["python3-venv"], present)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_requirement_is_pinned_to_one_version() {
        let pins = read(&root().join("xtask/interop/requirements.txt")).unwrap();
        let pins: Vec<_> = pins
            .lines()
            .filter(|line| !line.starts_with('#') && !line.is_empty())
            .collect();
        assert!(pins.iter().all(|pin| pin.contains("==")), "{pins:?}");
        assert!(pins.contains(&"cachekit[data]==0.24.1"));
    }

    #[test]
    fn other_pins_call_for_another_environment() {
        let stamp = target_dir().join("xtask-tests/requirements.txt");
        write(&stamp, "a==1\n").unwrap();
        assert!(is_current(&stamp, "a==1\n"));
        assert!(!is_current(&stamp, "a==2\n"));
        assert!(!is_current(
            Path::new("/nowhere/requirements.txt"),
            "a==1\n"
        ));
    }
}
