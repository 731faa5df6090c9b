//! Stores the standard input in a Redis server and reads it back.
mod round_trip;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let url = std::env::args().nth(1).ok_or("the URL is missing")?;
    round_trip::run(&ck_backend_redis::RedisBackend::open(&url)?)
}
