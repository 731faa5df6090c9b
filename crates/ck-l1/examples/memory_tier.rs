//! The tier used alone: documents rendered once, shared by requests, in 1 MiB of memory.
//!
//! `cargo run -p ck-l1 --example memory_tier`
#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use std::sync::Arc;
use std::time::Duration;

use ck_core::Key;
use ck_l1::{Insertion, L1, Weigh, Weight};

struct Document {
    title: String,
    body: Vec<u8>,
}

impl Weigh for Document {
    fn weight(&self) -> Weight {
        Weight::heap((self.title.capacity() + self.body.capacity()) as u64)
    }
}

fn render(number: usize) -> Document {
    Document {
        title: format!("Document {number}"),
        body: vec![b'x'; 1000 * (number % 40 + 1)],
    }
}

/// The document, from memory if it is there.
fn document(l1: &L1<Document>, number: usize) -> Arc<Document> {
    let key = Key::new(format!("documents/{number}"));
    if let Some(document) = l1.get(&key) {
        return document;
    }
    let document = Arc::new(render(number));
    match l1.insert(key, Arc::clone(&document), Some(Duration::from_secs(600))) {
        Insertion::Stored => {}
        // Nothing is wrong: it is rendered again when it is needed again.
        Insertion::Rejected(refusal) => println!("document {number} is not kept: {refusal:?}"),
    }
    document
}

fn main() {
    let l1 = L1::builder(1 << 20).build();
    // What all documents use is charged once.
    let template = vec![b' '; 100_000];
    let charge = l1.charge(template.capacity() as u64);
    println!(
        "the template takes {:?} bytes of the budget",
        charge.as_ref().map(|charge| charge.bytes())
    );

    for round in 0..4 {
        for number in 0..40 {
            let document = document(&l1, number * (round % 2 + 1));
            assert!(document.title.starts_with("Document"));
        }
        let stats = l1.stats();
        println!(
            "round {round}: {} entries in {} of {} bytes, {} hits, {} misses, {} evicted",
            stats.entries,
            stats.bytes,
            stats.budget_bytes,
            stats.hits,
            stats.misses,
            stats.evicted.size
        );
    }
}
