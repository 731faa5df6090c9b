//! The stores behind a network: beside bare clients, and spread over many servers.
//!
//! In the folder `benches`:
//!
//! - `cargo run --release -p network-stores -- waiting-memcached [--mib N] [--rounds N]`, `waiting-redis`: what
//!   small gets wait while a large entry is written or read, beside bare clients that do the same.
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

pub(crate) type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let what = arguments
        .next()
        .ok_or("waiting-memcached, waiting-redis or balance?")?;
    let (mut mib, mut rounds, mut tb) = (None, 7, 10);
    while let Some(name) = arguments.next() {
        let value = arguments
            .next()
            .ok_or_else(|| format!("{name} needs a value"))?;
        match name.as_str() {
            "--mib" => mib = Some(value.parse()?),
            "--rounds" => rounds = value.parse()?,
            "--tb" => tb = value.parse()?,
            _ => return Err(format!("unknown option {name}").into()),
        }
    }
    match what.as_str() {
        "waiting-memcached" => waiting::memcached(mib.unwrap_or(1_024), rounds),
        "waiting-redis" => waiting::redis(mib.unwrap_or(1_024), rounds),
        "balance" => {
            balance::run(tb);
            Ok(())
        }
        _ => Err(format!("there is no {what}").into()),
    }
}
