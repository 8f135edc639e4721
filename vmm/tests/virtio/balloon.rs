//! Balloons: what is given back is gone from the host's memory.

use std::time::Duration;

use isolab_vmm::devices::virtio::balloon::Balloon;
use isolab_vmm::units::Mib;
use libtest_mimic::Trial;
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend};

use crate::driver::{Driver, register};
use crate::needs::{Done, trial};
use crate::sure;

const INFLATE: usize = 0;
const DEFLATE: usize = 1;
const REPORT: usize = 2;
/// Where no ring and no buffer of the driver is.
const PLACE: u64 = 0x10_0000;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("a_wish_reaches_the_guest_and_its_answer_the_host", &[], wish),
        sure("pages_in_the_balloon_are_given_to_the_host", inflate),
        sure("pages_that_are_reported_free_are_given_to_the_host", report),
        sure("page_numbers_that_are_none_do_no_harm", garbage),
    ]
}

fn fill(driver: &Driver, pages: u64) {
    driver.memory.guest().write_slice(&vec![7; (pages * 4096) as usize], GuestAddress(PLACE)).unwrap();
}

/// Which of the pages from `PLACE` on still have what was written to them.
fn kept(driver: &Driver, pages: u64) -> Vec<u64> {
    let byte = |page: &u64| driver.memory.guest().read_obj::<u8>(GuestAddress(PLACE + page * 4096)).unwrap();
    (0..pages).filter(|page| byte(page) == 7).collect()
}

/// How much of the pages from `PLACE` on is in the host's memory.
fn resident(driver: &Driver, pages: usize) -> usize {
    let at = driver.memory.guest().get_host_address(GuestAddress(PLACE)).unwrap();
    let mut map = vec![0_u8; pages];
    // SAFETY: the range is guest memory, which is mapped, and the list has a byte for each page.
    assert_eq!(unsafe { libc::mincore(at.cast(), pages * 4096, map.as_mut_ptr()) }, 0);
    map.iter().filter(|page| **page & 1 != 0).count()
}

fn numbers(pages: &[u64]) -> Vec<u8> {
    pages.iter().flat_map(|page| (((PLACE >> 12) + page) as u32).to_le_bytes()).collect()
}

fn wish() -> Done {
    let (balloon, hand) = Balloon::new();
    let mut driver = Driver::start(Box::new(balloon));
    let generation = driver.get(0xfc);
    hand.set(Mib(8))?;
    assert_eq!(driver.wait_for_interrupt(Duration::from_secs(5)), 2, "a change of configuration");
    assert_eq!((u32::from_le_bytes(driver.config(0)), hand.wanted()), (2048, Mib(8)));
    assert_ne!(driver.get(0xfc), generation);
    driver.set(register::CONFIG, 5); // not the guest's to say
    driver.set(register::CONFIG + 4, 1024);
    assert_eq!((hand.wanted(), hand.actual()), (Mib(8), Mib(4)));
    driver.save_and_restore(|| Box::new(Balloon::new().0));
    assert_eq!(u32::from_le_bytes(driver.config(4)), 1024);
    Ok(())
}

fn inflate() {
    let mut driver = Driver::start(Box::new(Balloon::new().0));
    fill(&driver, 64);
    let list: Vec<u64> = (10..50).rev().filter(|page| *page != 30).collect();
    let (front, back) = (numbers(&list[..20]), numbers(&list[20..]));
    assert_eq!(driver.ask(INFLATE, &[&front, &back], &[]).written, 0);
    let expected: Vec<u64> = (0..64).filter(|page| !list.contains(page)).collect();
    assert_eq!(kept(&driver, 64), expected);
    fill(&driver, 64);
    driver.ask(DEFLATE, &[&numbers(&list)], &[]);
    assert_eq!(kept(&driver, 64).len(), 64, "what comes back may be used");
    driver.ask(INFLATE, &[&numbers(&(0..64).collect::<Vec<_>>())], &[]);
    assert_eq!(resident(&driver, 64), 0);
}

fn report() {
    let mut driver = Driver::start(Box::new(Balloon::new().0));
    fill(&driver, 64);
    // By hand: the request's buffers are the free pages, of which one begins and ends within a page.
    driver.describe(REPORT, 0, (PLACE + 4096, 8 * 4096, 1 | 2, 1));
    driver.describe(REPORT, 1, (PLACE + 20 * 4096 + 1, 3 * 4096, 2, 0));
    driver.make_available(REPORT, 0);
    driver.ring(REPORT);
    for _ in 0..200 {
        if resident(&driver, 64) == 64 - 10 {
            break;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let gone: Vec<u64> = (1..9).chain(21..23).collect();
    assert_eq!(kept(&driver, 64), (0..64).filter(|page| !gone.contains(page)).collect::<Vec<_>>());
}

fn garbage() {
    let mut driver = Driver::start(Box::new(Balloon::new().0));
    fill(&driver, 4);
    let wrong: Vec<u8> =
        [u32::MAX, u32::MAX - 1, 1 << 31, 8192, 8191 + 4096].iter().flat_map(|page| page.to_le_bytes()).collect();
    driver.ask(INFLATE, &[&wrong], &[]);
    driver.ask(INFLATE, &[&wrong[..7]], &[]);
    assert_eq!(kept(&driver, 4), [0, 1, 2, 3]);
}
