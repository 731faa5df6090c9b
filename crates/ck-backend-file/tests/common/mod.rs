//! What the scenarios share: short names for the store's methods, values that carry their own check,
//! and child processes that are this very test program in another role.
#![allow(dead_code, reason = "each scenario uses a part")]

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::ops::ControlFlow;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use bytes::Bytes;
use ck_backend_file::FileBackend;
use ck_core::{Backend, Key, Outcome, Result, Usage, WriteOptions};
use pollster::block_on;

pub(crate) const HEADER: usize = 14;

pub(crate) fn try_put(store: &FileBackend, key: &str, bytes: impl Into<Bytes>) -> Result<Outcome> {
    block_on(store.put(
        &key.into(),
        Bytes::new(),
        vec![bytes.into()],
        WriteOptions::new(),
    ))
}

#[track_caller]
pub(crate) fn put(store: &FileBackend, key: &str, bytes: impl Into<Bytes>) {
    let outcome = try_put(store, key, bytes).expect("the store takes the entry");
    assert!(outcome.is_stored(), "{outcome:?}");
}

/// Writes in parts, without telling the size, and with the head last.
pub(crate) fn stream(store: &FileBackend, key: &str, bytes: &Bytes) -> Result<Outcome> {
    let head = bytes.len().min(8);
    block_on(async {
        let options = WriteOptions::new().with_head_len(head);
        let mut writer = match store.create(&key.into(), options).await? {
            ControlFlow::Continue(writer) => writer,
            ControlFlow::Break(rejection) => return Ok(Outcome::Rejected(rejection)),
        };
        for at in (head..bytes.len()).step_by(20_000) {
            let part = bytes.slice(at..bytes.len().min(at + 20_000));
            if let ControlFlow::Break(rejection) = writer.write(vec![part]).await? {
                return Ok(Outcome::Rejected(rejection));
            }
        }
        writer.commit(bytes.slice(..head)).await
    })
}

#[track_caller]
pub(crate) fn get(store: &FileBackend, key: &str) -> Option<Bytes> {
    let entry = block_on(store.open(&key.into())).expect("the store answers")?;
    Some(block_on(entry.read(0..entry.len())).expect("the entry can be read"))
}

pub(crate) fn usage(store: &FileBackend) -> Usage {
    block_on(store.usage()).expect("the store answers")
}

/// A value whose every byte follows from its first eight.
pub(crate) fn value(seed: u64, len: usize) -> Bytes {
    let mut bytes = seed.to_le_bytes().to_vec();
    let mut state = seed | 1;
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len.max(8));
    Bytes::from(bytes)
}

pub(crate) fn is_whole(bytes: &[u8]) -> bool {
    let Some(seed) = bytes.first_chunk() else {
        return false;
    };
    value(u64::from_le_bytes(*seed), bytes.len()) == bytes
}

/// The file name of a key, as a test that must not ask the crate computes it.
pub(crate) fn file_name(store: &FileBackend, key: &str) -> String {
    put(store, key, "probe");
    let info = block_on(store.stat(&Key::new(key)))
        .unwrap()
        .expect("it was just stored");
    assert!(block_on(store.remove(&Key::new(key))).unwrap());
    info.id
}

/// An entry file as another system writes it: aside, then renamed.
pub(crate) fn drop_foreign(dir: &Path, name: &str, body: &[u8]) {
    let temp = dir.join(format!("{name}.tmp.1.1700000000000000000"));
    let mut file = b"CK\x01\0\0\0\0\0\0\0\0\0\0\0".to_vec();
    file.extend_from_slice(body);
    std::fs::write(&temp, file).unwrap();
    std::fs::rename(temp, dir.join(name)).unwrap();
}

/// Files in `dir` by kind: bytes of all, number of entries, their bytes, temporary files.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Files {
    pub(crate) bytes: u64,
    pub(crate) entries: u64,
    pub(crate) entry_bytes: u64,
    pub(crate) temporary: u64,
}

pub(crate) fn files(dir: &Path) -> Files {
    let mut files = Files::default();
    let mut seen = HashMap::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let Ok(entry) = entry else { continue };
        let Ok(stat) = std::fs::symlink_metadata(entry.path()) else {
            continue;
        };
        if !stat.is_file() || seen.insert(stat.ino(), ()).is_some() {
            continue;
        }
        let name = entry.file_name().into_string().unwrap();
        files.bytes += stat.len();
        if name.contains(".tmp.") {
            files.temporary += 1;
        } else if !name.starts_with('.') {
            files.entries += 1;
            files.entry_bytes += stat.len();
        }
    }
    files
}

/// The role of this process, when it was started by [`spawn`].
pub(crate) fn role() -> Option<String> {
    std::env::var("CK_TEST_ROLE").ok()
}

pub(crate) fn argument() -> String {
    std::env::var("CK_TEST_ARGUMENT").unwrap()
}

/// A child process that does not outlive the test, however that ends.
pub(crate) struct Process(pub(crate) Child);

impl Process {
    pub(crate) fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.0.try_wait().unwrap().is_none()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts this test program again, to run the one test `name` in `role`.
pub(crate) fn spawn(name: &str, role: &str, argument: impl AsRef<std::ffi::OsStr>) -> Process {
    let command = Command::new(std::env::current_exe().unwrap());
    Process(prepare(command, name, role, argument).spawn().unwrap())
}

/// As [`spawn`], with mounts of its own and the rights to make them.
pub(crate) fn spawn_with_mounts(
    name: &str,
    role: &str,
    argument: impl AsRef<std::ffi::OsStr>,
) -> Process {
    let mut command = Command::new("unshare");
    command.arg("--mount");
    if !rustix::process::geteuid().is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    command.arg(std::env::current_exe().unwrap());
    let child = prepare(command, name, role, argument).spawn();
    Process(child.expect("`unshare` of util-linux is installed"))
}

fn prepare(
    mut command: Command,
    name: &str,
    role: &str,
    argument: impl AsRef<std::ffi::OsStr>,
) -> Command {
    command
        .args(["--exact", name, "--nocapture", "--test-threads=1"])
        .env("CK_TEST_ROLE", role)
        .env("CK_TEST_ARGUMENT", argument)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    command
}

/// Tells the parent that everything is in place, and waits to be killed, or for a byte.
pub(crate) fn wait_for_the_end() {
    std::io::stdout().write_all(b"ready\n").unwrap();
    std::io::stdout().flush().unwrap();
    let _ = std::io::stdin().read(&mut [0]);
}

/// Waits until the child is in place.
pub(crate) fn ready(child: &mut Process) {
    // It stays open, for what the child says at its end.
    let stdout = child.0.stdout.as_mut().unwrap();
    let mut lines = BufReader::new(stdout).lines();
    assert!(
        lines.any(|line| line.unwrap().ends_with("ready")),
        "the child ended"
    );
}

#[track_caller]
pub(crate) fn succeeds(mut child: Process) {
    let status = child.0.wait().unwrap();
    assert!(status.success(), "the child failed: {status}");
}

/// A small tmpfs at `dir`, for a process with mounts of its own.
pub(crate) fn mount_tmpfs(dir: &Path, options: &std::ffi::CStr) {
    use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    mount_change("/", private).expect("mounts can be made private");
    mount("none", dir, "tmpfs", MountFlags::empty(), options).expect("a tmpfs can be mounted");
}
