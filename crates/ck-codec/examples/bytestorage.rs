//! Shows a ByteStorage payload as JSON, or makes one of JSON: `bytestorage to-json FILE`,
//! `bytestorage from-json FROM TO`.
#![allow(clippy::print_stdout, reason = "an example prints")]

use std::error::Error;
use std::fs;

use ck_codec::bytestorage;

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<_> = std::env::args().skip(1).collect();
    let args: Vec<_> = args.iter().map(String::as_str).collect();
    match *args.as_slice() {
        ["to-json", file] => {
            let document = bytestorage::decode(&fs::read(file)?)?;
            println!("{}", bytestorage::to_json(&document)?);
        }
        ["from-json", from, to] => {
            let document = bytestorage::from_json(&fs::read(from)?)?;
            fs::write(to, bytestorage::encode(&document)?)?;
        }
        _ => return Err("usage: bytestorage to-json FILE | bytestorage from-json FROM TO".into()),
    }
    Ok(())
}
