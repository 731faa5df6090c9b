use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde_json::{Map, Value};
use testkit::heap;

use crate::Result;
use crate::rss::{self, Resident, Status};
use crate::series::{Moment, Series};

/// What a case reports: byte peaks and whatever else it measured, by name, and its memory over time.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    pub(crate) metrics: Map<String, Value>,
    pub(crate) series: Option<Value>,
}

impl Figures {
    /// Those that another process of this program has printed.
    pub(crate) fn parse(line: &[u8]) -> Result<Self> {
        let json: Value = serde_json::from_slice(line)?;
        let metrics = json["metrics"].as_object().ok_or("no metrics")?.clone();
        let series = Some(json["series"].clone());
        Ok(Self { metrics, series })
    }

    pub(crate) fn add(&mut self, name: &str, value: impl Into<Value>) {
        self.metrics.insert(name.to_owned(), value.into());
    }

    /// A metric in bytes.
    pub(crate) fn bytes(&self, name: &str) -> Result<u64> {
        let value = self.metrics.get(name).and_then(Value::as_u64);
        Ok(value.ok_or_else(|| format!("{name} was not measured"))?)
    }

    /// Adds `part` in relation to `whole`.
    #[expect(clippy::cast_precision_loss, reason = "a ratio with three digits")]
    pub(crate) fn add_ratio(&mut self, name: &str, part: u64, whole: u64) {
        self.add(name, part as f64 / whole as f64);
    }

    /// `resident`: what is resident of mapped files under `dir`.
    pub(crate) fn add_resident(&mut self, dir: &Path) -> Result<u64> {
        let resident = rss::mapped_under(dir)?;
        self.add("resident", resident);
        Ok(resident)
    }

    /// `beyond`, `rss_beyond` and `anon_beyond`: what comes on top of `allowed` bytes.
    pub(crate) fn add_beyond(&mut self, allowed: u64) -> Result<()> {
        let metrics = [
            ("beyond", "heap"),
            ("rss_beyond", "rss"),
            ("anon_beyond", "anon"),
        ];
        for (name, of) in metrics {
            let beyond = self.bytes(of)?.saturating_sub(allowed);
            self.add(name, beyond);
        }
        Ok(())
    }
}

const INTERVAL: Duration = Duration::from_millis(2);

/// What was let go of is given back in the background.
const LATER: Duration = Duration::from_millis(500);

/// Bytes beyond the start that are not waited for: threads and buffers that stay take as much.
const LITTLE: u64 = 1 << 20;

/// Watches the memory of this process from [`Probe::start`] to [`Probe::stop`].
///
/// Start it when the source stands: peaks count from there. The heap's peak is exact, and so is that
/// of the resident size, which the kernel keeps; its parts, and the series, are sampled.
pub(crate) struct Probe {
    heap: usize,
    before: Resident,
    status: Status,
    sampler: Sampler,
}

impl Probe {
    pub(crate) fn start() -> Result<Self> {
        // One that ends at once: what it maps of the program's own text is there before anything counts.
        Sampler::spawn()?.end()?;
        let sampler = Sampler::spawn()?;
        let status = Status::own()?;
        heap::trim();
        rss::reset_peak()?;
        heap::reset_peak();
        let before = status.read().ok_or("no status of this process")?;
        sampler.thread.thread().unpark();
        Ok(Self {
            heap: heap::live(),
            before,
            status,
            sampler,
        })
    }

    /// The peaks above what there was at the start: `heap`, `rss`, `anon` and `file`, in bytes.
    pub(crate) fn stop(self) -> Result<Figures> {
        let heap = heap::peak();
        let last = self.status.read().ok_or("no status of this process")?;
        let (sampled, series) = self.sampler.end()?;
        let mut figures = Figures::default();
        let mut add = |name: &str, peak: u64, before: u64| {
            figures.add(name, peak.saturating_sub(before));
        };
        add("heap", heap as u64, self.heap as u64);
        add("rss", last.peak, self.before.all);
        add("anon", sampled.anon.max(last.anon), self.before.anon);
        add("file", sampled.file.max(last.file), self.before.file);
        figures.series = Some(series.json(Moment {
            heap: self.heap as u64,
            rss: self.before.all,
            anon: self.before.anon,
        }));
        Ok(figures)
    }

    /// As [`Probe::stop_after`], with [`LATER`].
    pub(crate) fn stop_later(self) -> Result<Figures> {
        self.stop_after(LATER)
    }

    /// As [`Probe::stop`], and what there is beyond the start, without the help of [`heap::trim`]: `left` of resident
    /// memory, `live` of the heap. That is so much later, or as soon as hardly anything is left.
    pub(crate) fn stop_after(self, delay: Duration) -> Result<Figures> {
        let start = Instant::now();
        let left = loop {
            let now = self.status.read().ok_or("no status of this process")?;
            let left = now.all.saturating_sub(self.before.all);
            if left <= LITTLE || start.elapsed() >= delay {
                break left;
            }
            thread::sleep(LATER / 10);
        };
        let live = heap::live().saturating_sub(self.heap);
        let mut figures = self.stop()?;
        figures.add("left", left);
        figures.add("live", live as u64);
        Ok(figures)
    }
}

/// A thread that samples, once unparked.
struct Sampler {
    done: Arc<AtomicBool>,
    thread: JoinHandle<Option<(Resident, Series)>>,
}

impl Sampler {
    fn spawn() -> Result<Self> {
        let done = Arc::new(AtomicBool::new(false));
        let thread = thread::Builder::new().stack_size(64 << 10).spawn({
            let done = Arc::clone(&done);
            let status = Status::own()?;
            let series = Series::new();
            move || sample(&status, &done, series)
        })?;
        Ok(Self { done, thread })
    }

    fn end(self) -> Result<(Resident, Series)> {
        self.done.store(true, SeqCst);
        self.thread.thread().unpark();
        let sampled = self.thread.join().ok().flatten();
        Ok(sampled.ok_or("the sampler failed")?)
    }
}

/// The highest values until `done`, once unparked. Waking up without that does no harm but to count
/// what stood before the start.
fn sample(status: &Status, done: &AtomicBool, mut series: Series) -> Option<(Resident, Series)> {
    let mut highest = Resident::default();
    thread::park();
    let start = Instant::now();
    loop {
        let last = done.load(SeqCst);
        let now = status.read()?;
        highest.anon = highest.anon.max(now.anon);
        highest.file = highest.file.max(now.file);
        let moment = Moment {
            heap: heap::live() as u64,
            rss: now.all,
            anon: now.anon,
        };
        series.add(start.elapsed(), moment);
        if last {
            return Some((highest, series));
        }
        thread::park_timeout(INTERVAL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // One test only: the counters are those of the whole process.
    #[test]
    fn a_large_buffer_shows_in_heap_resident_size_and_series() {
        const SIZE: u64 = 48 << 20;
        let probe = Probe::start().unwrap();
        let buffer = vec![1_u8; 48 << 20];
        let sum: u64 = buffer.iter().map(|&byte| u64::from(byte)).sum();
        // Time for the sampler, on a machine that has others to serve too.
        thread::sleep(INTERVAL * 250);
        drop(buffer);
        let figures = probe.stop_later().unwrap();
        assert_eq!(sum, SIZE);
        for name in ["heap", "rss"] {
            let peak = figures.bytes(name).unwrap();
            assert!((SIZE * 9 / 10..SIZE * 3).contains(&peak), "{name}: {peak}");
        }
        for name in ["left", "live"] {
            assert!(figures.bytes(name).unwrap() < SIZE / 2, "{name}");
        }
        let series = figures.series.unwrap();
        let before = series["before"]["heap"].as_u64().unwrap();
        let heap = series["heap"].as_array().unwrap().iter();
        let highest = heap.filter_map(Value::as_u64).max().unwrap();
        // Starting the sampler holds a little that is let go of after the start was read.
        assert!(
            highest >= before + SIZE * 9 / 10,
            "{highest} after {before}"
        );
    }
}
