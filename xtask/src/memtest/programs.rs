//! The case programs, and the servers they need.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use super::record::Run;
use crate::cmd::Cmd;
use crate::workspace::{root, target_dir};
use crate::{Result, interop, test};

/// What `memcases list` says of a case.
pub(super) struct Case {
    pub(super) name: String,
    /// The case that leaves the directory and the server that this one goes on with.
    pub(super) after: Option<String>,
    /// The kind of server that has to run.
    pub(super) server: Option<String>,
    pub(super) part: Part,
    /// The size of its source, where that is always the same.
    pub(super) bytes: Option<u64>,
}

/// The smallest run that a case is part of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Part {
    Quick,
    Default,
    Full,
    Peers,
}

impl Case {
    /// The case whose directory it uses.
    pub(super) fn home(&self) -> &str {
        self.after.as_deref().unwrap_or(&self.name)
    }

    /// Whether it is measured at a size; `is_first` is for those whose size is always the same.
    pub(super) fn is_measured_at(&self, is_first: bool) -> bool {
        self.bytes.is_none() || is_first
    }

    fn parse(line: &str) -> Option<Self> {
        let json: Value = serde_json::from_str(line).ok()?;
        let text = |name: &str| json[name].as_str().map(str::to_owned);
        Some(Self {
            name: text("case")?,
            after: text("after"),
            server: text("server"),
            part: match json["part"].as_str()? {
                "quick" => Part::Quick,
                "default" => Part::Default,
                "full" => Part::Full,
                "peers" => Part::Peers,
                _ => return None,
            },
            bytes: json["bytes"].as_u64(),
        })
    }
}

/// The built case programs, and the command that some of them run.
pub(super) struct Programs {
    memcases: PathBuf,
    ck: PathBuf,
    /// The interpreter that other systems are run with.
    python: Option<PathBuf>,
}

impl Programs {
    /// As users run them, or with `as_tested` as the tests are built, which has most of it done already.
    pub(super) fn build(as_tested: bool, with_peers: bool) -> Result<Self> {
        let dir = if as_tested {
            test::programs()?;
            "debug"
        } else {
            let packages = ["--package", "memcases", "--package", "ck-cli"];
            let build = Cmd::cargo().args(["build", "--release"]).args(packages);
            build.run()?;
            "release"
        };
        let built = target_dir().join(dir);
        let python = with_peers.then(interop::environment).transpose()?;
        Ok(Self {
            memcases: built.join("memcases"),
            ck: built.join("ck"),
            python,
        })
    }

    pub(super) fn cases(&self) -> Result<Vec<Case>> {
        let list = Cmd::new(&self.memcases).arg("list").output()?;
        let cases: Option<Vec<_>> = list.lines().map(Case::parse).collect();
        cases.ok_or_else(|| "memcases list: not the expected shape".to_owned())
    }

    pub(super) fn measure(
        &self,
        name: &str,
        bytes: u64,
        dir: &Path,
        server: Option<&Server>,
    ) -> Result<Run> {
        let mut command = Cmd::new(&self.memcases)
            .arg(name)
            .arg(bytes.to_string())
            .arg(dir)
            .args(server.map(|server| &server.url))
            .env("CK", &self.ck);
        if let Some(python) = &self.python {
            let peers = root().join("xtask/memcases/peers.py");
            command = command.env("PYTHON", python).env("PEERS", peers);
        }
        let output = command.output()?;
        let run = output
            .lines()
            .last()
            .and_then(|line| Run::parse(bytes, line));
        run.ok_or_else(|| format!("memcases {name}: no metrics in {output:?}"))
    }

    /// A server of this kind with room for some entries of so many bytes.
    pub(super) fn serve(&self, kind: &str, bytes: u64) -> Result<Server> {
        let start = || -> std::io::Result<Server> {
            let mut child = Command::new(&self.memcases)
                .args(["serve", kind, &(bytes * 3).to_string()])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()?;
            let mut url = String::new();
            if let Some(stdout) = child.stdout.take() {
                BufReader::new(stdout).read_line(&mut url)?;
            }
            let url = url.trim_end().to_owned();
            Ok(Server { child, url })
        };
        match start() {
            Ok(server) if !server.url.is_empty() => Ok(server),
            Ok(_) => Err(format!("memcases serve {kind}: no address")),
            Err(error) => Err(format!("memcases serve {kind}: {error}")),
        }
    }
}

/// A running server; it ends with this value.
pub(super) struct Server {
    child: Child,
    url: String,
}

impl Drop for Server {
    fn drop(&mut self) {
        // The end of its input is what it waits for.
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}
