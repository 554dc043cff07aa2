// SPDX-License-Identifier: GPL-2.0

//! What may be registered, and how a refusal reads in the log.

use crate::{
    nid::Nid,
    trace, //
};
use kernel::{
    bindings,
    cdm::{
        Caps,
        Rule, //
    },
    fmt,
    prelude::*, //
};

/// What memory hotplug on this machine can take.
#[derive(Clone, Copy)]
pub(crate) struct Limits {
    /// Size and alignment of a memory block, in bytes.
    pub(crate) block: u64,
    /// First address that memory can have.
    pub(crate) first: u64,
    /// Last address that memory can have.
    pub(crate) last: u64,
}

/// What the administrator decides about a node.
#[derive(Clone, Copy)]
pub(crate) struct Rules {
    /// A cpuset must list it for a task to name it.
    pub(crate) listed: bool,
    /// The memory controller does not count its pages.
    pub(crate) uncounted: bool,
}

impl Rules {
    /// Nothing.
    pub(crate) const NONE: Self = Self {
        listed: false,
        uncounted: false,
    };
}

/// What a driver says about its memory, in a form that makes sense.
///
/// # Invariants
///
/// - `size` is not 0, `start + size` does not wrap.
/// - `caps` breaks no rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Config {
    start: u64,
    size: u64,
    nid: Option<Nid>,
    wish: Option<Nid>,
    caps: Caps,
    flags: u32,
    knows_bad_pages: bool,
}

impl Config {
    /// Checks what a driver said.
    pub(crate) fn validate(
        raw: &bindings::cdm_node_config,
        limits: &Limits,
    ) -> Result<Self, Refusal> {
        if raw.size == 0 {
            return Err(Refusal::Empty);
        }
        if raw.start % limits.block != 0 || raw.size % limits.block != 0 {
            return Err(Refusal::Unaligned(limits.block));
        }
        match raw.start.checked_add(raw.size - 1) {
            Some(last) if raw.start >= limits.first && last <= limits.last => (),
            _ => return Err(Refusal::OutOfReach(limits.first, limits.last)),
        }

        let caps = Caps::from_bits(raw.allow).ok_or(Refusal::UnknownCaps(raw.allow))?;
        if let Some(rule) = caps.broken_rule() {
            return Err(Refusal::BrokenRule(rule));
        }

        let unknown = raw.flags & !bindings::CDM_NODE_FLAGS_ALL;
        if unknown != 0 {
            return Err(Refusal::UnknownFlags(unknown));
        }
        if raw.flags & bindings::CDM_NODE_COHERENT == 0 {
            return Err(Refusal::NotCoherent);
        }
        let by_dma = caps & Caps::NEED_PEER_TO_PEER;
        if raw.flags & bindings::CDM_NODE_P2PDMA == 0 && by_dma != Caps::empty() {
            return Err(Refusal::NotPeerToPeer(by_dma));
        }

        let nid = match raw.nid {
            bindings::NUMA_NO_NODE => None,
            nid => Some(Nid::new(nid).ok_or(Refusal::NoSuchNid(nid))?),
        };
        let (nid, wish) = if raw.flags & bindings::CDM_NODE_NID_WISH == 0 {
            (nid, None)
        } else {
            (None, nid)
        };

        // INVARIANT: All that the type promises was checked above.
        Ok(Self {
            start: raw.start,
            size: raw.size,
            nid,
            wish,
            caps,
            flags: raw.flags & !(bindings::CDM_NODE_ALL_BAD_PAGES | bindings::CDM_NODE_NID_WISH),
            knows_bad_pages: raw.flags & bindings::CDM_NODE_ALL_BAD_PAGES != 0,
        })
    }

    /// Checks the addresses of the pages that the driver says are broken.
    pub(crate) fn check_bad_pages(&self, addrs: &[u64]) -> Result<(), Refusal> {
        match addrs
            .iter()
            .find(|addr| **addr < self.start || **addr > self.last())
        {
            Some(addr) => Err(Refusal::BadPageOutside(*addr)),
            None => Ok(()),
        }
    }

    /// First byte.
    pub(crate) fn start(&self) -> u64 {
        self.start
    }

    /// Size in bytes.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// Last byte.
    pub(crate) fn last(&self) -> u64 {
        self.start + (self.size - 1)
    }

    /// The node id that the driver asked for.
    pub(crate) fn nid(&self) -> Option<Nid> {
        self.nid
    }

    /// The node id that the driver would like best.
    pub(crate) fn wish(&self) -> Option<Nid> {
        self.wish
    }

    /// What the driver allows.
    pub(crate) fn caps(&self) -> Caps {
        self.caps
    }

    /// What the driver asserts, in `CDM_NODE_*` bits.
    pub(crate) fn flags(&self) -> u32 {
        self.flags
    }

    /// What a tracepoint says about it.
    pub(crate) fn traced(&self) -> trace::Memory {
        trace::Memory {
            start: self.start,
            size: self.size,
            allow: self.caps.bits(),
        }
    }

    /// Does the driver erase the memory itself?
    pub(crate) fn driver_scrubs(&self) -> bool {
        self.flags & bindings::CDM_NODE_SCRUBS != 0
    }

    /// Does the driver name all pages that are broken, so that what is remembered does not count?
    pub(crate) fn knows_bad_pages(&self) -> bool {
        self.knows_bad_pages
    }

    /// Do the two ranges share a byte?
    pub(crate) fn overlaps(&self, other: &Self) -> bool {
        self.start <= other.last() && other.start <= self.last()
    }

    /// Would a node that was registered with `self` be what `other` asks for?
    pub(crate) fn is_same_memory(&self, other: &Self) -> bool {
        self.start == other.start && self.size == other.size
    }

    /// Does `other` say the same about that memory?
    pub(crate) fn promises_the_same(&self, other: &Self) -> bool {
        self.caps == other.caps && self.flags == other.flags
    }
}

/// Why a registration is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The initcall of the core has not run.
    TooEarly,
    /// Size 0.
    Empty,
    /// Not made of whole memory blocks, of this many bytes.
    Unaligned(u64),
    /// Not between these two addresses.
    OutOfReach(u64, u64),
    /// Bits that mean nothing.
    UnknownCaps(u32),
    /// Flags that mean nothing.
    UnknownFlags(u32),
    /// A capability without one that it needs.
    BrokenRule(Rule),
    /// The driver does not say that the memory is coherent.
    NotCoherent,
    /// Capabilities that let other devices reach the memory, which they cannot.
    NotPeerToPeer(Caps),
    /// The machine says that the CPUs do not cache the range.
    NotWriteBack,
    /// A page that is said to be broken is not in the range.
    BadPageOutside(u64),
    /// No possible node has this id.
    NoSuchNid(c_int),
    /// The node has memory.
    NidHasMemory(Nid),
    /// The node has CPUs, or could get some.
    NidHasCpus(Nid),
    /// The node is, or has just been, another driver's.
    NidTaken(Nid),
    /// No node id is free.
    NoNid,
    /// The range, or a part of it, is another node's.
    Overlap(Nid),
    /// The range is an orphan's, who was registered in another way.
    OrphanDiffers(Nid),
    /// The device had a node before, and something still refers to pages of it.
    StillHeld(Nid),
    /// Somebody uses a part of the range for something else.
    RangeBusy,
    /// The driver's module is on its way out.
    OwnerLeaving,
    /// Somebody else changes the machine's memory and does not come to an end.
    HotplugBusy,
    /// Something else refused.
    Failed(&'static str, Error),
}

impl Refusal {
    /// The one errno of this refusal.
    pub(crate) fn errno(&self) -> Error {
        match self {
            Self::Empty
            | Self::Unaligned(_)
            | Self::UnknownCaps(_)
            | Self::UnknownFlags(_)
            | Self::BrokenRule(_)
            | Self::NotCoherent
            | Self::NotPeerToPeer(_)
            | Self::NotWriteBack
            | Self::BadPageOutside(_)
            | Self::NoSuchNid(_)
            | Self::NidHasCpus(_) => EINVAL,
            Self::OutOfReach(..) => E2BIG,
            Self::NidHasMemory(_)
            | Self::NidTaken(_)
            | Self::Overlap(_)
            | Self::OrphanDiffers(_)
            | Self::StillHeld(_)
            | Self::RangeBusy => EBUSY,
            Self::NoNid => ENOSPC,
            Self::OwnerLeaving => ENODEV,
            Self::TooEarly | Self::HotplugBusy => EPROBE_DEFER,
            Self::Failed(_, error) => *error,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooEarly => f.write_str("the core is not ready"),
            Self::Empty => f.write_str("size is 0"),
            Self::Unaligned(block) => {
                write!(f, "start and size must be multiples of {block:#x} bytes")
            }
            Self::OutOfReach(first, last) => {
                write!(f, "memory must lie in [mem {first:#x}-{last:#x}]")
            }
            Self::UnknownCaps(bits) => write!(f, "unknown capability in {bits:#x}"),
            Self::UnknownFlags(bits) => write!(f, "unknown flags {bits:#x}"),
            Self::BrokenRule(rule) => f.write_fmt(fmt!("{}", *rule)),
            Self::NotCoherent => f.write_str("the driver does not assert coherence"),
            Self::NotPeerToPeer(caps) => f.write_fmt(fmt!(
                "{} without peer-to-peer access by other devices",
                *caps
            )),
            Self::NotWriteBack => f.write_str("the memory type is not write-back"),
            Self::BadPageOutside(addr) => write!(f, "broken page {addr:#x} is not in it"),
            Self::NoSuchNid(nid) => write!(f, "node {nid} is not possible"),
            Self::NidHasMemory(nid) => f.write_fmt(fmt!("node {} has memory", *nid)),
            Self::NidHasCpus(nid) => f.write_fmt(fmt!("node {} has CPUs", *nid)),
            Self::NidTaken(nid) => f.write_fmt(fmt!("node {} is taken", *nid)),
            Self::NoNid => {
                f.write_str("no node id is free (cdm_nodes=N on the command line keeps some)")
            }
            Self::Overlap(nid) => f.write_fmt(fmt!("the range overlaps node {}", *nid)),
            Self::OrphanDiffers(nid) => f.write_fmt(fmt!(
                "orphaned node {} has the range, with another mask",
                *nid
            )),
            Self::StillHeld(nid) => f.write_fmt(fmt!(
                "something still refers to lost pages of its node {}",
                *nid
            )),
            Self::RangeBusy => f.write_str("the range is in use"),
            Self::OwnerLeaving => f.write_str("the module is being removed"),
            Self::HotplugBusy => f.write_str("memory hotplug is busy"),
            Self::Failed(what, error) => write!(f, "{what} failed ({})", error.to_errno()),
        }
    }
}

#[cfg(CONFIG_CDM_KUNIT_TEST)]
#[kunit_tests(cdm_config)]
mod tests {
    use super::*;
    use bindings::{
        CDM_ALLOW_GUP,
        CDM_ALLOW_LONGTERM_PIN,
        CDM_ALLOW_MIGRATE,
        CDM_NODE_COHERENT,
        CDM_NODE_NID_WISH,
        CDM_NODE_P2PDMA, //
    };
    use kernel::cdm::Cap;

    const MIB: u64 = 1 << 20;
    const LIMITS: Limits = Limits {
        block: 128 * MIB,
        first: 0,
        last: (1 << 40) - 1,
    };

    fn good() -> bindings::cdm_node_config {
        bindings::cdm_node_config {
            start: 1 << 32,
            size: 512 * MIB,
            nid: bindings::NUMA_NO_NODE,
            allow: CDM_ALLOW_MIGRATE,
            flags: CDM_NODE_COHERENT,
            owner: core::ptr::null_mut(),
            dev: core::ptr::null_mut(),
            bad_pages: core::ptr::null(),
            nr_bad_pages: 0,
            ops: core::ptr::null(),
            data: core::ptr::null_mut(),
        }
    }

    fn check(change: impl FnOnce(&mut bindings::cdm_node_config)) -> Result<Config, Refusal> {
        let mut raw = good();
        change(&mut raw);
        Config::validate(&raw, &LIMITS)
    }

    fn errno(change: impl FnOnce(&mut bindings::cdm_node_config)) -> Option<Error> {
        check(change).err().map(|refusal| refusal.errno())
    }

    #[test]
    fn a_good_one_passes() {
        let config = check(|_| ());
        assert!(config.is_ok());
        assert_eq!(
            config.map(|config| config.last()),
            Ok((1 << 32) + 512 * MIB - 1)
        );
        assert_eq!(config.map(|config| config.nid()), Ok(None));
        assert!(check(|raw| raw.allow = 0).is_ok());
    }

    #[test]
    fn ranges() {
        assert_eq!(check(|raw| raw.size = 0), Err(Refusal::Empty));
        assert_eq!(errno(|raw| raw.size -= 1), Some(EINVAL));
        assert_eq!(errno(|raw| raw.start += 4096), Some(EINVAL));
        assert_eq!(errno(|raw| raw.start = 1 << 40), Some(E2BIG));
        assert_eq!(
            errno(|raw| raw.start = 0u64.wrapping_sub(128 * MIB)),
            Some(E2BIG)
        );
        // The last block that fits, and one more.
        assert!(check(|raw| raw.start = (1 << 40) - 512 * MIB).is_ok());
        assert_eq!(errno(|raw| raw.start = (1 << 40) - 384 * MIB), Some(E2BIG));
    }

    #[test]
    fn masks_and_flags() {
        assert_eq!(
            errno(|raw| raw.allow = bindings::CDM_ALLOW_ALL + 1),
            Some(EINVAL)
        );
        assert_eq!(errno(|raw| raw.flags |= 1 << 31), Some(EINVAL));
        assert_eq!(check(|raw| raw.flags = 0), Err(Refusal::NotCoherent));
        assert_eq!(
            check(|raw| raw.allow = CDM_ALLOW_LONGTERM_PIN),
            Err(Refusal::BrokenRule(Rule {
                cap: Cap::LongtermPin,
                needs: Cap::Gup,
            })),
        );
        assert_eq!(
            check(|raw| raw.allow |= CDM_ALLOW_GUP),
            Err(Refusal::NotPeerToPeer(Cap::Gup.into())),
        );
        assert!(check(|raw| {
            raw.allow |= CDM_ALLOW_GUP;
            raw.flags |= CDM_NODE_P2PDMA;
        })
        .is_ok());
    }

    #[test]
    fn bad_pages() -> Result {
        let config = check(|_| ()).map_err(|refusal| refusal.errno())?;
        let last = config.last();
        assert_eq!(config.check_bad_pages(&[]), Ok(()));
        assert_eq!(config.check_bad_pages(&[config.start(), last]), Ok(()));
        assert_eq!(
            config.check_bad_pages(&[last, last + 1]),
            Err(Refusal::BadPageOutside(last + 1))
        );
        assert_eq!(
            config.check_bad_pages(&[config.start() - 1]),
            Err(Refusal::BadPageOutside(config.start() - 1))
        );
        // What the driver knows of broken pages is no promise that it could break.
        let knows = check(|raw| raw.flags |= bindings::CDM_NODE_ALL_BAD_PAGES);
        assert!(
            knows.is_ok_and(|knows| knows.knows_bad_pages() && knows.promises_the_same(&config))
        );
        Ok(())
    }

    #[test]
    fn node_ids() {
        assert_eq!(errno(|raw| raw.nid = -2), Some(EINVAL));
        assert_eq!(
            errno(|raw| raw.nid = bindings::MAX_NUMNODES as i32),
            Some(EINVAL)
        );
        assert_eq!(
            check(|raw| raw.nid = 0).map(|config| config.nid()),
            Ok(Nid::new(0))
        );
    }

    #[test]
    fn a_wish_is_no_demand() -> Result {
        let wish = |nid| {
            check(|raw| {
                raw.nid = nid;
                raw.flags |= CDM_NODE_NID_WISH;
            })
            .map_err(|refusal| refusal.errno())
        };

        assert_eq!(wish(1)?.nid(), None);
        assert_eq!(wish(1)?.wish(), Nid::new(1));
        assert_eq!(wish(bindings::NUMA_NO_NODE)?.wish(), None);
        assert_eq!(wish(-2), Err(EINVAL));
        assert_eq!(
            check(|raw| raw.nid = 1).map(|config| config.wish()),
            Ok(None)
        );
        // It says nothing about the memory.
        assert!(wish(1)?.promises_the_same(&wish(2)?));
        assert_eq!(wish(1)?.flags(), CDM_NODE_COHERENT);
        Ok(())
    }

    #[test]
    fn overlap() -> Result {
        let at = |start: u64| check(|raw| raw.start = start).map_err(|refusal| refusal.errno());
        let first = at(1 << 32)?;
        assert!(first.overlaps(&first));
        assert!(first.overlaps(&at((1 << 32) + 384 * MIB)?));
        assert!(first.overlaps(&at((1 << 32) - 384 * MIB)?));
        assert!(!first.overlaps(&at((1 << 32) + 512 * MIB)?));
        assert!(!first.overlaps(&at((1 << 32) - 512 * MIB)?));
        Ok(())
    }
}
