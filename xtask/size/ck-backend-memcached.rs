//! Stores the standard input in memcached servers and reads it back.
mod round_trip;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let url = std::env::args().nth(1).ok_or("the server is missing")?;
    round_trip::run(&ck_backend_memcached::MemcachedBackend::open([url])?)
}
