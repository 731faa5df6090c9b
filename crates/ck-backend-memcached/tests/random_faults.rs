//! Guards against the network: wherever a connection is cut, stalled or ended, and whenever a server is
//! killed, a reader gets the old value, the new one, a miss or an honest error, within the deadline; afterwards
//! everything works again by itself, and nothing is left behind: no memory, no descriptor, no thread.
//!
//! `CK_FAULT_RUNS` says how many runs there are. One test, because what is left behind is counted for the
//! whole process.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "tests report by panicking"
)]

mod common;

use std::time::{Duration, Instant};

use bytes::Bytes;
use ck_backend_memcached::MemcachedBackend;
use ck_core::{ErrorKind, Key, Outcome, Result, block_on};
use common::{Random, get, open, pattern, put};
use testkit::heap::{self, CountingAllocator};
use testkit::{Action, Direction, Fault, Memcached, Proxy};

#[global_allocator]
static HEAP: CountingAllocator = CountingAllocator::new();

const TIMEOUT: Duration = Duration::from_millis(150);
/// What a busy machine may add to a deadline.
const SLACK: Duration = Duration::from_millis(800);
/// One item, and several chunks.
const SIZES: [usize; 2] = [30_000, 900_000];
/// What is killed in the middle has to take a while.
const LARGE: usize = 20_000_000;
/// Runs after which all that is made once has been made.
const WARM: u64 = 60;
/// The end of a connection to a killed server may come through the proxy only while it is used.
const KILLED: [ErrorKind; 2] = [ErrorKind::Timeout, ErrorKind::Transient];
/// What the harness and the proxies may hold more or less of, by chance.
const HEAP_SLACK: usize = 64 << 10;

struct Bed {
    servers: [Memcached; 2],
    /// Keys are spread by the addresses of the proxies, so those stay.
    proxies: [Proxy; 2],
    ranged: Bytes,
}

#[test]
fn no_fault_gives_a_wrong_value_hangs_or_leaves_anything_behind() {
    let runs = match std::env::var("CK_FAULT_RUNS") {
        Ok(runs) => runs.parse().unwrap(),
        Err(_) => 300,
    };
    let servers = [(); 2].map(|()| Memcached::start_with(&["-m", "256"]));
    let proxies = servers.each_ref().map(|server| Proxy::start(server.addr()));
    let mut bed = Bed {
        servers,
        proxies,
        ranged: pattern(1, 2_000_000),
    };
    let mut before = None;
    for seed in 0..runs {
        if seed == WARM {
            before = Some(bed.left());
        }
        match seed % 25 {
            24 => bed.kill_in_the_middle(seed),
            turn if turn % 3 == 2 => bed.read_ranges(seed),
            _ => bed.put_and_get(seed),
        }
    }
    let Some(before) = before else { return };
    let start = Instant::now();
    loop {
        let after = bed.left();
        if after.is_no_more_than(&before) {
            println!(
                "{runs} runs in all; held after {WARM} of them: {before:?}, at the end: {after:?}"
            );
            return;
        }
        assert!(
            start.elapsed() < Duration::from_secs(10),
            "left behind: {before:?} before, {after:?} after"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// What the process holds.
#[derive(Debug)]
struct Left {
    heap: usize,
    descriptors: usize,
    threads: usize,
}

impl Left {
    fn is_no_more_than(&self, other: &Self) -> bool {
        self.heap <= other.heap + HEAP_SLACK
            && self.descriptors <= other.descriptors
            && self.threads <= other.threads
    }
}

impl Bed {
    /// What is held when nothing goes on: threads of the proxies end when they see that they should.
    fn left(&self) -> Left {
        let count = |dir: &str| std::fs::read_dir(dir).unwrap().count();
        let mut least = Left {
            heap: usize::MAX,
            descriptors: usize::MAX,
            threads: usize::MAX,
        };
        self.heal();
        let mut still = 0;
        while still < 10 {
            std::thread::sleep(Duration::from_millis(5));
            let now = Left {
                heap: heap::live(),
                descriptors: count("/proc/self/fd"),
                threads: count("/proc/self/task"),
            };
            still += 1;
            if now.threads < least.threads || now.descriptors < least.descriptors {
                still = 0;
            }
            least = Left {
                heap: least.heap.min(now.heap),
                descriptors: least.descriptors.min(now.descriptors),
                threads: least.threads.min(now.threads),
            };
        }
        least
    }

    fn backend(&self) -> MemcachedBackend {
        MemcachedBackend::builder(self.proxies.iter().map(|proxy| proxy.addr().to_string()))
            .timeout(TIMEOUT)
            .min_throughput(100_000_000)
            .single_value_bytes(100_000)
            .chunk_bytes(60_000)
            .build()
            .unwrap()
    }

    fn heal(&self) {
        for proxy in &self.proxies {
            proxy.heal();
            proxy.cut_all();
        }
    }

    fn put_and_get(&self, seed: u64) {
        let mut random = Random::new(seed);
        let backend = self.backend();
        let size = SIZES[usize::try_from(random.below(2)).unwrap()];
        let key = Key::new(format!("faults/{}", seed % 5));
        let [old, new] = [1, 2].map(|part| pattern(seed * 2 + part, size));
        assert!(in_the_end(seed, || put(&backend, &key, &old)).is_stored());
        for proxy in &self.proxies {
            proxy.cut_all();
            for _ in 0..4 {
                proxy.script(vec![random_fault(&mut random, size)]);
            }
        }

        let written = in_time(seed, "a put", || put(&backend, &key, &new));
        check_error(seed, &written);
        let read = in_time(seed, "a get", || get(&backend, &key));
        check_error(seed, &read);
        if let Ok(Some(read)) = &read {
            assert!(*read == old || *read == new, "seed {seed}: a wrong value");
        }
        if matches!((&written, &read), (Ok(Outcome::Stored { .. }), Ok(Some(_)))) {
            assert!(read.unwrap().unwrap() == new, "seed {seed}: a stale value");
        }
        self.heal();
        assert!(in_the_end(seed, || put(&backend, &key, &new)).is_stored());
        for backend in [&backend, &self.backend()] {
            let read = in_the_end(seed, || get(backend, &key));
            assert!(read.unwrap() == new, "seed {seed}");
        }
    }

    fn read_ranges(&self, seed: u64) {
        let mut random = Random::new(seed);
        let backend = self.backend();
        let key = Key::new("faults/ranges");
        let entry = match in_the_end(seed, || open(&backend, &key)) {
            Some(entry) => entry,
            // The first time, and when a server has forgotten it.
            None => {
                assert!(in_the_end(seed, || put(&backend, &key, &self.ranged)).is_stored());
                in_the_end(seed, || open(&backend, &key)).unwrap()
            }
        };
        for proxy in &self.proxies {
            proxy.cut_all();
            proxy.script(vec![random_fault(&mut random, 1_000_000)]);
            proxy.script(vec![random_fault(&mut random, 1_000_000)]);
        }
        let len = self.ranged.len() as u64;
        let ranges: Vec<_> = (0..4)
            .map(|_| {
                let start = random.below(len);
                start..start + random.below(len - start + 1)
            })
            .collect();
        for _ in 0..3 {
            let read = || block_on(entry.read_ranges(ranges.clone()));
            let parts = in_time(seed, "a read", read);
            check_error(seed, &parts);
            for (range, part) in ranges.iter().zip(parts.into_iter().flatten()) {
                let start = usize::try_from(range.start).unwrap();
                let expected = &self.ranged[start..usize::try_from(range.end).unwrap()];
                assert!(part == expected, "seed {seed}: a wrong range");
            }
        }
        self.heal();
    }

    /// A put or a get, in the middle of which a server is killed; then it starts again, empty.
    fn kill_in_the_middle(&mut self, seed: u64) {
        let mut random = Random::new(seed);
        let backend = self.backend();
        let key = Key::new("faults/killed");
        let [old, new] = [1, 2].map(|part| pattern(seed * 2 + part, LARGE));
        assert!(recovers(seed, &KILLED, || put(&backend, &key, &old)).is_stored());
        let victim = &mut self.servers[usize::try_from(random.below(2)).unwrap()];
        let delay = Duration::from_micros(random.below(60_000));
        let (written, read) = std::thread::scope(|scope| {
            let transfer = scope.spawn(|| {
                let written = put(&backend, &key, &new);
                (written, get(&backend, &key))
            });
            std::thread::sleep(delay);
            victim.kill();
            transfer.join().unwrap()
        });
        check_error(seed, &written);
        check_error(seed, &read);
        if let Ok(Some(read)) = read {
            assert!(read == old || read == new, "seed {seed}: a wrong value");
        }
        victim.restart();
        // What the other server has left of it is no entry.
        match get(&backend, &key) {
            Ok(Some(read)) => assert!(read == old || read == new, "seed {seed}: a wrong value"),
            Ok(None) => {}
            outcome => check_error(seed, &outcome),
        }
        assert!(recovers(seed, &KILLED, || put(&backend, &key, &new)).is_stored());
        assert!(
            recovers(seed, &KILLED, || get(&backend, &key)).unwrap() == new,
            "seed {seed}"
        );
    }
}

/// Does something, and checks that it ends.
fn in_time<T>(seed: u64, what: &str, work: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let done = work();
    // A put is three operations at most, start, write and commit, and a get two.
    let most = TIMEOUT * 3 + SLACK;
    assert!(start.elapsed() < most, "seed {seed}: {what} hung");
    done
}

/// Does something over a network that works. On a busy machine even that may be too slow at first.
fn in_the_end<T>(seed: u64, work: impl FnMut() -> Result<T>) -> T {
    recovers(seed, &[ErrorKind::Timeout], work)
}

/// Does something until it works; errors of these kinds may come before.
fn recovers<T>(seed: u64, passing: &[ErrorKind], mut work: impl FnMut() -> Result<T>) -> T {
    let start = Instant::now();
    loop {
        let error = match work() {
            Ok(done) => return done,
            Err(error) => error,
        };
        assert!(
            passing.contains(&error.kind()) && start.elapsed() < Duration::from_secs(10),
            "seed {seed}: no recovery: {error:?}"
        );
    }
}

fn check_error<T>(seed: u64, outcome: &Result<T>) {
    if let Err(error) = outcome {
        let honest = [ErrorKind::Transient, ErrorKind::Timeout, ErrorKind::Corrupt];
        assert!(honest.contains(&error.kind()), "seed {seed}: {error:?}");
        assert!(error.to_string().contains("memcached://"), "{error}");
    }
}

fn random_fault(random: &mut Random, size: usize) -> Fault {
    let direction = [Direction::Up, Direction::Down][usize::try_from(random.below(2)).unwrap()];
    let actions = [
        Action::Cut,
        Action::Truncate,
        Action::Cut,
        Action::Truncate,
        Action::Delay(Duration::from_millis(5)),
        Action::Stall,
    ];
    // Near the start lie the greeting and the first commands.
    let reach = if random.below(3) == 0 {
        3_000
    } else {
        size as u64 + 20_000
    };
    Fault {
        direction,
        at: random.below(reach),
        action: actions[usize::try_from(random.below(6)).unwrap()],
    }
}
