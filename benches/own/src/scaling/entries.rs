//! Small operations in stores of growing numbers of entries.
//!
//! Each point says how long as many operations take as there are entries, so that an operation whose cost does not
//! depend on their number is linear.

use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::hint::black_box;
use std::io::Read;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use ck_cache::Backend;
use ck_core::{Key, WriteOptions, block_on};
use ck_l1::{L1, Weigh, Weight};
use own::Result;
use own::stores::{Kind, Store};

use crate::suite::{Suite, medians, time};

const BODY: &[u8] = b"tiny";

pub(crate) fn run(suite: &mut Suite) -> Result<()> {
    let mut counts = vec![1_000, 10_000, 100_000];
    if !suite.quick {
        counts.push(1_000_000);
    }
    file(suite, &counts)?;
    process(suite, &counts)?;
    server(suite, "entries-redis", Kind::Redis, &counts)?;
    server(suite, "entries-memcached", Kind::Memcached, &counts)
}

/// What has entries by number.
trait Entries {
    fn put(&mut self, id: u64) -> Result<()>;
    fn get(&mut self, id: u64) -> Result<()>;
    fn stat(&mut self, id: u64) -> Result<()>;
    fn remove(&mut self, id: u64) -> Result<()>;

    /// A new entry in a place that is full, and the oldest one gone.
    fn replace(&mut self, id: u64, oldest: u64) -> Result<()> {
        self.put(id)?;
        self.remove(oldest)
    }
}

const PATIENCE: Duration = Duration::from_secs(1);

/// The file store, beside bare calls to the file system in the same directory.
fn file(suite: &mut Suite, counts: &[u64]) -> Result<()> {
    const CHART: &str = "entries-file";
    let home = suite.directory()?;
    let open = |limit: u64| -> Result<Stored> {
        let url = format!("file:{}?limit_entries={limit}", home.path().display());
        Ok(Stored(ck_cache::open_store(&url)?))
    };
    let mut files = Files(home.path().to_owned());
    let (mut in_store, mut in_files) = (Held::default(), Held::default());
    in_files.fill(&mut files, counts[0])?;
    for &count in counts {
        let mut store = open(2 * count + 100_000)?;
        in_store.fill(&mut store, count)?;
        // What the filling left to be written would be waited for by whoever comes next.
        rustix::fs::syncfs(File::open(home.path())?)?;
        operations(suite, CHART, "", &mut store, &mut in_store, count)?;
        operations(suite, CHART, "bare ", &mut files, &mut in_files, count)?;
        // By a process that knows nothing of it yet; the first put has to know how full it is.
        let [seconds] = medians(25, PATIENCE, || {
            let id = in_store.new_ids(1).start;
            let start = Instant::now();
            let mut store = open(2 * count + 100_000)?;
            store.put(id)?;
            let seconds = start.elapsed();
            store.remove(id)?;
            Ok([seconds])
        })?;
        // Whether it reads what is there is the question: the work is at most all entries.
        suite.note("opening", "file", count as f64, count as f64, seconds);
        // From here on, each put evicts an entry.
        let mut store = open(count)?;
        replacements(
            suite,
            CHART,
            "put, evicting",
            &mut store,
            &mut in_store,
            count,
        )?;
        replacements(
            suite,
            CHART,
            "bare put, evicting",
            &mut files,
            &mut in_files,
            count,
        )?;
        in_store.ids.retain(|&id| store.stat(id).is_ok());
    }
    Ok(())
}

/// The tier in the process, beside a bare hash map.
fn process(suite: &mut Suite, counts: &[u64]) -> Result<()> {
    let mut tier = Tier(L1::builder(4 << 30).build());
    let mut map = Map(HashMap::new());
    let (mut in_tier, mut in_map) = (Held::default(), Held::default());
    for &count in counts {
        in_tier.fill(&mut tier, count)?;
        in_map.fill(&mut map, count)?;
        tier.0.settle();
        operations(suite, "entries-process", "", &mut tier, &mut in_tier, count)?;
        operations(
            suite,
            "entries-process",
            "bare ",
            &mut map,
            &mut in_map,
            count,
        )?;
    }
    Ok(())
}

/// A server with room for all of them: a million takes some hundred bytes each.
fn server(suite: &mut Suite, chart: &str, kind: Kind, counts: &[u64]) -> Result<()> {
    let server = Store::start(kind, 1 << 30)?;
    let mut store = Stored(Arc::clone(server.backend()));
    let mut held = Held::default();
    for &count in counts {
        let new = held.grow(count);
        put_together(&store, new)?;
        operations(suite, chart, "", &mut store, &mut held, count)?;
    }
    Ok(())
}

/// Puts entries by many threads, whose commands share round trips.
fn put_together(store: &Stored, ids: Range<u64>) -> Result<()> {
    const THREADS: usize = 32;
    thread::scope(|scope| {
        let part = |first| {
            let mut store = Stored(Arc::clone(&store.0));
            let mut ids = ids.clone().skip(first).step_by(THREADS);
            scope.spawn(move || ids.try_for_each(|id| store.put(id)))
        };
        let running: Vec<_> = (0..THREADS).map(part).collect();
        for one in running {
            one.join().map_err(|_| "a thread panicked")??;
        }
        Ok(())
    })
}

/// The entries that are in a place, oldest first.
#[derive(Default)]
struct Held {
    ids: VecDeque<u64>,
    next: u64,
}

impl Held {
    /// So many ids that were never used.
    fn new_ids(&mut self, count: u64) -> Range<u64> {
        self.next += count;
        self.next - count..self.next
    }

    /// The ids of what is missing up to `count` entries.
    fn grow(&mut self, count: u64) -> Range<u64> {
        let new = self.new_ids(count - self.ids.len() as u64);
        self.ids.extend(new.clone());
        new
    }

    fn fill(&mut self, entries: &mut dyn Entries, count: u64) -> Result<()> {
        self.grow(count).try_for_each(|id| entries.put(id))
    }
}

/// Operations of each kind that are timed together.
const ROUNDS: u64 = 1_000;

/// The same for puts that evict: where removing is slow, it may take milliseconds.
const REPLACEMENTS: u64 = 200;

/// Measures all operations; afterwards the same entries are there.
fn operations(
    suite: &mut Suite,
    chart: &str,
    prefix: &str,
    entries: &mut dyn Entries,
    held: &mut Held,
    count: u64,
) -> Result<()> {
    let mut at = 0;
    let times = medians(25, PATIENCE, || {
        let new = held.new_ids(ROUNDS);
        let some: Vec<u64> = (0..ROUNDS)
            .map(|_| {
                at = (at + 7_919_777) % held.ids.len();
                held.ids[at]
            })
            .collect();
        Ok([
            time(|| new.clone().try_for_each(|id| entries.put(id)))?,
            time(|| some.iter().try_for_each(|&id| entries.get(id)))?,
            time(|| some.iter().try_for_each(|&id| entries.stat(id)))?,
            time(|| new.clone().try_for_each(|id| entries.remove(id)))?,
        ])
    })?;
    for (operation, seconds) in ["put", "get", "stat", "remove"].into_iter().zip(times) {
        note(
            suite,
            chart,
            &format!("{prefix}{operation}"),
            count,
            seconds / ROUNDS as f64,
        );
    }
    Ok(())
}

/// Measures puts each of which makes the oldest entry leave.
fn replacements(
    suite: &mut Suite,
    chart: &str,
    series: &str,
    entries: &mut dyn Entries,
    held: &mut Held,
    count: u64,
) -> Result<()> {
    let [seconds] = medians(25, PATIENCE, || {
        let new = held.new_ids(REPLACEMENTS);
        held.ids.extend(new.clone());
        Ok([time(|| {
            new.clone()
                .try_for_each(|id| entries.replace(id, held.ids.pop_front().unwrap_or(id)))
        })?])
    })?;
    note(suite, chart, series, count, seconds / REPLACEMENTS as f64);
    Ok(())
}

/// Takes note of the seconds that each operation takes beside `count` entries.
fn note(suite: &mut Suite, chart: &str, series: &str, count: u64, each: f64) {
    let count = count as f64;
    suite.note(chart, series, count, count, each * count);
}

fn key(id: u64) -> Key {
    Key::new(format!("entry {id}"))
}

#[derive(Debug)]
struct Stored(Arc<dyn Backend>);

impl Entries for Stored {
    fn put(&mut self, id: u64) -> Result<()> {
        let body = vec![Bytes::from_static(BODY)];
        block_on(
            self.0
                .put(&key(id), Bytes::new(), body, WriteOptions::new()),
        )?
        .stored()?;
        Ok(())
    }

    fn get(&mut self, id: u64) -> Result<()> {
        let entry = block_on(self.0.open(&key(id)))?.ok_or("an entry is gone")?;
        black_box(entry.contiguous());
        Ok(())
    }

    fn stat(&mut self, id: u64) -> Result<()> {
        block_on(self.0.stat(&key(id)))?.ok_or("an entry is gone")?;
        Ok(())
    }

    fn remove(&mut self, id: u64) -> Result<()> {
        let removed = block_on(self.0.remove(&key(id)))?;
        removed.then_some(()).ok_or("an entry is gone".into())
    }

    /// The store is at its limit, and makes room itself.
    fn replace(&mut self, id: u64, _oldest: u64) -> Result<()> {
        self.put(id)
    }
}

/// Files of their own in the directory of a store.
struct Files(PathBuf);

impl Files {
    fn path(&self, id: u64) -> PathBuf {
        // In no order, as the names of the store, which do not look like this.
        let name = u128::from(id).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
        self.0.join(format!("bare-{name:032x}"))
    }
}

impl Entries for Files {
    fn put(&mut self, id: u64) -> Result<()> {
        let temp = self.0.join(format!(".bare-{id:032x}"));
        std::fs::write(&temp, BODY)?;
        Ok(std::fs::rename(temp, self.path(id))?)
    }

    fn get(&mut self, id: u64) -> Result<()> {
        let mut body = [0; BODY.len()];
        File::open(self.path(id))?.read_exact(&mut body)?;
        black_box(body);
        Ok(())
    }

    fn stat(&mut self, id: u64) -> Result<()> {
        black_box(std::fs::metadata(self.path(id))?);
        Ok(())
    }

    fn remove(&mut self, id: u64) -> Result<()> {
        Ok(std::fs::remove_file(self.path(id))?)
    }
}

struct Tier(L1<Value>);

struct Value(#[expect(dead_code, reason = "it only takes room")] u64);

impl Weigh for Value {
    fn weight(&self) -> Weight {
        Weight::default()
    }
}

impl Entries for Tier {
    fn put(&mut self, id: u64) -> Result<()> {
        let _ = black_box(self.0.insert(key(id), Arc::new(Value(id)), None));
        Ok(())
    }

    fn get(&mut self, id: u64) -> Result<()> {
        black_box(self.0.get(&key(id))).ok_or("an entry is gone")?;
        Ok(())
    }

    /// There is none for an entry; the tier's own figures are asked for.
    fn stat(&mut self, _: u64) -> Result<()> {
        black_box(self.0.stats());
        Ok(())
    }

    fn remove(&mut self, id: u64) -> Result<()> {
        self.0
            .remove(&key(id))
            .then_some(())
            .ok_or("an entry is gone".into())
    }
}

struct Map(HashMap<Key, Arc<Value>>);

impl Entries for Map {
    fn put(&mut self, id: u64) -> Result<()> {
        self.0.insert(key(id), Arc::new(Value(id)));
        Ok(())
    }

    fn get(&mut self, id: u64) -> Result<()> {
        black_box(self.0.get(&key(id))).ok_or("an entry is gone")?;
        Ok(())
    }

    fn stat(&mut self, _: u64) -> Result<()> {
        black_box(self.0.len());
        Ok(())
    }

    fn remove(&mut self, id: u64) -> Result<()> {
        self.0
            .remove(&key(id))
            .map(drop)
            .ok_or("an entry is gone".into())
    }
}
