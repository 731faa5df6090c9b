//! What each library crate costs a program that uses it: bytes and other crates.
//!
//! The programs are `xtask/size/CRATE.rs`. They are built as any user would build them, with the
//! release profile as it is and symbols stripped, from the versions in our `Cargo.lock`, in a
//! workspace of their own, so that nothing else of ours turns features on for them.

mod baseline;
mod closure;

use std::path::PathBuf;
use std::{env, fs};

use self::baseline::{Baseline, Entry};
use crate::cmd::Cmd;
use crate::report::{self, Table};
use crate::workspace::{Metadata, Package, read, root, target_dir, write};
use crate::{Result, unknown_argument};

pub(crate) const USAGE: &str = "size [--bless REASON]
    Builds a minimal program for each library crate and compares its stripped size and the crates
    it brings with xtask/size.toml. More than 2 % or one new crate fails, until `--bless` writes
    the new figures with the reason for them.
";

/// The program that uses nothing: what the standard library costs.
const EMPTY: &str = "empty";

pub(crate) fn run(args: &[String]) -> Result<()> {
    let reason = match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => None,
        ["--bless", reason] if !reason.trim().is_empty() && !reason.starts_with('-') => {
            Some(reason)
        }
        ["--bless", ..] => return Err("--bless needs the reason, in one argument".to_owned()),
        [arg, ..] => return Err(unknown_argument(arg)),
    };
    let toolchain = toolchain()?;
    let path = root().join("xtask/size.toml");
    let old = if path.is_file() {
        Baseline::parse(&read(&path)?)?
    } else {
        Baseline::default()
    };

    let metadata = Metadata::load()?;
    let programs = Programs::generate(&metadata)?;
    let empty = programs.build(EMPTY)?;
    let mut table = Table::new(&[
        "crate",
        "bytes",
        "above empty",
        "baseline",
        "change",
        "crates",
    ]);
    let mut new = Baseline {
        toolchain: toolchain.clone(),
        entries: old.entries.clone(),
    };
    let (mut failures, mut notes) = (Vec::new(), Vec::new());
    for package in metadata.libraries() {
        let name = &package.name;
        let now = Entry {
            bytes: programs.build(name)?,
            crates: programs.closure(name)?,
            reason: String::new(),
        };
        let before = old.entries.get(name);
        table.row([
            name.clone(),
            now.bytes.to_string(),
            now.bytes.saturating_sub(empty).to_string(),
            before.map_or_else(|| "-".to_owned(), |entry| entry.bytes.to_string()),
            before.map_or_else(
                || "-".to_owned(),
                |entry| baseline::change(entry.bytes, now.bytes),
            ),
            now.crates.len().to_string(),
        ]);
        report::metric(&format!("size.{name}"), now.bytes, "bytes");
        report::metric(&format!("crates.{name}"), now.crates.len(), "crates");
        failures.extend(closure::intruders(name, &now.crates));
        let verdict = baseline::compare(name, before, &now);
        if let (Some(reason), true) = (reason, verdict.has_changed()) {
            println!("blessed: {name}");
            new.entries.insert(
                name.clone(),
                Entry {
                    reason: reason.to_owned(),
                    ..now
                },
            );
        } else {
            failures.extend(verdict.failures);
            notes.extend(verdict.notes);
        }
    }
    println!("\n{}", table.text());
    report::summary("Size of a minimal program per crate", &table);
    if reason.is_some() {
        new.entries
            .retain(|name, _| metadata.libraries().any(|package| &package.name == name));
        write(&path, &new.text())?;
    } else {
        failures.extend(old.entries.keys().filter_map(|name| {
            let gone = !metadata.libraries().any(|package| &package.name == name);
            gone.then(|| format!("{name}: is in the baseline but not in the workspace"))
        }));
    }
    notes.iter().for_each(|note| println!("note: {note}"));
    failures.iter().for_each(|failure| println!("{failure}"));
    if failures.is_empty() {
        return Ok(());
    }
    if !old.toolchain.is_empty() && old.toolchain != toolchain {
        println!(
            "note: the baseline was measured with {}, this is {toolchain}",
            old.toolchain
        );
    }
    Err(format!(
        "size: {} problems; what is meant to be goes into the baseline with `cargo xtask size --bless REASON`",
        failures.len()
    ))
}

/// The compiler's version and platform, which sizes depend on.
fn toolchain() -> Result<String> {
    let version = Cmd::new("rustc").arg("-vV").output()?;
    let field = |name| version.lines().find_map(|line| line.strip_prefix(name));
    let fields = field("release: ").zip(field("host: "));
    fields
        .map(|(release, host)| format!("{release} {host}"))
        .ok_or_else(|| format!("rustc -vV: {version}"))
}

/// The generated workspace with one program per crate.
struct Programs {
    dir: PathBuf,
    target: PathBuf,
}

impl Programs {
    fn generate(metadata: &Metadata) -> Result<Self> {
        let programs = Self {
            dir: target_dir().join("size"),
            target: target_dir().join("size-build"),
        };
        let names: Vec<_> = metadata
            .libraries()
            .map(|package| package.name.as_str())
            .collect();
        let members: Vec<_> = names
            .iter()
            .chain([&EMPTY])
            .map(|name| format!("{:?}", program(name)))
            .collect();
        programs.write(
            "Cargo.toml",
            &format!(
                "[workspace]\nresolver = \"3\"\nmembers = [{}]\n\n[profile.release]\nstrip = true\n",
                members.join(", ")
            ),
        )?;
        programs.write("Cargo.lock", &read(&root().join("Cargo.lock"))?)?;
        for package in metadata.libraries() {
            programs.add(&package.name, &dependencies(package, metadata))?;
        }
        programs.add(EMPTY, "")?;
        Ok(programs)
    }

    /// The program stays where it is, beside what it shares with others.
    fn add(&self, name: &str, dependencies: &str) -> Result<()> {
        let program = program(name);
        let source = root().join(format!("xtask/size/{name}.rs"));
        let manifest = format!(
            "[package]\nname = \"{program}\"\nversion = \"0.0.0\"\nedition = \"2024\"\npublish = false\n\n\
             [[bin]]\nname = \"{program}\"\npath = {source:?}\n\n[dependencies]\n{dependencies}"
        );
        self.write(&format!("{program}/Cargo.toml"), &manifest)
    }

    /// Writes a file if it is not there already, so that cargo sees what did not change.
    fn write(&self, name: &str, text: &str) -> Result<()> {
        let path = self.dir.join(name);
        if fs::read_to_string(&path).is_ok_and(|old| old == text) {
            Ok(())
        } else {
            write(&path, text)
        }
    }

    /// Builds the program of a crate; its size in bytes.
    fn build(&self, name: &str) -> Result<u64> {
        let program = program(name);
        self.cargo("build")
            .args(["--quiet", "--release", "--package", &program])
            .arg("--target-dir")
            .arg(&self.target)
            .run()?;
        let path = self
            .target
            .join("release")
            .join(format!("{program}{}", env::consts::EXE_SUFFIX));
        let metadata =
            fs::metadata(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(metadata.len())
    }

    /// Every crate that is compiled for the program of a crate.
    fn closure(&self, name: &str) -> Result<Vec<String>> {
        let tree = self
            .cargo("tree")
            .args([
                "--package",
                &program(name),
                "--edges",
                "normal,build",
                "--prefix",
                "none",
            ])
            .args(["--format", "{p}"])
            .output()?;
        Ok(closure::parse(&tree, &[&program(name), name]))
    }

    fn cargo(&self, subcommand: &str) -> Cmd {
        Cmd::cargo().dir(&self.dir).arg(subcommand)
    }
}

fn program(name: &str) -> String {
    format!("size-{name}")
}

/// The crate with its default features, and those of ours that it needs itself, by name.
fn dependencies(package: &Package, metadata: &Metadata) -> String {
    let needs = |other: &Package| {
        let mut dependencies = package
            .dependencies
            .iter()
            .filter(|dependency| !dependency.dev && !dependency.optional);
        dependencies.any(|dependency| dependency.name == other.name)
    };
    let inner = metadata
        .libraries()
        .filter(|other| needs(other))
        .map(|other| {
            format!(
                "{} = {{ path = {:?}, default-features = false }}\n",
                other.name, other.dir
            )
        });
    let itself = format!("{} = {{ path = {:?} }}\n", package.name, package.dir);
    inner.chain([itself]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_baseline_can_be_read_and_covers_every_library() {
        let baseline = Baseline::parse(&read(&root().join("xtask/size.toml")).unwrap()).unwrap();
        for package in Metadata::load().unwrap().libraries() {
            assert!(
                baseline.entries.contains_key(&package.name),
                "{}",
                package.name
            );
        }
    }

    #[test]
    fn blessing_needs_a_reason() {
        for args in [
            &["--bless"][..],
            &["--bless", " "],
            &["--bless", "--force"],
            &["--bless", "a", "b"],
        ] {
            let args: Vec<_> = args.iter().map(|&arg| arg.to_owned()).collect();
            assert!(
                run(&args).unwrap_err().contains("needs the reason"),
                "{args:?}"
            );
        }
    }
}
