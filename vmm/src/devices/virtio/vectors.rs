//! Guest memory as the kernel takes it: read and write calls that move bytes between a file and a guest's buffers.
//!
//! Without them each byte would be moved twice, and a request of 64 pages would be 64 system calls.

use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd, AsRawFd};

use vm_memory::VolatileSlice;

/// The most buffers that one call can have (`UIO_MAXIOV`, readv(2)).
pub(super) const MOST: usize = 1024;

/// Buffers of a guest, for one call.
pub(super) struct Vectors<'m> {
    raw: Vec<libc::iovec>,
    memory: PhantomData<VolatileSlice<'m>>,
}

impl<'m> Vectors<'m> {
    pub(super) fn new(slices: impl Iterator<Item = VolatileSlice<'m>>) -> Self {
        let raw = slices
            .map(|slice| libc::iovec { iov_base: slice.ptr_guard_mut().as_ptr().cast(), iov_len: slice.len() })
            .collect();
        Self { raw, memory: PhantomData }
    }

    /// Fills all buffers from a file at `offset`.
    pub(super) fn read_exact_at(mut self, file: &impl AsFd, offset: u64) -> io::Result<()> {
        self.all(offset, |raw, offset| {
            // SAFETY: the pointers are to mapped guest memory that outlives `self`; nothing else is written to.
            unsafe { libc::preadv(file.as_fd().as_raw_fd(), raw.as_ptr(), raw.len() as libc::c_int, offset) }
        })
    }

    /// Writes all buffers to a file at `offset`.
    pub(super) fn write_all_at(mut self, file: &impl AsFd, offset: u64) -> io::Result<()> {
        self.all(offset, |raw, offset| {
            // SAFETY: the pointers are to mapped guest memory that outlives `self`; it is only read.
            unsafe { libc::pwritev(file.as_fd().as_raw_fd(), raw.as_ptr(), raw.len() as libc::c_int, offset) }
        })
    }

    /// Writes all buffers at once, as one message.
    pub(super) fn write(&self, file: &impl AsFd) -> io::Result<usize> {
        // SAFETY: as above.
        let written =
            unsafe { libc::writev(file.as_fd().as_raw_fd(), self.raw.as_ptr(), self.raw.len() as libc::c_int) };
        usize::try_from(written).map_err(|_| io::Error::last_os_error())
    }

    /// Fills the buffers with what there is to read, in one call.
    pub(super) fn read(&self, file: &impl AsFd) -> io::Result<usize> {
        // SAFETY: the pointers are to mapped guest memory that outlives `self`; nothing else is written to.
        let read = unsafe { libc::readv(file.as_fd().as_raw_fd(), self.raw.as_ptr(), self.raw.len() as libc::c_int) };
        usize::try_from(read).map_err(|_| io::Error::last_os_error())
    }

    fn all(&mut self, mut offset: u64, call: impl Fn(&[libc::iovec], libc::off_t) -> libc::ssize_t) -> io::Result<()> {
        let mut first = 0;
        loop {
            let rest = self.raw.get(first..).unwrap_or_default();
            if rest.is_empty() {
                return Ok(());
            }
            let at = libc::off_t::try_from(offset).map_err(io::Error::other)?;
            let moved = match call(rest.get(..MOST).unwrap_or(rest), at) {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                moved if moved < 0 => match io::Error::last_os_error() {
                    error if error.kind() == io::ErrorKind::Interrupted => continue,
                    error => return Err(error),
                },
                moved => moved as usize,
            };
            offset += moved as u64;
            first = self.advance(first, moved);
        }
    }

    /// The first buffer that is not done when so many more bytes are; what is done of it is cut off.
    fn advance(&mut self, mut first: usize, mut moved: usize) -> usize {
        while let Some(buffer) = self.raw.get_mut(first) {
            if moved < buffer.iov_len {
                buffer.iov_base = buffer.iov_base.cast::<u8>().wrapping_add(moved).cast();
                buffer.iov_len -= moved;
                break;
            }
            moved -= buffer.iov_len;
            first += 1;
        }
        first
    }
}
