//! Makes a report from a `run.json`.

fn main() {}
