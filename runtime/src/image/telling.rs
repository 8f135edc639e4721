//! A reader whose progress somebody is told of.

use std::io::{self, Read};

/// Reads what another reader has, and tells after each read how many bytes it has been so far.
pub(crate) struct Telling<R, F> {
    from: R,
    at: u64,
    tell: F,
}

impl<R: Read, F: Fn(u64)> Telling<R, F> {
    pub(crate) const fn new(from: R, tell: F) -> Self {
        Self { from, at: 0, tell }
    }
}

impl<R: Read, F: Fn(u64)> Read for Telling<R, F> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.from.read(buffer)?;
        self.at += read as u64;
        (self.tell)(self.at);
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::Telling;
    use std::cell::Cell;
    use std::io;

    #[test]
    fn the_last_that_is_told_is_all() {
        let told = Cell::new(0);
        let content = [7; 1000];
        let copied = io::copy(&mut Telling::new(&content[..], |at| told.set(at)), &mut io::sink()).unwrap();
        assert_eq!((copied, told.get()), (1000, 1000));
    }
}
