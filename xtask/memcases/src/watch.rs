//! Watches the memory of a child.

use std::process::Child;
use std::thread;
use std::time::{Duration, Instant};

use crate::Result;
use crate::probe::Figures;
use crate::rss::{self, Resident, Status};
use crate::series::{Moment, Series};

const INTERVAL: Duration = Duration::from_millis(1);

/// The peaks of a child: that of the resident size is the kernel's, its parts are sampled.
pub(crate) struct Watch {
    status: Status,
    before: Resident,
    peaks: Resident,
    series: Series,
    start: Instant,
}

impl Watch {
    /// From its start on.
    pub(crate) fn whole(child: &Child) -> Result<Self> {
        Ok(Self {
            status: Status::of(child.id())?,
            before: Resident::default(),
            peaks: Resident::default(),
            series: Series::new(),
            start: Instant::now(),
        })
    }

    /// Above what it holds now.
    pub(crate) fn from_here(child: &Child) -> Result<Self> {
        let mut watch = Self::whole(child)?;
        rss::reset_peak_of(child.id())?;
        watch.before = watch.status.read().ok_or("the child is gone")?;
        Ok(watch)
    }

    /// Until `done`.
    pub(crate) fn until(&mut self, mut done: impl FnMut() -> Result<bool>) -> Result<()> {
        loop {
            let last = done()?;
            // The kernel keeps the peak of the whole; it is gone only when the process is.
            if let Some(now) = self.status.read() {
                self.peaks.anon = self.peaks.anon.max(now.anon);
                self.peaks.file = self.peaks.file.max(now.file);
                self.peaks.peak = self.peaks.peak.max(now.peak);
                let moment = Moment {
                    heap: 0,
                    rss: now.all,
                    anon: now.anon,
                };
                self.series.add(self.start.elapsed(), moment);
            }
            if last {
                return Ok(());
            }
            thread::sleep(INTERVAL);
        }
    }

    /// `rss`, `anon` and `file`.
    pub(crate) fn figures(&self) -> Figures {
        let (peaks, before) = (self.peaks, self.before);
        let mut figures = Figures::default();
        figures.add("rss", peaks.peak.saturating_sub(before.all));
        figures.add("anon", peaks.anon.saturating_sub(before.anon));
        figures.add("file", peaks.file.saturating_sub(before.file));
        figures.series = Some(self.series.json(Moment {
            heap: 0,
            rss: before.all,
            anon: before.anon,
        }));
        figures
    }
}
