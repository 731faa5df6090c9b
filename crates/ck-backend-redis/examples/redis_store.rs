//! Entries by hand: `cargo run -p ck-backend-redis --example redis_store -- redis://HOST:PORT put KEY SECONDS <file`,
//! `.. get KEY >file`, `.. remove KEY`, `.. usage`.
#![allow(clippy::print_stdout, reason = "a program for people prints")]

use std::io::{Read, Write};
use std::time::Duration;

use bytes::Bytes;
use ck_backend_redis::RedisBackend;
use ck_core::{Backend, Expiry, Key, WriteOptions, block_on};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let [url, command @ ..] = args.as_slice() else {
        return Err("which server?".into());
    };
    let store = RedisBackend::open(*url)?;
    match command {
        ["put", key, seconds] => {
            let mut value = Vec::new();
            std::io::stdin().read_to_end(&mut value)?;
            let expiry = Expiry::after(Duration::from_secs(seconds.parse()?))?;
            let options = WriteOptions::new().with_expiry(expiry);
            let key = Key::new(*key);
            let put = store.put(&key, Bytes::new(), vec![value.into()], options);
            println!("{:?}", block_on(put)?);
        }
        ["get", key] => match block_on(store.open(&Key::new(*key)))? {
            Some(entry) => {
                let value = block_on(entry.read(0..entry.len()))?;
                std::io::stdout().write_all(&value)?;
            }
            None => return Err("no such entry".into()),
        },
        ["remove", key] => println!("{}", block_on(store.remove(&Key::new(*key)))?),
        ["usage"] => println!("{:#?}", block_on(store.usage())?),
        _ => return Err("put KEY SECONDS, get KEY, remove KEY or usage?".into()),
    }
    Ok(())
}
