// SPDX-License-Identifier: GPL-2.0

//! Broken pages, which stay out of use for as long as the machine runs.
//!
//! A node has a bit for each of its pages, in C: core mm sets it in any context. When the node has
//! gone, the addresses are here, and when memory at one of them is registered again, by whomever,
//! the page is taken out before it can be had.

use crate::{
    config::{
        Config,
        Refusal, //
    },
    nid::Nid,
    node::ThisMachine,
    parts,
    registry, //
};
use core::ptr::NonNull;
use kernel::{
    bindings,
    prelude::*,
    sync::global_lock, //
};

/// How many page frames are remembered, at most: 512 KiB of them.
///
/// A device with more than that is broken, and its driver has been told of each.
const MAX_KEPT: usize = 1 << 16;

/// Page frames, in ascending order.
struct Kept {
    pfns: KVec<usize>,
    is_full: bool,
}

impl Kept {
    const fn new() -> Self {
        Self {
            pfns: KVec::new(),
            is_full: false,
        }
    }

    /// Remembers a page. Returns whether it is remembered now.
    fn add(&mut self, pfn: usize) -> Result<bool> {
        let Err(at) = self.pfns.binary_search(&pfn) else {
            return Ok(true);
        };
        if self.pfns.len() >= MAX_KEPT {
            return Ok(false);
        }
        self.pfns.push(pfn, GFP_KERNEL)?;
        if let Some(tail) = self.pfns.get_mut(at..) {
            tail.rotate_right(1);
        }
        Ok(true)
    }

    /// Forgets those of a range that are not broken any more.
    fn retain(&mut self, first: usize, nr: usize, is_bad: impl Fn(usize) -> bool) {
        self.pfns
            .retain(|pfn| *pfn < first || *pfn - first >= nr || is_bad(*pfn));
        self.is_full = false;
    }

    /// Those of a range.
    fn of(&self, first: usize, nr: usize) -> &[usize] {
        let from = self.pfns.partition_point(|pfn| *pfn < first);
        let to = self.pfns.partition_point(|pfn| *pfn < first + nr);
        self.pfns.get(from..to).unwrap_or_default()
    }
}

global_lock! {
    // SAFETY: `init` is called before there is a node.
    unsafe(uninit) static KEPT: Mutex<Kept> = Kept::new();
}

/// Makes this usable.
///
/// # Safety
///
/// Must be called once, before anything else here is used.
pub(crate) unsafe fn init() {
    // SAFETY: This is called once.
    unsafe { KEPT.init() };
}

fn pages_of(config: &Config) -> (usize, usize) {
    (
        (config.start() >> bindings::PAGE_SHIFT) as usize,
        (config.size() >> bindings::PAGE_SHIFT) as usize,
    )
}

/// The broken pages of one node.
///
/// # Invariants
///
/// The pointer is from `cdm_bad_pages_alloc()`.
pub(crate) struct BadPages {
    raw: NonNull<bindings::cdm_bad_pages>,
    first: usize,
}

// SAFETY: It is not tied to a thread.
unsafe impl Send for BadPages {}

impl BadPages {
    fn add(&self, pfn: usize) {
        // SAFETY: By the type invariant.
        unsafe { bindings::cdm_bad_pages_add(self.raw.as_ptr(), pfn) };
    }

    /// The first one that is not before `pfn`.
    fn next(&self, pfn: usize) -> Option<usize> {
        // SAFETY: By the type invariant.
        let next = unsafe { bindings::cdm_bad_pages_next(self.raw.as_ptr(), pfn) };
        (next != usize::MAX).then_some(next)
    }

    fn has(&self, pfn: usize) -> bool {
        self.next(pfn) == Some(pfn)
    }

    /// For who erases the memory around them.
    pub(crate) fn as_ptr(&self) -> *const bindings::cdm_bad_pages {
        self.raw.as_ptr()
    }
}

impl parts::BadPages for BadPages {
    fn prepare(nid: Nid, config: &Config, addrs: &[u64]) -> Result<Self, Refusal> {
        let (first, nr) = pages_of(config);
        // SAFETY: A `Nid` is in range. The registry gave it to this node alone, which has no page.
        let raw =
            unsafe { bindings::cdm_bad_pages_alloc(nid.as_raw(), config.start(), config.size()) };
        // INVARIANT: As promised.
        let this = NonNull::new(raw)
            .map(|raw| Self { raw, first })
            .ok_or(Refusal::Failed("an allocation", ENOMEM))?;

        let mut kept = KEPT.lock();
        if config.knows_bad_pages() {
            kept.retain(first, nr, |_| false);
        }
        for addr in addrs {
            let pfn = (addr >> bindings::PAGE_SHIFT) as usize;
            this.add(pfn);
            remember(&mut kept, nid, pfn)
                .map_err(|error| Refusal::Failed("an allocation", error))?;
        }
        for pfn in kept.of(first, nr) {
            this.add(*pfn);
        }
        drop(kept);
        Ok(this)
    }

    fn ignore(&self) {
        // SAFETY: By the type invariant.
        unsafe { bindings::cdm_bad_pages_ignore(self.raw.as_ptr()) };
    }

    fn count(&self) -> usize {
        // SAFETY: By the type invariant.
        unsafe { bindings::cdm_bad_pages_count(self.raw.as_ptr()) }
    }

    fn for_each(&self, mut show: impl FnMut(u64)) {
        let mut from = self.first;
        while let Some(pfn) = self.next(from) {
            show((pfn as u64) << bindings::PAGE_SHIFT);
            from = pfn + 1;
        }
    }
}

impl Drop for BadPages {
    fn drop(&mut self) {
        // SAFETY: By the type invariant; the memory has gone.
        unsafe { bindings::cdm_bad_pages_free(self.raw.as_ptr()) };
    }
}

/// Takes pages that its driver names out of a node that is in use.
pub(crate) fn retire(addrs: &[u64]) {
    for addr in addrs {
        // SAFETY: Plain values; this may sleep. What becomes of the page is in the log.
        unsafe { bindings::cdm_poison_page((addr >> bindings::PAGE_SHIFT) as usize) };
    }
}

/// Remembers a page, or says that it cannot.
fn remember(kept: &mut Kept, nid: Nid, pfn: usize) -> Result {
    if !kept.add(pfn)? && !core::mem::replace(&mut kept.is_full, true) {
        pr_err!(
            "node{}: more than {} broken pages: the others are forgotten when it goes\n",
            nid,
            MAX_KEPT
        );
    }
    Ok(())
}

/// Notes what has changed: remembers it, and tells the driver.
///
/// # Safety
///
/// `raw` must be from `cdm_bad_pages_alloc()`, of the node `nid` with `nr` pages from `first` on,
/// and not be freed meanwhile.
pub(crate) unsafe fn changed(
    nid: Nid,
    raw: NonNull<bindings::cdm_bad_pages>,
    first: usize,
    nr: usize,
) {
    // INVARIANT: By the safety requirements. It is not this function's to free.
    let pages = core::mem::ManuallyDrop::new(BadPages { raw, first });

    KEPT.lock().retain(first, nr, |pfn| pages.has(pfn));
    loop {
        // SAFETY: By the safety requirements.
        let pfn = unsafe { bindings::cdm_bad_pages_next_new(raw.as_ptr()) };
        if pfn == usize::MAX {
            break;
        }
        // Who reads where no device is finds every page broken.
        if registry::is_gone::<ThisMachine>(nid) {
            continue;
        }
        if remember(&mut KEPT.lock(), nid, pfn).is_err() {
            pr_err!(
                "node{}: page {:#x} is broken, which cannot be remembered\n",
                nid,
                pfn
            );
        }
        registry::poisoned::<ThisMachine>(nid, (pfn as u64) << bindings::PAGE_SHIFT);
    }
}

#[cfg(CONFIG_CDM_KUNIT_TEST)]
#[kunit_tests(cdm_poison)]
mod tests {
    use super::*;

    fn kept(pfns: &[usize]) -> Result<Kept> {
        let mut kept = Kept::new();
        for pfn in pfns {
            assert_eq!(kept.add(*pfn), Ok(true));
        }
        Ok(kept)
    }

    #[test]
    fn each_is_kept_once_and_in_order() -> Result {
        let kept = kept(&[7, 3, 9, 3, 1, 9])?;
        assert_eq!(kept.of(0, 100), &[1, 3, 7, 9]);
        Ok(())
    }

    #[test]
    fn ranges() -> Result {
        let kept = kept(&[10, 20, 30, 40])?;
        assert_eq!(kept.of(10, 10), &[10]);
        assert!(kept.of(11, 9).is_empty());
        assert_eq!(kept.of(20, 21), &[20, 30, 40]);
        assert!(kept.of(41, 10).is_empty());
        Ok(())
    }

    #[test]
    fn what_was_repaired_is_forgotten() -> Result {
        let mut kept = kept(&[10, 20, 30, 40])?;
        kept.retain(15, 20, |pfn| pfn == 30);
        assert_eq!(kept.of(0, 100), &[10, 30, 40]);
        kept.retain(0, 100, |_| false);
        assert!(kept.of(0, 100).is_empty());
        Ok(())
    }

    #[test]
    fn there_is_an_end() -> Result {
        let mut kept = Kept::new();
        for pfn in 0..MAX_KEPT {
            assert_eq!(kept.add(pfn), Ok(true));
        }
        assert_eq!(kept.add(MAX_KEPT), Ok(false));
        assert_eq!(kept.add(0), Ok(true));
        Ok(())
    }
}
