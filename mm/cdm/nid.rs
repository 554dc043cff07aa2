// SPDX-License-Identifier: GPL-2.0

//! Which node id a device's memory gets.

use crate::config::Refusal;
use kernel::{
    bindings,
    fmt,
    prelude::*, //
};

/// A node id.
///
/// # Invariants
///
/// It is at least 0 and below `MAX_NUMNODES`: C takes it for an index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Nid(c_int);

impl Nid {
    /// The number that comes from outside, if it is one of a node.
    pub(crate) const fn new(nid: c_int) -> Option<Self> {
        if nid >= 0 && nid < bindings::MAX_NUMNODES as c_int {
            // INVARIANT: As it was checked.
            Some(Self(nid))
        } else {
            None
        }
    }

    /// The number, for C.
    pub(crate) const fn as_raw(self) -> c_int {
        self.0
    }

    /// All there can be.
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        // INVARIANT: By the range.
        (0..bindings::MAX_NUMNODES as c_int).map(Self)
    }
}

impl fmt::Display for Nid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// What a node id is used for, in `CDM_NID_*` bits; see `cdm_nid_facts()`.
#[derive(Clone, Copy)]
pub(crate) struct Facts(pub(crate) u32);

impl Facts {
    fn has(self, fact: u32) -> bool {
        self.0 & fact != 0
    }

    /// Why the node cannot become a device's, if it cannot.
    fn obstacle(self, nid: Nid) -> Option<Refusal> {
        if !self.has(bindings::CDM_NID_POSSIBLE) {
            Some(Refusal::NoSuchNid(nid.as_raw()))
        } else if self.has(bindings::CDM_NID_HAS_CPUS) {
            Some(Refusal::NidHasCpus(nid))
        } else if self.has(bindings::CDM_NID_HAS_MEMORY) {
            Some(Refusal::NidHasMemory(nid))
        } else {
            None
        }
    }

    fn is_initiator(self) -> bool {
        self.has(bindings::CDM_NID_INITIATOR)
    }

    fn is_spare(self) -> bool {
        self.has(bindings::CDM_NID_SPARE)
    }

    /// Is it there for memory that may be plugged in, and not here?
    fn is_promised(self) -> bool {
        self.has(bindings::CDM_NID_PROMISED)
    }

    fn is_online(self) -> bool {
        self.has(bindings::CDM_NID_ONLINE)
    }
}

/// Who had a node before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Had {
    /// Nobody.
    Never,
    /// The device that a node is wanted for.
    This,
    /// Another one.
    Another,
}

/// Why a node cannot become a device's now, if it cannot.
pub(crate) fn obstacle(
    nid: Nid,
    facts: impl Fn(Nid) -> Facts,
    is_taken: impl Fn(Nid) -> bool,
) -> Option<Refusal> {
    match facts(nid).obstacle(nid) {
        // A node that is a device's already has memory: say whose it is.
        Some(Refusal::NidHasMemory(_)) | None if is_taken(nid) => Some(Refusal::NidTaken(nid)),
        obstacle => obstacle,
    }
}

/// Chooses a node for a device's memory.
///
/// In this order: what the driver says, for it may know the firmware; what it wishes; where the
/// firmware expects memory at this address; the node that it had before; the first generic
/// initiator, for that is how firmware announces a device with memory; one that `cdm_nodes=` keeps;
/// any node that is possible and not there, and which the firmware does not have for something
/// else. A policy may outlive a node, and must not come to mean another device: of the last three,
/// one that was never another's is first.
pub(crate) fn choose(
    wanted: Option<Nid>,
    wish: Option<Nid>,
    expected: Option<Nid>,
    facts: impl Fn(Nid) -> Facts,
    is_taken: impl Fn(Nid) -> bool,
    had: impl Fn(Nid) -> Had,
) -> Result<Nid, Refusal> {
    let usable = |nid: &Nid| obstacle(*nid, &facts, &is_taken).is_none();
    let is_fresh = |nid: &Nid| usable(nid) && had(*nid) == Had::Never;

    if let Some(nid) = wanted {
        return match obstacle(nid, &facts, &is_taken) {
            Some(obstacle) => Err(obstacle),
            None => Ok(nid),
        };
    }

    let initiators = || Nid::all().filter(|nid| facts(*nid).is_initiator());
    let spare = || Nid::all().filter(|nid| facts(*nid).is_spare());
    let is_unclaimed = |facts: Facts| !facts.is_online() && !facts.is_promised();
    let absent = || Nid::all().filter(|nid| is_unclaimed(facts(*nid)));
    wish.filter(usable)
        .or_else(|| expected.filter(usable))
        .or_else(|| Nid::all().filter(|nid| had(*nid) == Had::This).find(usable))
        .or_else(|| initiators().find(is_fresh))
        .or_else(|| spare().find(is_fresh))
        .or_else(|| absent().find(is_fresh))
        .or_else(|| initiators().find(usable))
        .or_else(|| spare().find(usable))
        .or_else(|| absent().find(usable))
        .ok_or(Refusal::NoNid)
}

#[cfg(CONFIG_CDM_KUNIT_TEST)]
#[kunit_tests(cdm_nid)]
mod tests {
    use super::*;
    use bindings::{
        CDM_NID_HAS_CPUS as CPUS,
        CDM_NID_HAS_MEMORY as MEMORY,
        CDM_NID_INITIATOR as INITIATOR,
        CDM_NID_ONLINE as ONLINE,
        CDM_NID_POSSIBLE as POSSIBLE,
        CDM_NID_PROMISED as PROMISED,
        CDM_NID_SPARE as SPARE, //
    };

    // CPUs and memory; memory only; two initiators; a free one; one for a DIMM; a spare one, which
    // was online before.
    fn machine(nid: Nid) -> Facts {
        Facts(match nid.as_raw() {
            0 => POSSIBLE | ONLINE | CPUS | MEMORY,
            1 => POSSIBLE | ONLINE | MEMORY,
            2 | 3 => POSSIBLE | ONLINE | INITIATOR,
            4 => POSSIBLE,
            5 => POSSIBLE | PROMISED,
            6 => POSSIBLE | ONLINE | SPARE,
            _ => 0,
        })
    }

    fn nid(nid: c_int) -> Option<Nid> {
        Nid::new(nid)
    }

    fn pick(wanted: Option<Nid>, expected: Option<Nid>, taken: &[c_int]) -> Result<c_int, Refusal> {
        let is_taken = |nid: Nid| taken.contains(&nid.as_raw());

        choose(wanted, None, expected, machine, is_taken, |_| Had::Never).map(Nid::as_raw)
    }

    // `past` has the nodes that somebody had.
    fn pick_again(past: &[(c_int, Had)], taken: &[c_int]) -> Result<c_int, Refusal> {
        let is_taken = |nid: Nid| taken.contains(&nid.as_raw());
        let had = |nid: Nid| {
            let past = past.iter().find(|(had, _)| *had == nid.as_raw());

            past.map_or(Had::Never, |(_, had)| *had)
        };

        choose(None, None, None, machine, is_taken, had).map(Nid::as_raw)
    }

    #[test]
    fn the_range() {
        assert!(nid(-1).is_none());
        assert!(nid(c_int::MIN).is_none());
        assert_eq!(nid(0).map(Nid::as_raw), Some(0));
        assert!(nid(bindings::MAX_NUMNODES as c_int - 1).is_some());
        assert!(nid(bindings::MAX_NUMNODES as c_int).is_none());
        assert_eq!(Nid::all().count(), bindings::MAX_NUMNODES as usize);
    }

    #[test]
    fn the_driver_decides() {
        assert_eq!(pick(nid(4), nid(2), &[]), Ok(4));
        assert_eq!(
            pick(nid(0), None, &[]).err(),
            nid(0).map(Refusal::NidHasCpus)
        );
        assert_eq!(
            pick(nid(1), None, &[]).err(),
            nid(1).map(Refusal::NidHasMemory)
        );
        assert_eq!(pick(nid(5), None, &[]), Ok(5));
        assert_eq!(pick(nid(7), None, &[]), Err(Refusal::NoSuchNid(7)));
        assert_eq!(
            pick(nid(3), None, &[3]).err(),
            nid(3).map(Refusal::NidTaken)
        );
        assert_eq!(
            pick(nid(1), None, &[1]).err(),
            nid(1).map(Refusal::NidTaken)
        );
    }

    #[test]
    fn the_order() {
        assert_eq!(pick(None, nid(4), &[]), Ok(4));
        assert_eq!(pick(None, nid(0), &[]), Ok(2));
        assert_eq!(pick(None, None, &[2]), Ok(3));
        assert_eq!(pick(None, nid(5), &[]), Ok(5));
        assert_eq!(pick(None, None, &[2, 3]), Ok(6));
        assert_eq!(pick(None, None, &[2, 3, 6]), Ok(4));
        assert_eq!(pick(None, None, &[2, 3, 4, 6]), Err(Refusal::NoNid));
    }

    #[test]
    fn the_wish() {
        let pick = |wish, expected, taken: &[c_int]| {
            let is_taken = |nid: Nid| taken.contains(&nid.as_raw());

            choose(None, wish, expected, machine, is_taken, |_| Had::Never).map(Nid::as_raw)
        };

        assert_eq!(pick(nid(3), nid(4), &[]), Ok(3));
        assert_eq!(pick(nid(3), nid(4), &[3]), Ok(4));
        assert_eq!(pick(nid(0), nid(4), &[]), Ok(4));
        assert_eq!(pick(nid(1), None, &[]), Ok(2));
        assert_eq!(pick(nid(7), None, &[]), Ok(2));
    }

    #[test]
    fn the_past() {
        use Had::{Another, This};

        assert_eq!(pick_again(&[(3, This)], &[]), Ok(3));
        assert_eq!(pick_again(&[(3, This)], &[3]), Ok(2));
        assert_eq!(pick_again(&[(2, Another)], &[]), Ok(3));
        assert_eq!(pick_again(&[(2, Another), (3, Another)], &[]), Ok(6));
        assert_eq!(
            pick_again(&[(2, Another), (3, Another), (6, Another)], &[]),
            Ok(4)
        );

        let others = [(2, Another), (3, Another), (4, Another), (6, Another)];
        assert_eq!(pick_again(&others, &[]), Ok(2));
        assert_eq!(pick_again(&others, &[2]), Ok(3));
        assert_eq!(pick_again(&others, &[2, 3]), Ok(6));
    }
}
