//! Rules that no compiler checks. Each rule is a function from text to problems.

mod crates;
mod docs;
mod foreign;
mod sources;
mod vectors;

use crate::workspace::{Metadata, read, root};
use crate::{Result, unknown_argument};

pub(crate) const USAGE: &str = "tidy [--pin]
    Checks what no compiler checks: documents name every crate and no other, dependencies point
    inward, sources and licences, golden vectors. `--pin` adds new vectors to xtask/vectors.sha256.
";

pub(crate) fn run(args: &[String]) -> Result<()> {
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => {}
        ["--pin"] => vectors::pin()?,
        [arg, ..] => return Err(unknown_argument(arg)),
    }
    let problems = problems()?;
    if problems.is_empty() {
        println!("tidy");
        return Ok(());
    }
    Err(crate::list("", &problems))
}

/// Everything that is wrong, one line each.
fn problems() -> Result<Vec<String>> {
    let metadata = Metadata::load()?;
    let mut problems = Vec::new();
    for name in ["README.md", "docs/ARCHITECTURE.md"] {
        match read(&root().join(name)) {
            Ok(text) => problems.extend(docs::problems(name, &text, &metadata.members)),
            Err(error) => problems.push(error),
        }
    }
    for package in &metadata.members {
        problems.extend(crates::direction(package, &metadata.members));
    }
    for package in metadata.libraries() {
        problems.extend(crates::library(&crates::Library::load(package)?));
    }
    for package in &metadata.members {
        problems.extend(sources::of(package)?);
    }
    for name in ["LICENSE-MIT", "LICENSE-APACHE"] {
        if !root().join(name).is_file() {
            problems.push(format!("{name} is missing"));
        }
    }
    problems.extend(foreign::problems(&metadata.foreign));
    problems.extend(vectors::check()?);
    Ok(problems)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_project_is_tidy() {
        let problems = problems().unwrap();
        assert!(problems.is_empty(), "{}", problems.join("\n"));
    }
}
