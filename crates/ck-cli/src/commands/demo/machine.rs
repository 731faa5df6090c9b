//! What the kernel says of memory and disk; nothing where it does not say.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::{env, fs};

/// What glibc's allocator takes this many bytes or more for, it gives back when it is freed.
const MMAP_THRESHOLD: (&str, &str) = ("MALLOC_MMAP_THRESHOLD_", "1048576");

/// Starts the program over with an allocator that gives freed memory back to the kernel.
///
/// What making the table left behind would otherwise hide what the puts take: they would find their
/// memory in the process already.
pub(super) fn give_freed_memory_back() {
    let (name, value) = MMAP_THRESHOLD;
    if env::var_os(name).is_some() {
        return;
    }
    if let Ok(exe) = env::current_exe() {
        // Comes back only when it has failed; the figures are then a little too good.
        let _ = Command::new(exe)
            .args(env::args_os().skip(1))
            .env(name, value)
            .exec();
    }
}

/// The resident memory of this process from one moment on.
pub(super) struct Peak {
    resident: Option<u64>,
    mapped: Option<u64>,
}

impl Peak {
    /// Starts over: what was resident before does not count.
    pub(super) fn start() -> Self {
        // Resets the high-water mark; see proc_pid_clear_refs(5).
        let reset = fs::write("/proc/self/clear_refs", "5").is_ok();
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        Self {
            resident: field(&status, "VmRSS:").filter(|_| reset),
            mapped: field(&status, "RssFile:"),
        }
    }

    /// The largest resident memory since, and the pages of files now, both above the start.
    pub(super) fn stop(&self) -> (Option<u64>, Option<u64>) {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let above = |start: Option<u64>, name| Some(field(&status, name)?.saturating_sub(start?));
        (
            above(self.resident, "VmHWM:"),
            above(self.mapped, "RssFile:"),
        )
    }
}

/// Bytes that can be had without swapping.
pub(super) fn available_memory() -> Option<u64> {
    field(&fs::read_to_string("/proc/meminfo").ok()?, "MemAvailable:")
}

/// Bytes free for this user on the file system of `dir`.
pub(super) fn available_disk(dir: &Path) -> Option<u64> {
    let stat = rustix::fs::statvfs(dir).ok()?;
    Some(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// The value of a line like `VmRSS:  1234 kB`, in bytes.
fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_read_in_kib() {
        let text = "Name:\tck\nVmHWM:\t    2048 kB\nVmRSS:\t    1024 kB\n";
        assert_eq!(field(text, "VmHWM:"), Some(2 << 20));
        assert_eq!(field(text, "RssFile:"), None);
    }

    #[test]
    fn memory_that_was_touched_and_freed_shows_in_the_peak() {
        let peak = Peak::start();
        drop(std::hint::black_box(vec![1_u8; 64 << 20]));
        let (resident, _) = peak.stop();
        assert!(
            resident.is_none_or(|bytes| bytes > 48 << 20),
            "{resident:?}"
        );
    }
}
