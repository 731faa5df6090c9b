//! Stores the standard input in a directory and reads it back.
mod round_trip;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = std::env::args_os()
        .nth(1)
        .ok_or("the directory is missing")?;
    round_trip::run(&ck_backend_file::FileBackend::builder(dir).build()?)
}
