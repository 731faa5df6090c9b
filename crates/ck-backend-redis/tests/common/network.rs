use std::thread;
use std::time::{Duration, Instant};

use ck_backend_redis::RedisBackend;
use ck_core::{Backend, ErrorKind, Key};
use pollster::block_on;
use testkit::{Action, Direction, Fault, Proxy, RedisServer};

use super::{get, next, pattern, put, stored, stream};

const TIMEOUT: Duration = Duration::from_millis(120);

/// What two operations and their clean-up may take on a machine that is busy with other tests.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long what a writer leaves may stay.
const TEMP_TTL: Duration = Duration::from_secs(1);

/// How many runs the environment wants (`CK_FAULT_RUNS`).
pub(crate) fn runs() -> u64 {
    std::env::var("CK_FAULT_RUNS").map_or(400, |runs| runs.parse().unwrap())
}

/// So many times: an entry is stored, then read, replaced and read over a network that breaks at random
/// places, and read again when it has healed. In the end everything is removed.
pub(crate) fn break_network(server: &RedisServer, seed: u64, runs: u64) {
    let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut dice = move |sides: u64| {
        random = next(random);
        (random >> 11) % sides
    };
    let mut failures = 0;
    for run in 0..runs {
        let proxy = Proxy::start(server.addr());
        let in_chunks = run % 3 == 0;
        // Nobody knows how long the value is, so it is written in parts and then put together.
        let in_parts = run % 3 == 1;
        let open = |url: String| {
            let mut builder = RedisBackend::builder(url.clone()).temp_ttl(TEMP_TTL);
            if url != server.url() {
                builder = builder.timeout(TIMEOUT);
            }
            if in_chunks {
                builder = builder.single_value_bytes(200_000).chunk_bytes(300_000);
            }
            if in_parts {
                builder = builder.chunk_bytes(300_000);
            }
            builder.build().unwrap()
        };
        let healthy = open(server.url());
        let key = Key::new(format!("run/{run}"));
        let size = |dice: &mut dyn FnMut(u64) -> u64| {
            usize::try_from(
                [300, 60_000, 300_000, 1_500_000][usize::try_from(dice(4)).unwrap()] + dice(999),
            )
            .unwrap()
        };
        let values = [2 * run, 2 * run + 1].map(|seed| pattern(seed, size(&mut dice)));
        let [old, new] = &values;
        stored(put(&healthy, &key, old));
        let reach = old.len().max(new.len()) as u64 + 5_000;
        for _connection in 0..4 {
            let mut script = Vec::new();
            for _ in 0..dice(3) {
                let direction = [Direction::Up, Direction::Down][usize::try_from(dice(2)).unwrap()];
                let action = match dice(8) {
                    0 => Action::Stall,
                    1..=3 => Action::Cut,
                    4..=5 => Action::Truncate,
                    _ => Action::Delay(Duration::from_millis(dice(20))),
                };
                // Often early, where the connection is made and entries are opened.
                let at = if dice(2) == 0 {
                    dice(3_000)
                } else {
                    dice(reach)
                };
                script.push(Fault {
                    direction,
                    at,
                    action,
                });
            }
            proxy.script(script);
        }
        let broken = open(format!("redis://{}", proxy.addr()));
        let start = Instant::now();
        let read = get(&broken, &key);
        let written = if in_parts {
            stream(&broken, &key, new, Some(70_000))
        } else {
            put(&broken, &key, new)
        };
        let read_again = get(&broken, &key);
        assert!(
            start.elapsed() < PATIENCE,
            "{seed}/{run}: {:?}",
            start.elapsed()
        );

        // A writer that is cut off from what it has just published cannot keep the chunks alive.
        let may_be_gone = in_chunks && written.is_err();
        for (result, may_be, gone) in [
            (read, &values[..1], false),
            (read_again, &values[..], may_be_gone),
        ] {
            match result {
                Ok(Some(bytes)) => assert!(may_be.contains(&bytes), "{seed}/{run}: a wrong value"),
                Ok(None) => assert!(gone, "{seed}/{run}: the entry was lost"),
                Err(error) => {
                    failures += 1;
                    let kind = error.kind();
                    let fine = matches!(kind, ErrorKind::Transient | ErrorKind::Timeout)
                        || (gone && kind == ErrorKind::Corrupt);
                    assert!(fine, "{seed}/{run}: {error:?}");
                }
            }
        }
        let stored = get(&healthy, &key).unwrap();
        match written {
            Ok(outcome) => {
                assert!(outcome.is_stored());
                assert!(
                    stored == Some(new.clone()),
                    "{seed}/{run}: what was stored is not there"
                );
            }
            Err(error) => {
                failures += 1;
                let fine = matches!(error.kind(), ErrorKind::Transient | ErrorKind::Timeout);
                assert!(fine, "{seed}/{run}: {error:?}");
                // The answer may have been lost after the entry was published.
                let known = stored.map_or(may_be_gone, |bytes| values.contains(&bytes));
                assert!(known, "{seed}/{run}: neither the old entry nor the new one");
            }
        }
        proxy.heal();
        // The first operation may find the last broken connection.
        let healed = get(&broken, &key).or_else(|_| get(&broken, &key));
        assert!(
            healed.is_ok_and(|bytes| bytes.is_some() || may_be_gone),
            "{seed}/{run}: no recovery"
        );
    }
    assert!(
        failures > runs / 4,
        "the network did not break: {failures} failures"
    );

    let store = RedisBackend::open(server.url()).unwrap();
    for run in 0..runs {
        block_on(store.remove(&Key::new(format!("run/{run}")))).unwrap();
    }
    let start = Instant::now();
    let left = || server.command(&["DBSIZE"]).text();
    while left() != "0" {
        // What has no time to live any more, `prune` removes.
        block_on(store.prune()).unwrap();
        assert!(
            start.elapsed() < 10 * TEMP_TTL,
            "{seed}: {} keys stay",
            left()
        );
        thread::sleep(TEMP_TTL / 20);
    }
}
