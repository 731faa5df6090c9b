use std::time::{Duration, Instant};

use crate::Result;
use crate::scene::Scene;

/// One comparison: the same work done by us and by a peer.
pub(crate) struct Row {
    pub(crate) group: Group,
    pub(crate) work: String,
    pub(crate) peer: String,
    pub(crate) terms: Terms,
    /// How many operations a round does; the times of one are reported.
    pub(crate) operations: u64,
    pub(crate) memory: Memory,
    pub(crate) ours: Open,
    pub(crate) theirs: Open,
}

/// Of what the peak memory of both sides is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Memory {
    /// It says nothing.
    Nothing,
    /// One round, above what making ready has left.
    Round,
    /// Making ready, too: what a cache keeps is there before the first round.
    All,
}

/// Which picture a row belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Group {
    Files,
    Process,
    Network,
    Python,
}

/// What holds for both sides.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Terms {
    pub(crate) durability: &'static str,
    pub(crate) verification: &'static str,
}

/// Makes one side ready: what it does before the clock starts.
pub(crate) type Open = Box<dyn Fn(&Scene) -> Result<Side>>;

/// Does one round of the work.
pub(crate) type Side = Box<dyn FnMut() -> Result<Sample>>;

/// What one round found.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Sample {
    pub(crate) seconds: f64,
    /// Bytes in the store afterwards, when the work is to store.
    pub(crate) stored: Option<u64>,
    /// The share of operations that the process answered alone, for rows with a key mix.
    pub(crate) hit_ratio: Option<f64>,
    /// Peak memory above the start, where the side runs in a process of its own.
    pub(crate) peak: Option<u64>,
}

impl Row {
    pub(crate) fn new(
        group: Group,
        work: impl Into<String>,
        peer: impl Into<String>,
        terms: Terms,
        ours: Open,
        theirs: Open,
    ) -> Self {
        Self {
            group,
            work: work.into(),
            peer: peer.into(),
            terms,
            operations: 1,
            memory: Memory::Round,
            ours,
            theirs,
        }
    }

    /// Each round does so many small operations, whose memory says nothing.
    pub(crate) fn of_operations(mut self, operations: u64) -> Self {
        self.operations = operations;
        self.memory = Memory::Nothing;
        self
    }

    pub(crate) fn with_memory(mut self, memory: Memory) -> Self {
        self.memory = memory;
        self
    }

    /// The name that patterns are compared with.
    pub(crate) fn name(&self) -> String {
        format!("{}: {} / {}", self.group.name(), self.work, self.peer)
    }
}

impl Group {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Files => "files",
            Self::Process => "process",
            Self::Network => "network",
            Self::Python => "python",
        }
    }
}

impl Sample {
    pub(crate) fn of(time: Duration) -> Self {
        Self {
            seconds: time.as_secs_f64(),
            ..Self::default()
        }
    }

    /// Times `work` and drops what it gave within the time.
    pub(crate) fn timed<T>(work: impl FnOnce() -> Result<T>) -> Result<Self> {
        let start = Instant::now();
        drop(work()?);
        Ok(Self::of(start.elapsed()))
    }

    pub(crate) fn stored(mut self, bytes: u64) -> Self {
        self.stored = Some(bytes);
        self
    }
}
