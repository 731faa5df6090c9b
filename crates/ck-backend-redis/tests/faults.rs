//! Guards against a network that breaks anywhere and servers that are killed at any moment: never a wrong
//! value, never a wait far beyond the deadline, and everything works again afterwards.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "tests report by panicking"
)]

mod common;

use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use ck_backend_redis::RedisBackend;
use ck_core::{ErrorKind, Key};
use common::{get, next, pattern, put, stored};
use testkit::{Action, Direction, Fault, Proxy, RedisServer};

const TIMEOUT: Duration = Duration::from_millis(120);

/// What two operations and their clean-up may take on a machine that is busy with other tests.
const PATIENCE: Duration = Duration::from_secs(5);

#[test]
fn a_network_that_breaks_anywhere_yields_no_wrong_value() {
    let runs: u64 = std::env::var("CK_FAULT_RUNS").map_or(100, |runs| runs.parse().unwrap());
    thread::scope(|scope| {
        for seed in 1..=4 {
            scope.spawn(move || break_network(seed, runs));
        }
    });
}

fn break_network(seed: u64, runs: u64) {
    let server = RedisServer::start();
    let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut dice = move |sides: u64| {
        random = next(random);
        (random >> 11) % sides
    };
    let mut failures = 0;
    for run in 0..runs {
        let proxy = Proxy::start(server.addr());
        let in_chunks = run % 3 == 0;
        let open = |url: String| {
            let mut builder = RedisBackend::builder(url.clone());
            if url != server.url() {
                builder = builder.timeout(TIMEOUT);
            }
            if in_chunks {
                builder = builder.single_value_bytes(200_000).chunk_bytes(300_000);
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
        let written = put(&broken, &key, new);
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
}

#[test]
fn a_server_that_is_killed_at_any_moment_yields_no_wrong_value() {
    let mut server = RedisServer::start();
    let store = RedisBackend::builder(server.url())
        .timeout(Duration::from_secs(2))
        .single_value_bytes(4 << 20)
        .chunk_bytes(1 << 20)
        .build()
        .unwrap();
    let key = Key::new("table");
    let mut random = 7;
    for (run, more) in (0..12_u64).zip([0, 2 << 20, 4 << 20].into_iter().cycle()) {
        let values: [Bytes; 2] = [2 * run, 2 * run + 1].map(|seed| pattern(seed, (3 << 20) + more));
        let known = |bytes: &Bytes| values.contains(bytes);
        stored(put(&store, &key, &values[0]).or_else(|_| put(&store, &key, &values[0])));
        random = next(random);
        let pause = Duration::from_micros(random % 15_000);
        thread::scope(|scope| {
            let reading = scope.spawn(|| (0..5).map(|_| get(&store, &key)).collect::<Vec<_>>());
            let writing = scope.spawn(|| put(&store, &key, &values[1]));
            thread::sleep(pause);
            server.kill();
            server.restart();
            let _ = writing.join().unwrap();
            for read in reading.join().unwrap() {
                match read {
                    Ok(found) => assert!(found.as_ref().is_none_or(known), "{run}: a wrong value"),
                    Err(error) => {
                        let kind = error.kind();
                        let fine = [ErrorKind::Transient, ErrorKind::Timeout, ErrorKind::Corrupt];
                        assert!(fine.contains(&kind), "{run}: {error:?}");
                    }
                }
            }
        });
        let found = get(&store, &key).or_else(|_| get(&store, &key)).unwrap();
        assert!(found.as_ref().is_none_or(known), "{run}: a wrong value");
    }
}
