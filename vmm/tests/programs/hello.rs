//! A program with the whole standard library: collections, formatting, time, and a panic.

use std::collections::HashMap;
use std::io::Read;

fn main() {
    let mut counts = HashMap::new();
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text).expect("standard input");
    for word in text.split_whitespace() {
        *counts.entry(word).or_insert(0) += 1;
    }
    let mut counts: Vec<_> = counts.into_iter().collect();
    counts.sort();
    let start = std::time::Instant::now();
    std::thread::sleep(std::time::Duration::from_millis(1));
    assert!(start.elapsed().as_millis() >= 1);
    println!("hello from Rust: {counts:?}");
    if std::env::args().nth(1).as_deref() == Some("panic") {
        panic!("as asked");
    }
}
