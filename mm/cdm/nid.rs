// SPDX-License-Identifier: GPL-2.0

//! Which node id a device's memory gets.

use crate::config::Refusal;
use kernel::{
    bindings,
    prelude::*, //
};

/// What a node id is used for; see `cdm_nid_facts()`.
#[derive(Clone, Copy)]
pub(crate) struct Facts(u32);

impl Facts {
    /// What this machine uses `nid` for.
    ///
    /// The answer holds as long as nobody adds or removes memory.
    pub(crate) fn of(nid: i32) -> Self {
        if nid < 0 || nid >= bindings::MAX_NUMNODES as i32 {
            return Self(0);
        }
        // SAFETY: `nid` is below `MAX_NUMNODES`.
        Self(unsafe { bindings::cdm_nid_facts(nid) })
    }

    fn has(self, fact: u32) -> bool {
        self.0 & fact != 0
    }

    /// Why the node cannot become a device's, if it cannot.
    fn obstacle(self, nid: i32) -> Option<Refusal> {
        if !self.has(bindings::CDM_NID_POSSIBLE) {
            Some(Refusal::NoSuchNid(nid))
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

    fn is_online(self) -> bool {
        self.has(bindings::CDM_NID_ONLINE)
    }
}

/// Chooses a node for memory at `start`.
///
/// In this order: what the driver says, for it may know the firmware; where the firmware expects
/// memory at this address; the node that it had before; the first generic initiator, for that is
/// how firmware announces a device with memory; any node that is possible and not there. A policy
/// may outlive a node, and must not come to mean another device: of the last two, one that was
/// never another's is first. `had` is where the memory was that the node had last.
pub(crate) fn choose(
    start: u64,
    wanted: Option<i32>,
    expected: Option<i32>,
    facts: impl Fn(i32) -> Facts,
    is_taken: impl Fn(i32) -> bool,
    had: impl Fn(i32) -> Option<u64>,
) -> Result<i32, Refusal> {
    let usable = |nid: &i32| facts(*nid).obstacle(*nid).is_none() && !is_taken(*nid);
    let is_fresh = |nid: &i32| usable(nid) && had(*nid).is_none();

    if let Some(nid) = wanted {
        return match facts(nid).obstacle(nid) {
            // A node that is a device's already has memory: say whose it is.
            Some(Refusal::NidHasMemory(_)) | None if is_taken(nid) => Err(Refusal::NidTaken(nid)),
            Some(obstacle) => Err(obstacle),
            None => Ok(nid),
        };
    }

    let all = || 0..bindings::MAX_NUMNODES as i32;
    let initiators = || all().filter(|nid| facts(*nid).is_initiator());
    let absent = || all().filter(|nid| !facts(*nid).is_online());
    expected
        .filter(usable)
        .or_else(|| all().filter(|nid| had(*nid) == Some(start)).find(usable))
        .or_else(|| initiators().find(is_fresh))
        .or_else(|| absent().find(is_fresh))
        .or_else(|| initiators().find(usable))
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
        CDM_NID_POSSIBLE as POSSIBLE, //
    };

    // CPUs and memory; memory only; two initiators; a free one.
    fn machine(nid: i32) -> Facts {
        Facts(match nid {
            0 => POSSIBLE | ONLINE | CPUS | MEMORY,
            1 => POSSIBLE | ONLINE | MEMORY,
            2 | 3 => POSSIBLE | ONLINE | INITIATOR,
            4 => POSSIBLE,
            _ => 0,
        })
    }

    const START: u64 = 0x1000_0000;

    fn pick(wanted: Option<i32>, expected: Option<i32>, taken: &[i32]) -> Result<i32, Refusal> {
        let is_taken = |nid| taken.contains(&nid);

        choose(START, wanted, expected, machine, is_taken, |_| None)
    }

    // `past` has the nodes that had memory, and where that was.
    fn pick_again(past: &[(i32, u64)], taken: &[i32]) -> Result<i32, Refusal> {
        let is_taken = |nid| taken.contains(&nid);
        let had = |nid| past.iter().find(|(had, _)| *had == nid).map(|(_, at)| *at);

        choose(START, None, None, machine, is_taken, had)
    }

    #[test]
    fn the_driver_decides() {
        assert_eq!(pick(Some(4), Some(2), &[]), Ok(4));
        assert_eq!(pick(Some(0), None, &[]), Err(Refusal::NidHasCpus(0)));
        assert_eq!(pick(Some(1), None, &[]), Err(Refusal::NidHasMemory(1)));
        assert_eq!(pick(Some(5), None, &[]), Err(Refusal::NoSuchNid(5)));
        assert_eq!(pick(Some(3), None, &[3]), Err(Refusal::NidTaken(3)));
        assert_eq!(pick(Some(1), None, &[1]), Err(Refusal::NidTaken(1)));
    }

    #[test]
    fn the_order() {
        assert_eq!(pick(None, Some(4), &[]), Ok(4));
        assert_eq!(pick(None, Some(0), &[]), Ok(2));
        assert_eq!(pick(None, None, &[2]), Ok(3));
        assert_eq!(pick(None, None, &[2, 3]), Ok(4));
        assert_eq!(pick(None, None, &[2, 3, 4]), Err(Refusal::NoNid));
    }

    #[test]
    fn the_past() {
        assert_eq!(pick_again(&[(3, START)], &[]), Ok(3));
        assert_eq!(pick_again(&[(3, START)], &[3]), Ok(2));
        assert_eq!(pick_again(&[(2, !START)], &[]), Ok(3));
        assert_eq!(pick_again(&[(2, !START), (3, !START)], &[]), Ok(4));

        let others = [(2, !START), (3, !START), (4, !START)];
        assert_eq!(pick_again(&others, &[]), Ok(2));
        assert_eq!(pick_again(&others, &[2]), Ok(3));
    }
}
