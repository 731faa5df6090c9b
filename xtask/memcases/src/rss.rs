//! Resident memory as the kernel sees it.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::Result;

/// Resident bytes of a process by kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Resident {
    pub(crate) all: u64,
    /// Heap, stacks and the like.
    pub(crate) anon: u64,
    /// Pages of mapped files, the program's own among them.
    pub(crate) file: u64,
    /// The most that `all` ever was.
    pub(crate) peak: u64,
}

/// `/proc/PID/status`, read again and again without allocating.
pub(crate) struct Status(File);

impl Status {
    /// Of this process.
    pub(crate) fn own() -> Result<Self> {
        Self::open(Path::new("/proc/self/status"))
    }

    /// Of a child.
    pub(crate) fn of(pid: u32) -> Result<Self> {
        Self::open(Path::new(&format!("/proc/{pid}/status")))
    }

    fn open(path: &Path) -> Result<Self> {
        Ok(Self(
            File::open(path).map_err(|error| format!("{}: {error}", path.display()))?,
        ))
    }

    /// `None` when the process is gone.
    pub(crate) fn read(&self) -> Option<Resident> {
        let mut buffer = [0; 4096];
        let len = self.0.read_at(&mut buffer, 0).ok()?;
        parse(std::str::from_utf8(buffer.get(..len)?).ok()?)
    }
}

fn parse(status: &str) -> Option<Resident> {
    let field = |name: &str| -> Option<u64> {
        let line = status.lines().find(|line| line.starts_with(name))?;
        let kib: u64 = line
            .get(name.len()..)?
            .trim()
            .strip_suffix(" kB")?
            .parse()
            .ok()?;
        Some(kib * 1024)
    };
    Some(Resident {
        all: field("VmRSS:")?,
        anon: field("RssAnon:")?,
        file: field("RssFile:")?,
        peak: field("VmHWM:")?,
    })
}

/// Makes [`Resident::peak`] of this process start anew.
pub(crate) fn reset_peak() -> Result<()> {
    reset_peak_of(std::process::id())
}

/// Makes [`Resident::peak`] of a child start anew.
pub(crate) fn reset_peak_of(pid: u32) -> Result<()> {
    let path = format!("/proc/{pid}/clear_refs");
    Ok(fs::write(&path, "5").map_err(|error| format!("{path}: {error}"))?)
}

/// Resident bytes of this process in mappings of files under `dir`, to the page.
pub(crate) fn mapped_under(dir: &Path) -> Result<u64> {
    let smaps = fs::read_to_string("/proc/self/smaps")?;
    let dir = dir.canonicalize()?;
    Ok(sum_mapped(&smaps, &format!("{}/", dir.display())))
}

fn sum_mapped(smaps: &str, dir: &str) -> u64 {
    let (mut inside, mut sum) = (false, 0);
    for line in smaps.lines() {
        if let Some(kib) = line.strip_prefix("Rss:") {
            let kib: u64 = kib.trim().trim_end_matches(" kB").parse().unwrap_or(0);
            sum += if inside { kib * 1024 } else { 0 };
        } else if line
            .split(' ')
            .next()
            .is_some_and(|range| range.contains('-'))
        {
            inside = line.contains(dir);
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_of_this_process_can_be_read() {
        let resident = Status::own().unwrap().read().unwrap();
        assert!(
            resident.all >= resident.anon && resident.anon > 0 && resident.peak >= resident.anon
        );
    }

    #[test]
    fn a_status_without_memory_is_a_process_that_is_gone() {
        assert_eq!(parse("Name:\tck\nState:\tZ (zombie)\n"), None);
    }

    #[test]
    fn only_mappings_under_the_directory_count() {
        let smaps = "7f00-7f10 r--s 00000000 fe:00 12    /store/entries/ab\nSize: 64 kB\nRss:   48 kB\nPss: 1 kB\n\
                     7f10-7f20 r--s 00000000 fe:00 13    /storehouse/ab\nRss:  16 kB\n\
                     7f20-7f30 rw-p 00000000 00:00 0\nRss: 8 kB\n\
                     7f30-7f40 r--s 00000000 fe:00 14    /store/entries/cd (deleted)\nRss:   4 kB\n";
        assert_eq!(sum_mapped(smaps, "/store/"), 52 << 10);
    }
}
