//! Reads a payload of one of the Python clients from the standard input and writes it as a typed value.
use std::any::Any;
use std::io::Read;
use std::sync::Arc;

use ck_arrow::Table;
use ck_codec::{CacheCodec, Flm, MessagePack, Tensor, bytestorage};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut input = Vec::new();
    std::io::stdin().read_to_end(&mut input)?;
    let (codec, value): (_, Arc<dyn Any + Send + Sync>) = match Flm::decode(&input.into())? {
        Flm::Tensor(tensor) => (CacheCodec::of::<Tensor>(), Arc::new(tensor)),
        Flm::Table(table) => (CacheCodec::of::<Table>(), Arc::new(table)),
        Flm::Unmarked(payload) => {
            let value = bytestorage::to_json(&bytestorage::decode(&payload)?)?.to_string();
            (
                CacheCodec::of::<MessagePack<String>>(),
                Arc::new(MessagePack::<_, 1>(value)),
            )
        }
        other => return Err(format!("{other:?}").into()),
    };
    codec.serialize(&value, &mut std::io::stdout().lock())?;
    Ok(())
}
