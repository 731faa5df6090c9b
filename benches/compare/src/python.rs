use std::cell::RefCell;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde_json::Value;

use crate::Result;
use crate::row::Sample;

/// A Python process that does the peer's part on command, by its own clock.
pub(crate) struct Python {
    pub(crate) versions: Value,
    child: Child,
    pipes: RefCell<Option<Pipes>>,
}

struct Pipes {
    commands: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Python {
    pub(crate) fn start(python: &Path) -> Result<Self> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("python/peer.py");
        let mut child = Command::new(python)
            .args(["-W", "ignore"])
            .arg(script)
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("cannot start {}: {error}", python.display()))?;
        let commands = child.stdin.take().ok_or("no input of the peer")?;
        let answers = BufReader::new(child.stdout.take().ok_or("no output of the peer")?);
        let mut pipes = Pipes { commands, answers };
        let versions = pipes.answer()?;
        Ok(Self {
            versions,
            child,
            pipes: RefCell::new(Some(pipes)),
        })
    }

    /// Does `command` once; its time, what it stored and the memory it needed.
    pub(crate) fn run(&self, command: &Value) -> Result<Sample> {
        let answer = self.ask(command)?;
        Ok(Sample {
            seconds: answer["seconds"]
                .as_f64()
                .ok_or("no time in the peer's answer")?,
            stored: answer["stored"].as_u64(),
            hit_ratio: None,
            peak: answer["peak"].as_u64(),
        })
    }

    pub(crate) fn ask(&self, command: &Value) -> Result<Value> {
        let mut pipes = self.pipes.borrow_mut();
        let pipes = pipes.as_mut().ok_or("the peer is gone")?;
        writeln!(pipes.commands, "{command}")?;
        pipes.commands.flush()?;
        pipes.answer()
    }
}

impl Pipes {
    fn answer(&mut self) -> Result<Value> {
        let mut line = String::new();
        if self.answers.read_line(&mut line)? == 0 {
            return Err("the peer ended; its message is above".into());
        }
        Ok(serde_json::from_str(&line)?)
    }
}

impl Drop for Python {
    fn drop(&mut self) {
        // End of input ends it.
        *self.pipes.borrow_mut() = None;
        let _ = self.child.wait();
    }
}
