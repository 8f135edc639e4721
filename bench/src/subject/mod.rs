//! What can be started: one file a thing.
//!
//! A subject knows how it is called and what one start of it looks like ([`Launch`]); the clock is the same for all of
//! them. [`Lab`] is what they stand on: folders, programs, the image. [`Catalogue`] knows them all.
//!
//! ```no_run
//! use isolab_bench::host::roots::Roots;
//! use isolab_bench::subject::{Catalogue, Lab, Peers};
//!
//! let lab = Lab::open(Roots::of_user())?;
//! let peers = Peers::default();
//! let container = Catalogue::new(&lab, &peers).get("container")?;
//! let start = container.start().expect("a proved start");
//! println!("ready after {} ns", start.timing.ready_ns);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod bundle;
mod catalogue;
pub(crate) mod child;
mod container;
pub(crate) mod errand;
pub(crate) mod family;
pub(crate) mod farm;
pub(crate) mod gate;
pub(crate) mod held;
pub mod kernel;
mod lab;
pub(crate) mod launch;
mod linux;
mod microvm;
pub(crate) mod original;
mod peers;
mod process;
mod restored;
pub(crate) mod template;
pub(crate) mod timeline;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use isolab_reports::model::{Role, SpanText};
use isolab_reports::stats::Random;

pub use catalogue::{Catalogue, Choice, LeftOut, SelectError};
pub use errand::timed;
pub use held::Held;
pub use lab::{Lab, LabError, command};
pub use launch::{Launch, Started};
pub(crate) use linux::kernel_in;
pub(crate) use peers::program as program_of;
pub use peers::{PeerError, PeerPath, Peers, qemu_microvm};
pub use timeline::Span;

use crate::clock;

/// What a reader is told of a subject.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct About {
    /// Its name in lists and on the command line.
    pub name: &'static str,
    /// The part that it plays.
    pub role: Role,
    /// One sentence: what isolates the payload, what runs beneath it.
    pub about: &'static str,
    /// The command line of one start, `{}` where what differs between starts stands.
    pub command: Vec<String>,
    /// What a peer says its version is.
    pub version: Option<String>,
}

/// A thing that can be started and proves itself by a nonce.
pub trait Subject: Send + Sync {
    /// What it is.
    fn about(&self) -> &About;

    /// Makes ready for one start, number `number` of this process, outside the clock. The error says why not, in words.
    fn launch(&self, number: u64, nonce: &Nonce) -> Result<Launch, String>;

    /// Whether it runs the payload; if not, something smaller that proves itself by the nonce all the same.
    fn runs_payload(&self) -> bool {
        true
    }

    /// Whether it is only started alone, never several at once.
    fn alone(&self) -> bool {
        false
    }

    /// Whether an instance can stay after READY, waiting for orders.
    fn stays(&self) -> bool {
        true
    }

    /// A process that has instances as its children, and stays when they end; it counts as one of theirs.
    fn keeper(&self) -> Option<i32> {
        None
    }

    /// Makes ready for a start after which the instance stays, if it can with nothing of ours beside it.
    fn launch_to_stay(&self, number: u64, nonce: &Nonce) -> Result<Launch, String> {
        self.launch(number, nonce)
    }

    /// Starts it once, alone, and sees it to its end; the error says in words why the start does not count.
    fn start(&self) -> Result<Started, String> {
        self.launch(next_number(), &Nonce::new())?.poise()?.go(None)
    }

    /// Starts `count` at once, behind one barrier, and sees all to their ends.
    fn start_together(&self, count: u32) -> Vec<Result<Started, String>> {
        start_together(self, count)
    }

    /// Starts it once and keeps it alive; the error says in words why the start does not count.
    fn hold(&self) -> Result<held::Held, String> {
        let nonce = Nonce::new();
        self.launch_to_stay(next_number(), &nonce)?.poise()?.hold(&nonce)
    }
}

/// Each start of this process has a number of its own.
pub(crate) fn next_number() -> u64 {
    static LAST: AtomicU64 = AtomicU64::new(0);
    LAST.fetch_add(1, Ordering::Relaxed)
}

fn start_together<S: Subject + ?Sized>(subject: &S, count: u32) -> Vec<Result<Started, String>> {
    // All are made ready before the first begins: one that can't be must not keep the others waiting.
    let poised: Vec<_> = (0..count).map(|_| subject.launch(next_number(), &Nonce::new())?.poise()).collect();
    let ready = poised.iter().filter(|poised| poised.is_ok()).count();
    let gate = gate::Gate::of(ready as u32);
    std::thread::scope(|scope| {
        let threads: Vec<_> =
            poised.into_iter().map(|poised| poised.map(|poised| scope.spawn(|| poised.go(Some(&gate))))).collect();
        let join = |thread: Result<std::thread::ScopedJoinHandle<'_, _>, String>| {
            thread?.join().unwrap_or_else(|_| Err("the harness' thread panicked".to_owned()))
        };
        threads.into_iter().map(join).collect()
    })
}

/// What a start is given and must give back: no failed start can then count as a fast one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nonce(String);

impl Nonce {
    /// One that no other start has: clock, process and count, mixed.
    pub(crate) fn new() -> Self {
        let seed = clock::now() ^ u64::from(std::process::id()).rotate_left(40) ^ next_number().rotate_left(56);
        Self(format!("{:016x}", Random::new(seed).next_u64()))
    }

    /// The line that the payload proves itself by.
    pub(crate) fn token(&self) -> Vec<u8> {
        format!("ISOLAB-READY {self}\n").into_bytes()
    }
}

impl fmt::Display for Nonce {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

/// What the harness' own phases say of themselves.
pub(crate) fn own_spans() -> BTreeMap<String, SpanText> {
    let text = |(name, call, why): (&str, &str, &str)| {
        (name.to_owned(), SpanText { call: call.to_owned(), why: why.to_owned() })
    };
    [timeline::EXEC, timeline::SPAWN].into_iter().map(text).collect()
}
