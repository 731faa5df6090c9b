//! Copies a table from one key to another of a directory whose entries are encrypted.
use std::sync::Arc;

use ck_cache::{Cache, Encrypted, EncryptionOptions, Keyring, PutOptions, open_store};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let url = std::env::args().nth(1).ok_or("the store is missing")?;
    let keys = Keyring::from_env()?.ok_or("CACHEKIT_MASTER_KEY is missing")?;
    let store = Encrypted::new(open_store(&url)?, keys, EncryptionOptions::new())?;
    let cache = Cache::builder(Arc::new(store)).build().blocking();
    if let Some(table) = cache.get_table("from")? {
        println!("{:?}", cache.put_table("to", table, &PutOptions::new())?);
    }
    Ok(())
}
