//! Virtual environments with exactly the packages of a file.

use std::fs;
use std::path::{Path, PathBuf};

use crate::cmd::Cmd;
use crate::workspace::{read, write};
use crate::{Result, debian};

/// The interpreter of an environment in `dir` that has the pinned packages of `requirements`.
pub(crate) fn environment(requirements: &Path, dir: &Path) -> Result<PathBuf> {
    let pins = read(requirements)?;
    let (python, stamp) = (dir.join("bin/python"), dir.join("requirements.txt"));
    if is_current(&stamp, &pins) && Cmd::new(&python).arg("--version").succeeds() {
        return Ok(python);
    }
    ensure_venv_module()?;
    eprintln!("installing Python packages into {}", dir.display());
    Cmd::new("python3")
        .args(["-m", "venv", "--clear"])
        .arg(dir)
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
    use crate::workspace::{root, target_dir};

    #[test]
    fn every_requirement_is_pinned_to_one_version() {
        for (file, one) in [
            ("xtask/interop/requirements.txt", "cachekit[data]==0.24.1"),
            ("benches/compare/requirements.txt", "polars==2.1.0"),
        ] {
            let pins = read(&root().join(file)).unwrap();
            let pins: Vec<_> = pins
                .lines()
                .filter(|line| !line.starts_with('#') && !line.is_empty())
                .collect();
            assert!(pins.iter().all(|pin| pin.contains("==")), "{pins:?}");
            assert!(pins.contains(&one), "{file}");
        }
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
