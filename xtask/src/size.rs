//! What each library crate costs a program that uses it: bytes and other crates.
//!
//! The programs are in `xtask/size`. They are built as somebody would who minds the size and gives
//! up no speed for it: the release profile, `panic = "abort"`, symbols stripped; from the versions in
//! our `Cargo.lock`, in a workspace of their own, so that nothing else of ours turns features on for
//! them. With unwinding they are a fifth to a third larger.

mod baseline;
mod closure;
mod features;
mod programs;

use std::path::PathBuf;
use std::{env, fs};

use self::baseline::{Baseline, Entry};
use self::programs::Program;
use crate::cmd::Cmd;
use crate::report::{self, Table};
use crate::workspace::{Metadata, Package, read, root, target_dir, write};
use crate::{Result, unknown_argument};

pub(crate) const USAGE: &str = "size [--bless REASON]
    Builds a minimal program for each library crate, and for sets of features that people choose, and
    compares its stripped size and the crates it brings with xtask/size.toml. More than 2 % or one
    new crate fails, until `--bless` writes the new figures with the reason for them; more than a
    program's budget fails whatever the baseline. What each feature alone brings is held against the
    crates that must stay out, or belong to another.
";

/// The program that uses nothing: what the standard library costs.
const EMPTY: &str = "empty";

/// What programs share would be built again for each combination of features that some of them turn on in what it is
/// built upon. So all of them turn on those that bring no code: programs with Arrow,
const UNDER_ARROW: &str = "\
bitflags = { version = \"2\", default-features = false, features = [\"std\"] }
futures-core = \"0.3\"
libc = \"0.2\"
once_cell = { version = \"1\", default-features = false, features = [\"std\"] }
serde_core = { version = \"1\", default-features = false, features = [\"alloc\", \"result\", \"std\"] }
twox-hash = { version = \"2\", default-features = false, features = [\"xxhash32\", \"xxhash3_128\"] }
";

/// and in what runs when they are compiled;
const UNDER_ARROW_AT_COMPILE_TIME: &str = "\
syn = { version = \"3\", default-features = false, features = [\"extra-traits\", \"fold\", \"visit\"] }
";

/// what compiles C for programs with TLS, of which those with Arrow have it anyway;
const UNDER_TLS_AT_COMPILE_TIME: &str = "\
cc = { version = \"1\", default-features = false, features = [\"parallel\"] }
";

/// those that keep values in process.
const UNDER_MOKA: &str = "\
smallvec = { version = \"1\", default-features = false, features = [\"const_generics\"] }
";

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
    let all = programs::all(&metadata);
    let programs = Programs::generate(&metadata, &all)?;
    let empty = programs.build(EMPTY)?;
    let mut table = Table::new(&[
        "program",
        "bytes",
        "above empty",
        "baseline",
        "change",
        "budget",
        "crates",
    ]);
    let mut new = Baseline {
        toolchain: toolchain.clone(),
        entries: old.entries.clone(),
    };
    let (mut failures, mut notes) = (Vec::new(), Vec::new());
    for program in &all {
        let name = &program.name;
        let now = Entry {
            bytes: programs.build(name)?,
            crates: programs.closure(program)?,
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
            program
                .budget
                .map_or_else(|| "-".to_owned(), |(most, _)| most.to_string()),
            now.crates.len().to_string(),
        ]);
        failures.extend(program.beyond_budget(now.bytes));
        report::metric(&format!("size.{name}"), now.bytes, "bytes");
        report::metric(&format!("crates.{name}"), now.crates.len(), "crates");
        failures.extend(closure::intruders(name, &program.library, &now.crates));
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
    failures.extend(closure::intruders_of_command(&closure_of_command()?));
    failures.extend(features::intruders(&metadata)?);
    println!("\n{}", table.text());
    report::summary("Size of a minimal program per crate", &table);
    if reason.is_some() {
        new.entries.retain(|name, _| is_program(&all, name));
        write(&path, &new.text())?;
    } else {
        failures.extend(stale(&old, &all));
    }
    notes.iter().for_each(|note| println!("note: {note}"));
    if failures.is_empty() {
        return Ok(());
    }
    if !old.toolchain.is_empty() && old.toolchain != toolchain {
        println!(
            "note: the baseline was measured with {}, this is {toolchain}",
            old.toolchain
        );
    }
    let advice =
        "; what is meant to be goes into the baseline with `cargo xtask size --bless REASON`";
    Err(crate::list(advice, &failures))
}

/// Every other crate that is compiled for the command, whose size nobody counts.
fn closure_of_command() -> Result<Vec<String>> {
    let tree = tree(Cmd::cargo().arg("tree"), closure::COMMAND)
        .arg("--all-features")
        .output()?;
    Ok(closure::parse(&tree, &[closure::COMMAND]))
}

/// What `cargo tree`, given as `cargo`, is asked for a package.
fn tree(cargo: Cmd, package: &str) -> Cmd {
    cargo.args(["--package", package]).args([
        "--edges",
        "normal,build",
        "--prefix",
        "none",
        "--format",
        "{p}",
    ])
}

/// What the baseline has of programs that there are no longer.
fn stale(baseline: &Baseline, all: &[Program]) -> Vec<String> {
    let names = baseline.entries.keys();
    let gone = names.filter(|name| !is_program(all, name));
    gone.map(|name| format!("{name}: is in the baseline but is no program"))
        .collect()
}

fn is_program(all: &[Program], name: &str) -> bool {
    all.iter().any(|program| program.name == name)
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
    fn generate(metadata: &Metadata, all: &[Program]) -> Result<Self> {
        let programs = Self {
            dir: target_dir().join("size"),
            target: target_dir().join("size-build"),
        };
        let names = all.iter().map(|program| program.name.as_str());
        let members: Vec<_> = names
            .chain([EMPTY])
            .map(|name| format!("{:?}", binary(name)))
            .collect();
        programs.write(
            "Cargo.toml",
            &format!(
                "[workspace]\nresolver = \"3\"\nmembers = [{}]\n\n[profile.release]\npanic = \"abort\"\nstrip = true\n",
                members.join(", ")
            ),
        )?;
        programs.write("Cargo.lock", &read(&root().join("Cargo.lock"))?)?;
        for program in all {
            let dependencies = dependencies(program, metadata)?;
            programs.add(&program.name, &program.source, &dependencies)?;
        }
        programs.add(EMPTY, EMPTY, "")?;
        Ok(programs)
    }

    /// The program stays where it is, beside what it shares with others.
    fn add(&self, name: &str, source: &str, dependencies: &str) -> Result<()> {
        let program = binary(name);
        let source = root().join(format!("xtask/size/{source}.rs"));
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

    /// Builds a program; its size in bytes.
    fn build(&self, name: &str) -> Result<u64> {
        let program = binary(name);
        Cmd::cargo_aside()
            .dir(&self.dir)
            .args(["build", "--quiet", "--release", "--package", &program])
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

    /// Every other crate that is compiled for a program.
    fn closure(&self, program: &Program) -> Result<Vec<String>> {
        let binary = binary(&program.name);
        let tree = tree(Cmd::cargo().dir(&self.dir).arg("tree"), &binary).output()?;
        Ok(closure::parse(&tree, &[&binary, &program.library]))
    }
}

/// The package of a program; a package has no `+` in its name.
fn binary(name: &str) -> String {
    format!("size-{}", name.replace('+', "-"))
}

/// The library crate with the program's features, and those of ours that it needs itself, by name.
fn dependencies(program: &Program, metadata: &Metadata) -> Result<String> {
    let mut libraries = metadata.libraries();
    let library = libraries.find(|package| package.name == program.library);
    let library = library.ok_or_else(|| format!("{}: no such crate", program.library))?;
    let needs = |other: &Package| {
        let mut dependencies = library
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
    let features = match program.features {
        None => String::new(),
        Some(features) => format!(", default-features = false, features = {features:?}"),
    };
    let itself = format!(
        "{} = {{ path = {:?}{features} }}\n",
        library.name, library.dir
    );
    let mut dependencies: String = inner.chain([itself]).collect();
    let has = |name: &str| {
        let mut all = library.dependencies.iter();
        all.any(|dependency| dependency.name == name && !dependency.dev)
    };
    if has("moka") || has("ck-l1") {
        dependencies.push_str(UNDER_MOKA);
    }
    if has("arrow-array") {
        dependencies.push_str(UNDER_ARROW);
        dependencies.push_str("\n[build-dependencies]\n");
        dependencies.push_str(UNDER_ARROW_AT_COMPILE_TIME);
    } else if has("redis") && program.features.is_none() {
        dependencies.push_str("\n[build-dependencies]\n");
        dependencies.push_str(UNDER_TLS_AT_COMPILE_TIME);
    }
    Ok(dependencies)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_baseline_can_be_read_and_covers_every_program() {
        let baseline = Baseline::parse(&read(&root().join("xtask/size.toml")).unwrap()).unwrap();
        for program in programs::all(&Metadata::load().unwrap()) {
            let name = program.name;
            assert!(baseline.entries.contains_key(&name), "{name}");
        }
    }

    #[test]
    fn the_crates_of_the_command_are_known_and_allowed() {
        let crates = closure_of_command().unwrap();
        assert!(crates.iter().any(|entry| entry.starts_with("clap ")));
        assert_eq!(closure::intruders_of_command(&crates), [""; 0]);
    }

    #[test]
    fn a_baseline_of_a_program_that_is_gone_is_reported() {
        let all = programs::all(&Metadata::load().unwrap());
        let mut baseline = Baseline::default();
        for name in [all[0].name.as_str(), "ck-gone"] {
            baseline.entries.insert(
                name.to_owned(),
                Entry {
                    bytes: 1,
                    crates: Vec::new(),
                    reason: "it was there".to_owned(),
                },
            );
        }
        assert_eq!(
            stale(&baseline, &all),
            ["ck-gone: is in the baseline but is no program"]
        );
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
