//! What holds for every device: its registers, and what becomes of a guest's mistakes. The entropy device stands for all.

use isolab_vmm::devices::virtio::mmio::{COMMON_FEATURES, Transport};
use isolab_vmm::devices::virtio::rng::Rng;
use isolab_vmm::devices::virtio::state::State;
use libtest_mimic::Trial;

use crate::driver::{DRIVER_OK, Driver, EVENT_INDEX, FEATURES_OK, NEEDS_RESET, register};
use crate::needs::{Done, trial};
use crate::sure;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        sure("the_registers_say_who_is_there", the_registers),
        sure("a_driver_that_takes_what_is_not_offered_gets_no_features_ok", features_that_are_not_offered),
        sure("steps_out_of_order_start_nothing", steps_out_of_order),
        sure("random_bytes_come_and_are_not_the_same_twice", random_bytes),
        sure("a_driver_without_event_index_is_served_too", without_event_index),
        sure("each_way_to_break_a_ring_stops_the_device_and_a_reset_helps", broken_rings),
        sure("queues_outside_of_memory_stop_the_device", queues_outside),
        sure("a_paused_device_does_nothing_and_then_all_of_it", pause_and_resume),
        sure("a_saved_device_goes_on_where_it_was", saved_and_restored),
        trial("a_device_is_not_made_from_what_was_another", &[], foreign_state),
        sure("a_ring_goes_round_and_round", round_and_round),
    ]
}

fn rng() -> Driver {
    Driver::start(Box::new(Rng::new()))
}

fn the_registers() {
    let mut driver = Driver::new(Box::new(Rng::new()));
    assert_eq!(driver.get(register::MAGIC).to_le_bytes(), *b"virt");
    assert_eq!((driver.get(register::VERSION), driver.get(register::DEVICE)), (2, 4));
    assert_eq!(driver.offered(), COMMON_FEATURES);
    assert_eq!((driver.get(register::QUEUE_MAX), driver.get(register::QUEUE_READY)), (64, 0));
    driver.set(register::QUEUE_SELECT, 1);
    assert_eq!(driver.get(register::QUEUE_MAX), 0, "it has one queue");
    assert_eq!((driver.get(0xb0), driver.get(0xb4)), (u32::MAX, u32::MAX), "no shared memory");
    // Registers are of 32 bits; a read of a part of one is no read.
    let mut byte = [7];
    driver.transport.read(register::MAGIC, &mut byte);
    assert_eq!(byte, [0]);
    driver.transport.write(register::STATUS, &[1, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(driver.get(register::STATUS), 0);
}

fn features_that_are_not_offered() {
    let mut driver = Driver::new(Box::new(Rng::new()));
    for features in [0, COMMON_FEATURES | 1, 1 << 29, u64::MAX] {
        driver.set(register::STATUS, 0);
        driver.set(register::STATUS, 3);
        driver.accept(features);
        driver.set(register::STATUS, 3 | FEATURES_OK);
        assert_eq!(driver.get(register::STATUS), 3, "{features:#x}");
    }
}

fn steps_out_of_order() {
    let mut driver = Driver::new(Box::new(Rng::new()));
    driver.set(register::STATUS, DRIVER_OK);
    assert_eq!(driver.get(register::STATUS), 0);
    driver.set(register::STATUS, 3 | DRIVER_OK);
    assert_eq!(driver.get(register::STATUS), 3);
    driver.bring_up(u64::MAX);
    assert_eq!(driver.ask(0, &[], &[8]).written, 8);
    // What is set up stays as it is until a reset.
    driver.set(register::QUEUE_SELECT, 0);
    driver.set(register::QUEUE_READY, 0);
    driver.set(register::USED, 0xffff_f000);
    driver.accept(0);
    assert_eq!((driver.get(register::QUEUE_READY), driver.ask(0, &[], &[8]).written), (1, 8));
}

fn random_bytes() {
    let mut driver = rng();
    let one = driver.ask(0, &[], &[100, 1, 500]);
    let other = driver.ask(0, &[], &[601]);
    assert_eq!((one.written, other.written), (601, 601));
    assert_ne!(one.data, other.data);
    let large = driver.ask(0, &[], &[1 << 20]);
    assert_eq!(large.written, 64 << 10, "a large request gets a part");
    assert!(large.data[large.written..].iter().all(|byte| *byte == 0xee));
}

fn without_event_index() {
    let mut driver = Driver::new(Box::new(Rng::new()));
    driver.bring_up(!EVENT_INDEX);
    for _ in 0..100 {
        assert_eq!(driver.ask(0, &[], &[16]).written, 16);
    }
}

/// A mistake: what the driver does in place of a request.
type Mistake = (&'static str, fn(&mut Driver));

const MISTAKES: [Mistake; 12] = [
    ("a chain that leads back to itself", |driver| {
        driver.describe(0, 0, (0x40_0000, 8, 1 | 2, 1));
        driver.describe(0, 1, (0x40_0000, 8, 1 | 2, 0));
        driver.make_available(0, 0);
    }),
    ("a descriptor that leads to itself", |driver| {
        driver.describe(0, 0, (0x40_0000, 8, 1 | 2, 0));
        driver.make_available(0, 0);
    }),
    ("a next that is not in the table", |driver| {
        driver.describe(0, 0, (0x40_0000, 8, 1 | 2, 64));
        driver.make_available(0, 0);
    }),
    ("a head that is not in the table", |driver| driver.make_available(0, 64)),
    ("a buffer past the end of memory", |driver| {
        driver.describe(0, 0, (0x1ff_fff0, 17, 2, 0));
        driver.make_available(0, 0);
    }),
    ("a buffer at the end of the address space", |driver| {
        driver.describe(0, 0, (u64::MAX - 7, u32::MAX, 2, 0));
        driver.make_available(0, 0);
    }),
    ("an empty buffer", |driver| {
        driver.describe(0, 0, (0x40_0000, 0, 2, 0));
        driver.make_available(0, 0);
    }),
    ("a buffer to read after one to write", |driver| {
        driver.describe(0, 0, (0x40_0000, 8, 1 | 2, 1));
        driver.describe(0, 1, (0x40_0000, 8, 0, 0));
        driver.make_available(0, 0);
    }),
    ("a table in a table", |driver| {
        driver.describe(0, 0, (0x1_0000, 32, 4, 0));
        driver.make_available(0, 0);
    }),
    ("a table of half a descriptor", |driver| {
        driver.describe(0, 0, (0x40_0000, 24, 4, 0));
        driver.make_available(0, 0);
    }),
    ("an index that has jumped", |driver| driver.claim_available(0, 1000)),
    ("nothing to write to", |driver| {
        driver.describe(0, 0, (0x40_0000, 8, 0, 0));
        driver.make_available(0, 0);
    }),
];

fn broken_rings() {
    let mut driver = rng();
    for (what, mistake) in MISTAKES {
        assert_eq!(driver.ask(0, &[], &[8]).written, 8, "before {what}");
        mistake(&mut driver);
        driver.ring(0);
        driver.wait_for_break_down();
        driver.ring(0); // nobody listens, and nobody minds
        let status = driver.get(register::STATUS);
        assert_eq!(status, 3 | FEATURES_OK | DRIVER_OK | NEEDS_RESET, "{what}");
        driver.set(register::STATUS, 3); // does not bring it back
        assert_eq!(driver.get(register::STATUS), status, "{what}");
        driver.bring_up(u64::MAX);
    }
    assert_eq!(driver.ask(0, &[], &[8]).written, 8);
}

fn queues_outside() {
    let mut driver = rng();
    let bad: [(u64, u32); 7] = [
        (register::DESCRIPTORS, 0x1ff_fff0),
        (register::AVAILABLE, 0x1ff_fff0),
        (register::USED, 0x1ff_fff0),
        (register::DESCRIPTORS, 0x1_0008), // not aligned
        (register::USED + 4, u32::MAX),
        (register::QUEUE_SIZE, 65),
        (register::QUEUE_SIZE, u32::MAX),
    ];
    for (register, value) in bad {
        driver.set(register::STATUS, 0);
        driver.set(register::STATUS, 3);
        driver.accept(COMMON_FEATURES);
        driver.set(register::STATUS, 3 | FEATURES_OK);
        driver.set_up_queues();
        driver.set(register::QUEUE_SELECT, 0);
        driver.set(register::QUEUE_READY, 0);
        driver.set(register, value);
        driver.set(register::QUEUE_READY, 1);
        driver.set(register::STATUS, 3 | FEATURES_OK | DRIVER_OK);
        assert_ne!(driver.get(register::STATUS) & NEEDS_RESET, 0, "{register:#x} = {value:#x}");
        driver.ring(0);
    }
    driver.bring_up(u64::MAX);
    assert_eq!(driver.ask(0, &[], &[8]).written, 8);
}

fn pause_and_resume() {
    let mut driver = rng();
    driver.transport.pause();
    for _ in 0..10 {
        driver.add(0, &[], &[8]);
        driver.ring(0);
    }
    assert_eq!(driver.wait_for(0, std::time::Duration::from_millis(100)), None);
    driver.transport.resume();
    for _ in 0..10 {
        assert_eq!(driver.wait(0).written, 8);
    }
}

fn saved_and_restored() {
    let mut driver = rng();
    for round in 0..5 {
        driver.ask(0, &[], &[8]);
        driver.add(0, &[], &[round + 1]); // never rung for: a restored device looks by itself
        driver.save_and_restore(|| Box::new(Rng::new()));
        assert_eq!(driver.wait(0).written, round + 1);
    }
}

fn foreign_state() -> Done {
    let mut driver = rng();
    let saved = driver.transport.save();
    let wrong = [
        State { kind: 1, ..saved.clone() },
        State { features: u64::MAX, ..saved.clone() },
        State { queues: Vec::new(), ..saved.clone() },
        State { config: vec![0], ..saved.clone() },
        State {
            queues: vec![isolab_vmm::devices::virtio::state::Queue { used: 1, ..saved.queues[0] }],
            ..saved.clone()
        },
        State { queues: vec![isolab_vmm::devices::virtio::state::Queue { size: 3, ..saved.queues[0] }], ..saved },
    ];
    for state in wrong {
        let irq = vmm_sys_util::eventfd::EventFd::new(0)?;
        let restored = Transport::restore(Box::new(Rng::new()), driver.memory.clone(), irq, &state);
        assert!(restored.is_err(), "{state:?}");
    }
    Ok(())
}

fn round_and_round() {
    let mut driver = rng();
    // More than an index of 16 bits can count, many at a time.
    for _ in 0..1100 {
        for _ in 0..60 {
            driver.add(0, &[], &[4]);
        }
        driver.ring(0);
        for _ in 0..60 {
            assert_eq!(driver.wait(0).written, 4);
        }
    }
}
