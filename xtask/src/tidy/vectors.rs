use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::Result;
use crate::workspace::{files_under, read, root, write};

/// The hashes of all golden vectors, as `sha256sum` writes them.
const PINS: &str = "xtask/vectors.sha256";

/// Where the vectors come from, when it is there.
const SHARED: &str = "../shared/vectors";

/// Hashes by path from the root.
type Hashes = BTreeMap<String, String>;

pub(super) fn check() -> Result<Vec<String>> {
    let vectors = find()?;
    let found = hashes(&vectors)?;
    let mut problems = compare(&parse(&read(&root().join(PINS))?), &found);
    let shared = files_under(&root().join(SHARED))?;
    for vector in &vectors {
        if let Some(original) = original(&vector.inner, &shared)
            && found.get(&vector.name) != Some(&hash(original)?)
        {
            problems.push(format!("{}: differs from {SHARED}", vector.name));
        }
    }
    Ok(problems)
}

/// Adds the vectors that are not pinned yet. What is pinned stays as it is.
pub(super) fn pin() -> Result<()> {
    let path = root().join(PINS);
    let mut pins = if path.is_file() {
        parse(&read(&path)?)
    } else {
        Hashes::new()
    };
    for (name, hash) in hashes(&find()?)? {
        pins.entry(name).or_insert(hash);
    }
    let lines: Vec<_> = pins
        .iter()
        .map(|(name, hash)| format!("{hash}  {name}\n"))
        .collect();
    write(&path, &lines.concat())
}

struct Vector {
    /// The path from the root.
    name: String,
    path: PathBuf,
    /// The path from the `vectors` directory.
    inner: PathBuf,
}

/// The file that a vector is a copy of: the one at the same place, or with the same name.
fn original<'a>(inner: &Path, shared: &'a [PathBuf]) -> Option<&'a PathBuf> {
    let same_name = || {
        shared
            .iter()
            .find(|path| path.file_name() == inner.file_name())
    };
    shared
        .iter()
        .find(|path| path.ends_with(Path::new("vectors").join(inner)))
        .or_else(same_name)
}

/// The vectors in the tests of all crates, without the lists that describe them.
fn find() -> Result<Vec<Vector>> {
    let mut vectors = Vec::new();
    for path in files_under(&root().join("crates"))? {
        let Ok(name) = path.strip_prefix(root()) else {
            continue;
        };
        let mut parts = name.iter().skip(2);
        let is_vector = parts.next().is_some_and(|part| part == "tests")
            && parts.next().is_some_and(|part| part == "vectors");
        let inner: PathBuf = parts.collect();
        let describes = inner.extension().is_some_and(|extension| extension == "md")
            || inner.to_string_lossy().starts_with("manifest");
        if is_vector && !describes {
            vectors.push(Vector {
                name: name.display().to_string(),
                path,
                inner,
            });
        }
    }
    Ok(vectors)
}

fn hashes(vectors: &[Vector]) -> Result<Hashes> {
    vectors
        .iter()
        .map(|vector| Ok((vector.name.clone(), hash(&vector.path)?)))
        .collect()
}

fn hash(path: &Path) -> Result<String> {
    let bytes = fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect())
}

fn parse(text: &str) -> Hashes {
    text.lines()
        .filter_map(|line| line.split_once("  "))
        .map(|(hash, name)| (name.to_owned(), hash.to_owned()))
        .collect()
}

fn compare(pins: &Hashes, found: &Hashes) -> Vec<String> {
    let kept = pins.iter().filter_map(|(name, pin)| match found.get(name) {
        None => Some(format!("{name}: a golden vector was removed")),
        Some(hash) if hash != pin => Some(format!("{name}: a golden vector was changed")),
        Some(_) => None,
    });
    let new = found
        .keys()
        .filter(|name| !pins.contains_key(*name))
        .map(|name| format!("{name}: is not in {PINS}; add it with `cargo xtask tidy --pin`"));
    kept.chain(new).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "aa  crates/a/tests/vectors/1.ck\nbb  crates/a/tests/vectors/2.ck\n";

    #[test]
    fn vectors_that_are_as_pinned_are_fine() {
        assert_eq!(compare(&parse(TEXT), &parse(TEXT)), [""; 0]);
    }

    #[test]
    fn the_original_of_a_vector_is_found_by_its_place_or_its_name() {
        let shared = [
            "/s/vectors/a/0.ck",
            "/s/vectors/b/0.ck",
            "/s/vectors/filedir/e1",
        ]
        .map(PathBuf::from);
        assert_eq!(original(Path::new("b/0.ck"), &shared), Some(&shared[1]));
        assert_eq!(original(Path::new("e1"), &shared), Some(&shared[2]));
        assert_eq!(original(Path::new("own"), &shared), None);
    }

    #[test]
    fn a_removed_a_changed_and_a_new_vector_are_problems() {
        let found = parse("ax  crates/a/tests/vectors/1.ck\ncc  crates/a/tests/vectors/3.ck\n");
        let problems = compare(&parse(TEXT), &found);
        assert_eq!(problems.len(), 3);
        assert!(problems[0].contains("1.ck: a golden vector was changed"));
        assert!(problems[1].contains("2.ck: a golden vector was removed"));
        assert!(problems[2].contains("3.ck: is not in"));
    }
}
