//! What a table contains, whatever its batches are.

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{ArrowDictionaryKeyType, Float64Type, Int8Type, Int32Type, Int64Type};
use arrow_array::{Array, ArrayRef, DictionaryArray, RecordBatch};
use arrow_buffer::ArrowNativeType;
use arrow_schema::{DataType, SchemaRef};
use serde_json::{Map, Value};

use crate::Result;

/// A checksum of each column, of values, lengths, nulls and their order; not of how they are laid out.
///
/// # Memory
///
/// Some words per column.
#[derive(Debug)]
pub struct Digest {
    schema: SchemaRef,
    columns: Vec<Vec<Leaf>>,
}

/// The checksum of one array of values, or of lengths of lists.
#[derive(Debug, Clone, Copy, Default)]
struct Leaf {
    hash: u64,
    rows: u64,
    nulls: u64,
}

impl Digest {
    /// Of no rows yet.
    pub fn new(schema: SchemaRef) -> Self {
        let columns = vec![Vec::new(); schema.fields().len()];
        Self { schema, columns }
    }

    /// Of all rows of these batches.
    ///
    /// # Errors
    ///
    /// There are none, or a column has a type that no table here has.
    pub fn of(batches: &[RecordBatch]) -> Result<Self> {
        let schema = batches.first().ok_or("no batches")?.schema();
        let mut digest = Self::new(schema);
        for batch in batches {
            digest.add(batch)?;
        }
        Ok(digest)
    }

    /// Goes on with the next rows.
    pub fn add(&mut self, batch: &RecordBatch) -> Result<()> {
        for (column, leaves) in batch.columns().iter().zip(&mut self.columns) {
            fold(column, leaves, &mut 0)?;
        }
        Ok(())
    }

    /// One number for each column, by name.
    pub fn json(&self) -> Map<String, Value> {
        let fields = self.schema.fields().iter().zip(&self.columns);
        let number = |leaves: &[Leaf]| {
            let parts = leaves
                .iter()
                .flat_map(|leaf| [leaf.hash, leaf.nulls, leaf.rows]);
            parts.fold(0, step)
        };
        fields
            .map(|(field, leaves)| (field.name().clone(), number(leaves).into()))
            .collect()
    }

    /// Whether the columns are those that `expected` has under their names.
    pub fn check(&self, expected: &Map<String, Value>) -> Result<()> {
        for (name, value) in self.json() {
            if expected.get(&name) != Some(&value) {
                return Err(format!("column {name}: not what was stored").into());
            }
        }
        Ok(())
    }
}

impl Leaf {
    fn add(&mut self, values: impl Iterator<Item = u64>) {
        self.hash = values.fold(self.hash, step);
    }
}

fn step(hash: u64, value: u64) -> u64 {
    (hash ^ value)
        .wrapping_mul(0x9E37_79B9_7F4A_7C15)
        .rotate_left(29)
}

/// A number for each key: that of its text.
fn words<K: ArrowDictionaryKeyType>(array: &DictionaryArray<K>) -> impl Iterator<Item = u64> {
    let values = array.values().as_string::<i32>();
    let keys = array.keys().values().iter();
    keys.map(|key| text(values.value(key.as_usize())))
}

/// A number for a text.
fn text(text: &str) -> u64 {
    let (words, rest) = text.as_bytes().as_chunks::<8>();
    let hash = words.iter().fold(text.len() as u64, |hash, &word| {
        step(hash, u64::from_le_bytes(word))
    });
    rest.iter()
        .fold(hash, |hash, &byte| step(hash, u64::from(byte)))
}

/// Adds `array` to the leaf at `at`, and its children to those that follow.
#[expect(clippy::cast_sign_loss, reason = "only the bits count")]
fn fold(array: &ArrayRef, leaves: &mut Vec<Leaf>, at: &mut usize) -> Result<()> {
    if leaves.len() == *at {
        leaves.push(Leaf::default());
    }
    let leaf = &mut leaves[*at];
    *at += 1;
    if let Some(nulls) = array.nulls() {
        let first = leaf.rows;
        let rows = nulls.iter().zip(first..).filter(|(valid, _)| !valid);
        leaf.nulls = rows.fold(leaf.nulls, |hash, (_, row)| step(hash, row));
    }
    leaf.rows += array.len() as u64;
    match array.data_type() {
        DataType::Int64 => leaf.add(
            array
                .as_primitive::<Int64Type>()
                .values()
                .iter()
                .map(|&v| v as u64),
        ),
        DataType::Float64 => {
            leaf.add(
                array
                    .as_primitive::<Float64Type>()
                    .values()
                    .iter()
                    .map(|v| v.to_bits()),
            );
        }
        DataType::Utf8 => {
            let array = array.as_string::<i32>();
            leaf.add((0..array.len()).map(|row| text(array.value(row))));
        }
        DataType::Utf8View => {
            let array = array.as_string_view();
            leaf.add((0..array.len()).map(|row| text(array.value(row))));
        }
        DataType::List(_) => {
            let array = array.as_list::<i32>();
            let offsets = array.offsets();
            leaf.add(offsets.windows(2).map(|pair| (pair[1] - pair[0]) as u64));
            let (first, last) = (
                usize::try_from(offsets[0])?,
                usize::try_from(offsets[array.len()])?,
            );
            fold(&array.values().slice(first, last - first), leaves, at)?;
        }
        DataType::Struct(_) => {
            for child in array.as_struct().columns() {
                fold(child, leaves, at)?;
            }
        }
        DataType::Dictionary(keys, _) if **keys == DataType::Int8 => {
            leaf.add(words(array.as_dictionary::<Int8Type>()));
        }
        DataType::Dictionary(keys, _) if **keys == DataType::Int32 => {
            leaf.add(words(array.as_dictionary::<Int32Type>()));
        }
        other => return Err(format!("no checksum for {other}").into()),
    }
    Ok(())
}

/// Bytes of the buffers of `batches`; those they share count once.
pub fn bytes(batches: &[RecordBatch]) -> u64 {
    fn add(data: &arrow_data::ArrayData, seen: &mut Vec<*const u8>) -> u64 {
        let nulls = data.nulls().map(|nulls| nulls.buffer());
        let own = data.buffers().iter().chain(nulls).map(|buffer| {
            if seen.contains(&buffer.as_ptr()) {
                return 0;
            }
            seen.push(buffer.as_ptr());
            buffer.len() as u64
        });
        let own: u64 = own.sum();
        own + data
            .child_data()
            .iter()
            .map(|child| add(child, seen))
            .sum::<u64>()
    }
    let mut seen = Vec::new();
    let columns = batches.iter().flat_map(RecordBatch::columns);
    columns
        .map(|column| add(&Arc::clone(column).to_data(), &mut seen))
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tables;

    #[test]
    fn a_digest_does_not_depend_on_how_rows_are_cut() {
        for make in tables::ALL {
            let batch = make(1 << 20).unwrap().remove(0);
            let whole = Digest::of(std::slice::from_ref(&batch)).unwrap();
            let rows = batch.num_rows();
            let parts = [0..rows / 3, rows / 3..rows / 3 + 1, rows / 3 + 1..rows];
            let parts = parts.map(|part| batch.slice(part.start, part.len()));
            assert_eq!(Digest::of(&parts).unwrap().json(), whole.json());
            let swapped = [&parts[2], &parts[0], &parts[1]].map(RecordBatch::clone);
            let swapped = Digest::of(&swapped).unwrap();
            assert_ne!(swapped.json(), whole.json());
            assert!(swapped.check(&whole.json()).is_err());
            assert!(
                Digest::of(&parts[..2])
                    .unwrap()
                    .check(&whole.json())
                    .is_err()
            );
        }
    }

    #[test]
    fn shared_buffers_count_once() {
        let batches = tables::numeric(1 << 20).unwrap();
        let twice = [batches[0].clone(), batches[0].clone()];
        assert_eq!(bytes(&batches), 1 << 20);
        assert_eq!(bytes(&twice), 1 << 20);
    }
}
