//! Shows what a payload of the Python client flamepy holds, or writes it anew:
//! `flm read FILE`, `flm copy FROM TO`.
#![allow(clippy::print_stdout, reason = "an example prints")]

use std::error::Error;
use std::fmt::Debug;
use std::fs;

use arrow_array::{ArrowPrimitiveType, downcast_primitive};
use bytes::Bytes;
use ck_arrow::Table;
use ck_codec::{Flm, Order, Tensor};
use serde_json::{Value, json};

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<_> = std::env::args().skip(1).collect();
    let args: Vec<_> = args.iter().map(String::as_str).collect();
    match *args.as_slice() {
        ["read", file] => println!("{}", shown(&decode(file)?)?),
        ["copy", from, to] => {
            let mut out = fs::File::create(to)?;
            decode(from)?.write(&mut out)?;
        }
        _ => return Err("usage: flm read FILE | flm copy FROM TO".into()),
    }
    Ok(())
}

fn decode(file: &str) -> Result<Flm, Box<dyn Error>> {
    // So that nothing of it has to be copied once more.
    let payload = Flm::aligned(&Bytes::from(fs::read(file)?))?;
    Ok(Flm::decode(&payload)?)
}

fn shown(payload: &Flm) -> Result<Value, Box<dyn Error>> {
    let table = |kind: &str, table: &Table| {
        json!({
            "type": kind,
            "rows": table.num_rows(),
            "columns": table.schema().fields().iter().map(|field| field.name()).collect::<Vec<_>>(),
        })
    };
    Ok(match payload {
        Flm::Tensor(tensor) => json!({
            "type": "tensor",
            "dtype": tensor.data_type().to_string(),
            "shape": tensor.shape(),
            "fortran": tensor.order() == Order::ColumnMajor,
            "values": values(tensor)?,
        }),
        Flm::Table(found) => table("table", found),
        Flm::Batch(batch) => table("batch", &batch.into()),
        Flm::Array(array) => {
            json!({"type": "array", "dtype": array.data_type().to_string(), "length": array.len()})
        }
        Flm::CloudPickle(bytes) => json!({"type": "cloudpickle", "bytes": bytes.len()}),
        Flm::Unmarked(bytes) => json!({"type": "unmarked", "bytes": bytes.len()}),
        other => return Err(format!("cannot show {other:?}").into()),
    })
}

/// The values, the last index running fastest.
fn values(tensor: &Tensor) -> Result<Vec<Value>, Box<dyn Error>> {
    macro_rules! numbers {
        ($type:ty) => {
            numbers::<$type>(tensor)
        };
    }
    downcast_primitive! {
        tensor.data_type() => (numbers),
        other => Err(format!("cannot show values of {other}").into()),
    }
}

fn numbers<T: ArrowPrimitiveType>(tensor: &Tensor) -> Result<Vec<Value>, Box<dyn Error>>
where
    T::Native: Debug,
{
    let values = tensor.values::<T>()?;
    let mut index = vec![0; tensor.shape().len()];
    let mut shown = Vec::new();
    for _ in 0..tensor.len() {
        let position = tensor
            .position(&index)
            .ok_or("an index outside of the shape")?;
        let text = format!("{:?}", values[position]);
        shown.push(serde_json::from_str(&text).unwrap_or(Value::String(text)));
        for (at, len) in index.iter_mut().zip(tensor.shape()).rev() {
            *at += 1;
            if *at < *len {
                break;
            }
            *at = 0;
        }
    }
    Ok(shown)
}
