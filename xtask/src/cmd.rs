use std::ffi::{OsStr, OsString};
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::Mutex;
use std::{env, fmt, thread};

use crate::{Result, workspace};

/// A child process, started in the root of the workspace unless told otherwise.
pub(crate) struct Cmd(Command);

impl Cmd {
    pub(crate) fn new(program: impl AsRef<OsStr>) -> Self {
        let mut command = Command::new(program);
        command.current_dir(workspace::root()).stdin(Stdio::null());
        Self(command)
    }

    /// The cargo that runs this very command.
    pub(crate) fn cargo() -> Self {
        Self::new(cargo()).without_package()
    }

    /// The same, with what others leave of the processor.
    pub(crate) fn cargo_aside() -> Self {
        let nice = Self::new("nice").args(["-n", "19"]);
        nice.arg(cargo()).without_package()
    }

    /// Without what cargo told this command about its package: build scripts look at that, and would run again
    /// whenever somebody calls cargo without us.
    fn without_package(mut self) -> Self {
        for (name, _) in env::vars_os() {
            let about_us = ["CARGO_PKG_", "CARGO_MANIFEST_"];
            if about_us
                .iter()
                .any(|start| name.as_encoded_bytes().starts_with(start.as_bytes()))
            {
                self.0.env_remove(name);
            }
        }
        self
    }

    pub(crate) fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.0.arg(arg);
        self
    }

    pub(crate) fn args(mut self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        self.0.args(args);
        self
    }

    pub(crate) fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.0.env(name, value);
        self
    }

    pub(crate) fn dir(mut self, dir: impl AsRef<std::path::Path>) -> Self {
        self.0.current_dir(dir);
        self
    }

    /// Runs it with our own output; fails when it does.
    pub(crate) fn run(mut self) -> Result<()> {
        let status = self.0.status().map_err(|error| self.not_started(&error))?;
        self.check(status, "")
    }

    /// Runs it and returns what it wrote to stdout.
    pub(crate) fn output(mut self) -> Result<String> {
        let output = self.0.output().map_err(|error| self.not_started(&error))?;
        self.check(output.status, &String::from_utf8_lossy(&output.stderr))?;
        String::from_utf8(output.stdout).map_err(|_| format!("`{self}` did not write UTF-8"))
    }

    /// Runs it and returns what it wrote to stdout, with our own stderr for its progress.
    pub(crate) fn stdout(mut self) -> Result<String> {
        let output = self.0.stderr(Stdio::inherit()).output();
        let output = output.map_err(|error| self.not_started(&error))?;
        self.check(output.status, "")?;
        String::from_utf8(output.stdout).map_err(|_| format!("`{self}` did not write UTF-8"))
    }

    /// Whether it can be started and succeeds; its output is dropped.
    pub(crate) fn succeeds(mut self) -> bool {
        let quiet = self.0.stdout(Stdio::null()).stderr(Stdio::null());
        quiet.status().is_ok_and(|status| status.success())
    }

    /// Runs it with its output passed on, and returns the lines that `keep` wants to see again.
    pub(crate) fn tee(mut self, keep: fn(&str) -> bool) -> (Vec<String>, Result<()>) {
        let kept = Mutex::new(Vec::new());
        let spawned = self.0.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut child = match spawned {
            Ok(child) => child,
            Err(error) => return (Vec::new(), Err(self.not_started(&error))),
        };
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        thread::scope(|scope| {
            scope.spawn(|| pass_on(stdout, std::io::stdout(), keep, &kept));
            scope.spawn(|| pass_on(stderr, std::io::stderr(), keep, &kept));
        });
        let kept = kept.into_inner().unwrap_or_default();
        let result = match child.wait() {
            Ok(status) => self.check(status, ""),
            Err(error) => Err(format!("`{self}`: {error}")),
        };
        (kept, result)
    }

    fn check(&self, status: ExitStatus, stderr: &str) -> Result<()> {
        if status.success() {
            return Ok(());
        }
        let said = stderr.trim_end();
        let separator = if said.is_empty() { "" } else { ":\n" };
        Err(format!("`{self}` failed ({status}){separator}{said}"))
    }

    fn not_started(&self, error: &std::io::Error) -> String {
        format!("`{self}` could not be started: {error}")
    }
}

fn cargo() -> OsString {
    env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"))
}

/// Copies lines from a child to `to`, collecting those that `keep` accepts.
fn pass_on(
    from: Option<impl Read>,
    mut to: impl Write,
    keep: fn(&str) -> bool,
    kept: &Mutex<Vec<String>>,
) {
    let Some(from) = from else { return };
    let mut from = BufReader::new(from);
    let mut line = Vec::new();
    // A reader that is gone must not stop the child: its output is only for show.
    while matches!(from.read_until(b'\n', &mut line), Ok(n) if n > 0) {
        let _ = to.write_all(&line);
        let text = String::from_utf8_lossy(&line);
        if keep(text.trim_end())
            && let Ok(mut kept) = kept.lock()
        {
            kept.push(text.trim_end().to_owned());
        }
        line.clear();
    }
}

impl fmt::Display for Cmd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let program = std::path::Path::new(self.0.get_program());
        let name = program.file_name().unwrap_or(program.as_os_str());
        write!(f, "{}", name.display())?;
        for arg in self.0.get_args() {
            write!(f, " {}", arg.display())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failing_command_is_named_with_its_status_and_its_words() {
        let error = Cmd::new("sh")
            .args(["-c", "echo no such luck >&2; exit 3"])
            .output()
            .unwrap_err();
        assert!(error.starts_with("`sh -c "), "{error}");
        assert!(
            error.contains("exit status: 3") && error.ends_with("no such luck"),
            "{error}"
        );
    }

    #[test]
    fn a_missing_program_is_named() {
        let error = Cmd::new("/nowhere/ck-tool").run().unwrap_err();
        assert!(
            error.starts_with("`ck-tool` could not be started"),
            "{error}"
        );
    }

    #[test]
    fn tee_returns_the_wanted_lines_of_both_streams_and_the_failure() {
        let (mut kept, result) = Cmd::new("sh")
            .args(["-c", "echo keep out; echo drop; echo keep err >&2; exit 1"])
            .tee(|line| line.starts_with("keep"));
        kept.sort();
        assert_eq!(kept, ["keep err", "keep out"]);
        assert!(result.is_err());
    }
}
