//! What tests need of the system.

use std::sync::{Mutex, PoisonError};

use crate::Result;
use crate::cmd::Cmd;

/// Installs the servers that tests and measurements start.
pub(crate) fn servers() -> Result<()> {
    install(&["redis-server", "memcached"], || {
        let programs = [
            ("redis-server", "--version"),
            ("redis-cli", "--version"),
            ("memcached", "-V"),
        ];
        let answers =
            |&(program, version): &(&str, &str)| Cmd::new(program).arg(version).succeeds();
        programs.iter().all(answers)
    })
}

/// Installs Debian packages unless what they bring is `present`; without the rights for that, says which.
pub(crate) fn install(packages: &[&str], present: impl Fn() -> bool) -> Result<()> {
    // Nor does the system install more than one thing at a time.
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _one = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    if present() {
        return Ok(());
    }
    let by_hand = || {
        let packages = packages.join(" ");
        Err(format!(
            "Debian packages are needed: apt-get install {packages}"
        ))
    };
    if Cmd::new("id").arg("-u").output()?.trim() != "0" {
        return by_hand();
    }
    let apt = |args: &[&str]| {
        Cmd::new("apt-get")
            .args(args)
            .env("DEBIAN_FRONTEND", "noninteractive")
            .run()
    };
    apt(&["update"])?;
    apt(&[&["install", "--yes"], packages].concat())?;
    if present() { Ok(()) } else { by_hand() }
}
