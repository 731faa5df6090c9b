//! Both directions against the Python client, live, in a virtual environment of our own.

use std::path::PathBuf;

use crate::cmd::Cmd;
use crate::workspace::{root, target_dir};
use crate::{Result, debian, python, test, unknown_argument};

pub(crate) const USAGE: &str = "interop
    Builds `ck` and the examples, and proves, with the Python clients from PyPI
    (xtask/interop/requirements.txt, installed into .venv), that each reads what the other writes.
";

pub(crate) fn run(args: &[String]) -> Result<()> {
    if let Some(arg) = args.first() {
        return Err(unknown_argument(arg));
    }
    debian::servers()?;
    // As the tests have built them: this is about bytes.
    test::programs()?;
    Cmd::new(environment()?)
        // The client's pools end with the process.
        .args(["-W", "ignore::ResourceWarning"])
        .args(["-m", "unittest", "discover", "--pattern", "*_test.py"])
        .arg("--start-directory")
        .arg(root().join("xtask/interop"))
        .env("CK", target_dir().join("debug/ck"))
        .env("CK_EXAMPLES", target_dir().join("debug/examples"))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .run()
}

/// The interpreter that has the Python clients.
pub(crate) fn environment() -> Result<PathBuf> {
    let requirements = root().join("xtask/interop/requirements.txt");
    python::environment(&requirements, &root().join(".venv"))
}
