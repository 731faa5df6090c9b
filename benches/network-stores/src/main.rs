//! The stores behind a network: beside bare clients, and spread over many servers.
//!
//! In the folder `benches`:
//!
//! - `cargo run --release -p network-stores -- waiting-memcached [--mib N] [--rounds N] [--json]`,
//!   `waiting-redis`: what small gets wait while a large entry is written or read, beside bare clients that do the
//!   same. `cargo xtask bench` runs a part of it, and keeps the bound.
//! - `cargo run --release -p network-stores -- balance [--tb N]`: how full the servers of a fleet become, and
//!   what is lost with one of them (a simulation; no servers are started).

mod balance;
mod memcached;
mod series;
mod waiting;

/// The stores' own names and choice of servers, which are no part of what they offer.
#[allow(dead_code, reason = "the simulation uses a part of each")]
#[path = "../../../crates/ck-backend-memcached/src/names.rs"]
mod names;
#[allow(dead_code, reason = "the simulation uses a part of each")]
#[path = "../../../crates/ck-backend-redis/src/name.rs"]
mod redis_names;
#[path = "../../../crates/ck-backend-memcached/src/ring.rs"]
mod ring;

/// What `redis_names` fails with.
mod error {
    #[allow(dead_code, reason = "nothing here asks for random names")]
    pub(crate) enum Fault {
        Random(String),
    }
}

use crate::waiting::Plan;

pub(crate) type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let what = arguments
        .next()
        .ok_or("waiting-memcached, waiting-redis or balance?")?;
    let mut plan = Plan {
        mib: 1_024,
        rounds: 7,
        json: false,
    };
    let mut tb = 10;
    while let Some(name) = arguments.next() {
        if name == "--json" {
            plan.json = true;
            continue;
        }
        let value = arguments
            .next()
            .ok_or_else(|| format!("{name} needs a value"))?;
        match name.as_str() {
            "--mib" => plan.mib = value.parse()?,
            "--rounds" => plan.rounds = value.parse()?,
            "--tb" => tb = value.parse()?,
            _ => return Err(format!("unknown option {name}").into()),
        }
    }
    match what.as_str() {
        "waiting-memcached" => waiting::memcached(plan),
        "waiting-redis" => waiting::redis(plan),
        "balance" => {
            balance::run(tb);
            Ok(())
        }
        _ => Err(format!("there is no {what}").into()),
    }
}
