//! A device's way to the guest's attention: one interrupt line, and the bits that say what it means.

use std::error::Error;
use std::io;
use std::sync::atomic::{AtomicU32, Ordering};

use tracing::warn;
use virtio_bindings::bindings::virtio_config::{VIRTIO_CONFIG_S_DRIVER_OK, VIRTIO_CONFIG_S_NEEDS_RESET};
use virtio_bindings::bindings::virtio_mmio::{VIRTIO_MMIO_INT_CONFIG, VIRTIO_MMIO_INT_VRING};
use vmm_sys_util::eventfd::EventFd;

/// A guest that does wrong again and again shall not fill the log.
const COMPLAINTS: u32 = 16;

/// Shared by a device's registers, which the guest's processors reach, and by its worker.
#[derive(Debug)]
pub(crate) struct Line {
    /// Why the line was raised, until the driver says that it knows.
    pending: AtomicU32,
    /// The device status field (virtio 1.2, section 2.1).
    status: AtomicU32,
    irq: EventFd,
    complaints: AtomicU32,
}

impl Line {
    pub(crate) fn new(irq: EventFd) -> Self {
        Self { pending: AtomicU32::new(0), status: AtomicU32::new(0), irq, complaints: AtomicU32::new(0) }
    }

    pub(crate) fn status(&self) -> u32 {
        self.status.load(Ordering::SeqCst)
    }

    pub(crate) fn set_status(&self, status: u32) {
        self.status.store(status, Ordering::SeqCst);
    }

    pub(crate) fn add_status(&self, bits: u32) {
        self.status.fetch_or(bits, Ordering::SeqCst);
    }

    pub(crate) fn pending(&self) -> u32 {
        self.pending.load(Ordering::SeqCst)
    }

    pub(crate) fn set_pending(&self, pending: u32) {
        self.pending.store(pending, Ordering::SeqCst);
    }

    /// The driver has seen these causes.
    pub(crate) fn acknowledge(&self, causes: u32) {
        self.pending.fetch_and(!causes, Ordering::SeqCst);
    }

    /// Buffers have been used.
    pub(crate) fn used(&self) -> io::Result<()> {
        self.raise(VIRTIO_MMIO_INT_VRING)
    }

    /// Something in the configuration is not what it was. A driver that isn't there yet will read it anyway.
    pub(crate) fn config_changed(&self) -> io::Result<()> {
        if self.status() & VIRTIO_CONFIG_S_DRIVER_OK == 0 {
            return Ok(());
        }
        self.raise(VIRTIO_MMIO_INT_CONFIG)
    }

    /// The device can't go on (section 2.1.2): the status says so, and a change of configuration lets the driver look.
    pub(crate) fn needs_reset(&self) -> io::Result<()> {
        self.add_status(VIRTIO_CONFIG_S_NEEDS_RESET);
        self.config_changed()
    }

    /// Says why the device has stopped, or what its driver does wrong.
    pub(crate) fn complain(&self, name: &'static str, fault: &dyn Error) {
        let count = self.complaints.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        if count > COMPLAINTS {
            self.complaints.store(COMPLAINTS, Ordering::Relaxed);
            return;
        }
        let last = if count == COMPLAINTS { " (more of this device is not told)" } else { "" };
        let source = fault.source().map(|source| format!(": {source}")).unwrap_or_default();
        warn!("virtio {name}: {fault}{source}{last}");
    }

    /// Raises the line once more for causes that nobody has acknowledged: a restored machine may have lost it.
    pub(crate) fn remind(&self) -> io::Result<()> {
        if self.pending() == 0 { Ok(()) } else { self.irq.write(1) }
    }

    fn raise(&self, cause: u32) -> io::Result<()> {
        // First the cause, then the line: a driver that comes at once must find why.
        self.pending.fetch_or(cause, Ordering::SeqCst);
        self.irq.write(1)
    }
}
