use std::ffi::OsStr;
use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// How long a server may take to start or to end.
const PATIENCE: Duration = Duration::from_secs(20);

/// A server process that ends with its owner.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    /// Kills the server when this process ends without dropping anything: its input ends then.
    watchdog: Option<Child>,
}

impl Process {
    /// Starts `program`, which is in the Debian package `package`; what it prints goes to `log`.
    pub(crate) fn start(
        program: &str,
        package: &str,
        args: impl IntoIterator<Item = impl AsRef<OsStr>>,
        log: &Path,
    ) -> Self {
        let output = File::options().create(true).append(true).open(log);
        let output = output.expect("the log can be opened");
        let child = Command::new(program)
            .args(args)
            .stdin(Stdio::null())
            .stdout(output.try_clone().expect("a second handle of the log"))
            .stderr(output)
            .spawn();
        let child = child.unwrap_or_else(|error| {
            panic!("cannot start {program}: {error}; install it: apt-get install {package}")
        });
        let watchdog = Command::new("sh")
            .args(["-c", "read _; kill -9 \"$0\" 2>/dev/null"])
            .arg(child.id().to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("sh can be started");
        Self {
            child,
            watchdog: Some(watchdog),
        }
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits until `ready` says so; `false` when the process ends before.
    pub(crate) fn wait_until(&mut self, what: &str, mut ready: impl FnMut() -> bool) -> bool {
        let start = Instant::now();
        while !ready() {
            if self.child.try_wait().expect("a child").is_some() {
                return false;
            }
            assert!(start.elapsed() < PATIENCE, "{what} does not answer");
            std::thread::sleep(Duration::from_millis(2));
        }
        true
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        kill_process(pid.expect("a process id"), signal).expect("the server runs");
    }

    /// Asks the process to end, and waits.
    pub(crate) fn stop(mut self) {
        self.signal(Signal::TERM);
        let start = Instant::now();
        while self.child.try_wait().expect("a child").is_none() {
            assert!(start.elapsed() < PATIENCE, "a server does not end");
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(mut watchdog) = self.watchdog.take() {
            let _ = watchdog.kill();
            let _ = watchdog.wait();
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a server said before it ended.
pub(crate) fn read_log(log: &Path) -> String {
    std::fs::read_to_string(log).unwrap_or_default()
}
