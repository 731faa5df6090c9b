use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use serde_json::{Map, Value};
use testkit::heap;

use crate::Result;
use crate::rss::{self, Resident, Status};

/// What a case reports: byte peaks, and whatever else it measured, by name.
pub(crate) type Metrics = Map<String, Value>;

const INTERVAL: Duration = Duration::from_millis(2);

/// Watches the memory of this process from [`Probe::start`] to [`Probe::stop`].
///
/// Start it when the source stands: peaks count from there. The heap's peak is exact, and so is that
/// of the resident size, which the kernel keeps; its parts are sampled.
pub(crate) struct Probe {
    heap: usize,
    before: Resident,
    status: Status,
    done: Arc<AtomicBool>,
    sampler: JoinHandle<Option<Resident>>,
}

impl Probe {
    pub(crate) fn start() -> Result<Self> {
        let done = Arc::new(AtomicBool::new(false));
        let sampler = thread::Builder::new().stack_size(64 << 10).spawn({
            let done = Arc::clone(&done);
            let status = Status::own()?;
            move || sample(&status, &done)
        })?;
        let status = Status::own()?;
        heap::trim();
        rss::reset_peak()?;
        heap::reset_peak();
        let before = status.read().ok_or("no status of this process")?;
        sampler.thread().unpark();
        Ok(Self {
            heap: heap::live(),
            before,
            status,
            done,
            sampler,
        })
    }

    /// The peaks above what there was at the start: `heap`, `rss`, `anon` and `file`, in bytes.
    pub(crate) fn stop(self) -> Result<Metrics> {
        let heap = heap::peak();
        let last = self.status.read().ok_or("no status of this process")?;
        self.done.store(true, SeqCst);
        self.sampler.thread().unpark();
        let sampled = self
            .sampler
            .join()
            .ok()
            .flatten()
            .ok_or("the sampler failed")?;
        let mut metrics = Metrics::new();
        let mut add = |name: &str, peak: u64, before: u64| {
            metrics.insert(name.to_owned(), peak.saturating_sub(before).into());
        };
        add("heap", heap as u64, self.heap as u64);
        add("rss", last.peak, self.before.all);
        add("anon", sampled.anon.max(last.anon), self.before.anon);
        add("file", sampled.file.max(last.file), self.before.file);
        Ok(metrics)
    }
}

/// The highest values until `done`, once unparked. Waking up without that does no harm but to count
/// what stood before the start.
fn sample(status: &Status, done: &AtomicBool) -> Option<Resident> {
    let mut highest = Resident::default();
    thread::park();
    while !done.load(SeqCst) {
        let now = status.read()?;
        highest.anon = highest.anon.max(now.anon);
        highest.file = highest.file.max(now.file);
        thread::park_timeout(INTERVAL);
    }
    Some(highest)
}

#[cfg(test)]
mod tests {
    use super::*;

    // One test only: the counters are those of the whole process.
    #[test]
    fn a_large_buffer_shows_in_heap_and_resident_size() {
        const SIZE: u64 = 48 << 20;
        let probe = Probe::start().unwrap();
        let buffer = vec![1_u8; 48 << 20];
        let sum: u64 = buffer.iter().map(|&byte| u64::from(byte)).sum();
        drop(buffer);
        let metrics = probe.stop().unwrap();
        assert_eq!(sum, SIZE);
        for name in ["heap", "rss"] {
            let peak = metrics[name].as_u64().unwrap();
            assert!((SIZE * 9 / 10..SIZE * 3).contains(&peak), "{name}: {peak}");
        }
    }
}
