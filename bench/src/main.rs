//! The lab's main job.

fn main() {}
