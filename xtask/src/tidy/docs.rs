use std::collections::BTreeSet;

use crate::workspace::Package;

/// The document `name` must name every crate of the workspace, and no crate that does not exist.
pub(super) fn problems(name: &str, text: &str, members: &[Package]) -> Vec<String> {
    let named = crate_names(text);
    let exists = |name: &str| members.iter().any(|package| package.name == name);
    let missing = members
        .iter()
        .filter(|package| package.name.starts_with("ck-") && !named.contains(package.name.as_str()))
        .map(|package| format!("{name}: does not name the crate {}", package.name));
    let unknown = named
        .iter()
        .filter(|crate_name| !exists(crate_name))
        .map(|crate_name| {
            format!("{name}: names {crate_name}, which is no crate of the workspace")
        });
    missing.chain(unknown).collect()
}

/// The words of `text` that look like `ck-name`.
fn crate_names(text: &str) -> BTreeSet<&str> {
    text.split(|c: char| !c.is_ascii_alphanumeric() && !matches!(c, '-' | '_'))
        .map(|word| word.trim_end_matches('-'))
        .filter(|word| word.len() > "ck-".len() && word.starts_with("ck-"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::crates::tests::package;

    #[test]
    fn a_document_that_names_the_crates_is_fine() {
        let members = [
            package("ck-core", &[]),
            package("ck-cli", &[]),
            package("xtask", &[]),
        ];
        let text =
            "`ck-core` (crates/ck-core/) is quick-start; cargo run -p ck-cli -- demo; CK_STORE";
        assert_eq!(problems("README.md", text, &members), [""; 0]);
    }

    #[test]
    fn a_crate_that_is_not_named_is_a_problem() {
        let members = [package("ck-core", &[]), package("ck-cli", &[])];
        let found = problems("README.md", "only ck-core", &members);
        assert_eq!(found, ["README.md: does not name the crate ck-cli"]);
    }

    #[test]
    fn a_name_without_a_crate_is_a_problem() {
        let found = problems("README.md", "ck-core, ck-moon.", &[package("ck-core", &[])]);
        assert_eq!(
            found,
            ["README.md: names ck-moon, which is no crate of the workspace"]
        );
    }
}
