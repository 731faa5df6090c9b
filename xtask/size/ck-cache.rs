//! Copies a table from one key to another, compressed.
use ck_cache::blocking::Cache;
use ck_cache::{Compression, PutOptions};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let url = std::env::args().nth(1).ok_or("the store is missing")?;
    let cache = Cache::open(&url)?;
    if let Some(table) = cache.get_table("from")? {
        let options = PutOptions::new().with_compression(Compression::Zstd(3));
        println!("{:?}", cache.put_table("to", table, &options)?);
    }
    Ok(())
}
