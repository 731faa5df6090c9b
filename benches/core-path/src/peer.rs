use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde_json::{Value, json};

use crate::Result;

/// A Python process that does the peer's part on command.
pub(crate) struct Peer {
    child: Child,
    commands: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    pub(crate) version: String,
}

impl Peer {
    pub(crate) fn start(python: &Path) -> Result<Self> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("peer.py");
        let mut child = Command::new(python)
            .arg(script)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("cannot start {}: {error}", python.display()))?;
        let commands = child.stdin.take();
        let answers = BufReader::new(child.stdout.take().ok_or("no output of the peer")?);
        let mut peer = Self { child, commands, answers, version: String::new() };
        let hello = peer.answer()?;
        peer.version = format!("{} ({} threads)", hello["pyarrow"].as_str().unwrap_or("?"), hello["threads"]);
        Ok(peer)
    }

    pub(crate) fn load(&mut self, source: &Path) -> Result<()> {
        self.ask(json!({"op": "load", "source": source})).map(drop)
    }

    pub(crate) fn write(
        &mut self,
        source: &Path,
        out: &Path,
        compression: &str,
        level: Option<i32>,
    ) -> Result<(f64, u64)> {
        let command = json!({"op": "write", "source": source, "out": out, "compression": compression, "level": level});
        let answer = self.ask(command)?;
        let seconds = answer["seconds"].as_f64().ok_or("no time in the peer's answer")?;
        Ok((seconds, answer["bytes"].as_u64().unwrap_or(0)))
    }

    pub(crate) fn sum(&mut self, path: &Path, column: &str) -> Result<(f64, f64)> {
        let answer = self.ask(json!({"op": "sum", "path": path, "column": column}))?;
        let seconds = answer["seconds"].as_f64().ok_or("no time in the peer's answer")?;
        Ok((seconds, answer["total"].as_f64().ok_or("no total in the peer's answer")?))
    }

    fn ask(&mut self, command: Value) -> Result<Value> {
        let commands = self.commands.as_mut().ok_or("the peer is gone")?;
        writeln!(commands, "{command}")?;
        commands.flush()?;
        self.answer()
    }

    fn answer(&mut self) -> Result<Value> {
        let mut line = String::new();
        if self.answers.read_line(&mut line)? == 0 {
            return Err("the peer ended; its message is above".into());
        }
        Ok(serde_json::from_str(&line)?)
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // End of input ends it.
        self.commands = None;
        let _ = self.child.wait();
    }
}
