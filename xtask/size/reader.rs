//! Reads a table from a directory or a Redis server.
use ck_cache::blocking::Cache;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let url = std::env::args().nth(1).ok_or("the store is missing")?;
    if let Some(table) = Cache::open(&url)?.get_table("table")? {
        println!("{} rows", table.num_rows());
    }
    Ok(())
}
