//! Keeps a text in the process and reads it back.
use std::sync::Arc;

use ck_core::Key;
use ck_l1::{L1, Weigh, Weight};

struct Text(String);

impl Weigh for Text {
    fn weight(&self) -> Weight {
        Weight::heap(self.0.capacity() as u64)
    }
}

fn main() {
    let key = Key::new(std::env::args().next().unwrap_or_default());
    let tier = L1::builder(1 << 20).build();
    let kept = tier.insert(key.clone(), Arc::new(Text(key.to_string())), None);
    println!("{kept:?} {:?}", tier.get(&key).map(|text| text.0.len()));
}
