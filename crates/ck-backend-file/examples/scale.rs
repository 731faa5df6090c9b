//! Measures what a put costs in a large store against a small one, and what small entries cost.
//!
//! `cargo run --release -p ck-backend-file --example scale [DIR] [LARGE]`
//!
//! All figures are medians; both stores are measured in turn within one run, because disks and
//! neighbours change from minute to minute.
#![expect(clippy::print_stdout, reason = "a measurement is printed")]

use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::Bytes;
use ck_backend_file::{Durability, FileBackend};
use ck_core::{Backend, Key, WriteOptions};

const SMALL: u64 = 1_000;

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args_os().skip(1);
    let base = args.next().map_or_else(std::env::temp_dir, Into::into);
    let large = match args.next() {
        Some(count) => count.to_string_lossy().parse()?,
        None => 1_000_000,
    };
    let dir = base.join(format!("ck-scale-{}", std::process::id()));
    std::fs::create_dir_all(&dir)?;
    let measured = entries(&dir).and_then(|()| scale(&dir, large));
    std::fs::remove_dir_all(&dir)?;
    measured
}

/// Puts and gets of small entries.
fn entries(dir: &Path) -> Result<(), Box<dyn Error>> {
    for (name, durability, rounds) in [
        ("fast", Durability::Fast, 20_000_u32),
        ("synced", Durability::Synced, 300),
    ] {
        for size in [1 << 10, 64 << 10] {
            let store = FileBackend::builder(dir.join(format!("{name}-{size}")))
                .durability(durability)
                .build()?;
            let body = Bytes::from(vec![7_u8; size]);
            let (mut puts, mut gets) = (Vec::new(), Vec::new());
            for round in 0..rounds {
                let key = Key::new(format!("key-{}", round % 500));
                puts.push(time(|| put(&store, &key, &body))?);
                gets.push(time(|| get(&store, &key))?);
            }
            println!(
                "{name:>6} {:>3} KiB   put {:>8.1} us   get {:>6.2} us",
                size >> 10,
                micros(median(&mut puts)),
                micros(median(&mut gets)),
            );
        }
    }
    Ok(())
}

/// Puts into stores that hold few and many entries, below their limit and at it.
fn scale(dir: &Path, large: u64) -> Result<(), Box<dyn Error>> {
    const ROUNDS: u64 = 20_000;
    let open = |name: &str, entries: u64| {
        FileBackend::builder(dir.join(name))
            .limit_entries(entries + ROUNDS)
            .build()
    };
    let stores = [(open("few", SMALL)?, SMALL), (open("many", large)?, large)];
    let body = Bytes::from_static(b"tiny");
    for (store, entries) in &stores {
        let start = Instant::now();
        for i in 0..*entries {
            put(store, &Key::new(format!("fill-{i}")), &body)?;
        }
        println!(
            "filled {entries} entries in {:.1} s",
            start.elapsed().as_secs_f64()
        );
    }
    // What the filling left to be written would be waited for by whoever comes next.
    rustix::fs::sync();
    // The first round takes the stores to their limits; the second evicts one entry per put.
    for what in ["new entries", "new entries, evicting"] {
        let mut times = [Vec::new(), Vec::new()];
        for i in 0..ROUNDS {
            let key = Key::new(format!("{what}-{i}"));
            for ((store, _), times) in stores.iter().zip(&mut times) {
                times.push(time(|| put(store, &key, &body))?);
            }
        }
        compare(what, large, times);
    }
    drop(stores);
    let mut dirs = Vec::new();
    for name in ["few", "many"] {
        dirs.push(Files::of(&dir.join(name))?);
    }
    let mut times = [Vec::new(), Vec::new()];
    for i in 0..ROUNDS {
        for (files, times) in dirs.iter_mut().zip(&mut times) {
            times.push(time(|| files.replace(i, &body))?);
        }
    }
    compare("the same calls to the file system alone", large, times);
    let start = Instant::now();
    let again = open("many", large)?;
    get(&again, &Key::new("new entries-0"))?;
    println!(
        "opened {large} entries and read one in {:.0} us",
        micros(start.elapsed())
    );
    Ok(())
}

/// A directory whose files are replaced with no store around.
struct Files {
    dir: PathBuf,
    oldest_first: std::vec::IntoIter<PathBuf>,
}

impl Files {
    fn of(dir: &Path) -> Result<Self, Box<dyn Error>> {
        let mut files = Vec::new();
        for entry in std::fs::read_dir(dir)? {
            let entry = entry?;
            if entry.file_type()?.is_file() {
                files.push((entry.metadata()?.modified()?, entry.path()));
            }
        }
        files.sort_unstable();
        let oldest_first: Vec<_> = files.into_iter().map(|(_, path)| path).collect();
        Ok(Self {
            dir: dir.to_owned(),
            oldest_first: oldest_first.into_iter(),
        })
    }

    /// A new file under its final name, and the oldest one gone.
    fn replace(&mut self, i: u64, body: &[u8]) -> Result<(), Box<dyn Error>> {
        let temp = self.dir.join(format!(".{i:032x}.tmp"));
        std::fs::write(&temp, body)?;
        std::fs::rename(&temp, self.dir.join(format!("{i:032x}")))?;
        std::fs::remove_file(self.oldest_first.next().ok_or("no file is left")?)?;
        Ok(())
    }
}

fn compare(what: &str, large: u64, mut times: [Vec<Duration>; 2]) {
    let [few, many] = times.each_mut().map(|times| median(times));
    println!(
        "{what}: {:.1} us at {SMALL}, {:.1} us at {large}, ratio {:.2}",
        micros(few),
        micros(many),
        micros(many) / micros(few),
    );
}

fn put(store: &FileBackend, key: &Key, body: &Bytes) -> Result<(), Box<dyn Error>> {
    let put = store.put(key, Bytes::new(), vec![body.clone()], WriteOptions::new());
    pollster::block_on(put)?.stored()?;
    Ok(())
}

fn get(store: &FileBackend, key: &Key) -> Result<(), Box<dyn Error>> {
    let entry = pollster::block_on(store.open(key))?.ok_or("the entry is gone")?;
    std::hint::black_box(entry.contiguous());
    Ok(())
}

fn time(work: impl FnOnce() -> Result<(), Box<dyn Error>>) -> Result<Duration, Box<dyn Error>> {
    let start = Instant::now();
    work()?;
    Ok(start.elapsed())
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}
