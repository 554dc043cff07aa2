// SPDX-License-Identifier: GPL-2.0

//! The life of a node: who may do what to it, and when.
//!
//! ```text
//!                 registered        begin_leave
//!   Registering ------------> Live ------------> Leaving ---> gone
//!                              ^                   | |         ^
//!                              +-------- stayed ---+ +-> Lost -+
//! ```
//!
//! Beside the phase there is the question whether the driver still holds its handle. A live node
//! that nobody holds is an orphan: the core keeps it until it can leave or its driver comes back. A
//! handle without a node is a driver whose node the administrator has unplugged: it keeps the node
//! id, so that the handle never means somebody else's node.
//!
//! A node whose device has gone, or what was on it, leaves in any case: from `Lost` it never comes
//! back, and only waits for what the kernel itself still refers to. Nobody holds it then.
//!
//! Whoever moves a node to `Leaving` works on it alone, without a lock.

use kernel::prelude::*;

/// Where a node is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// It is being built.
    Registering,
    /// Its memory is online.
    Live,
    /// Somebody tries to take it away.
    Leaving,
    /// Its content is gone, and its pages have been taken from their users.
    Lost,
    /// Its memory is gone, the driver's handle is not.
    Unplugged,
}

/// Who wants a node to leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum By {
    /// The driver, with its handle.
    Driver,
    /// The administrator.
    Admin,
    /// The bus: the device goes.
    Device,
    /// The driver, with its handle: the content is gone.
    Loss,
    /// The core, which looks after what was lost.
    Core,
    /// The core, which only looks at it: the machine wants to sleep.
    Sleep,
}

/// What is left to do for a request to leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Leave {
    /// The caller takes the node and works on it.
    Begun,
    /// There is no node any more, only the entry is to be forgotten.
    AlreadyGone,
}

/// What becomes of the registry's entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// Nobody refers to it.
    Forget,
    /// The driver's handle does.
    Keep,
}

/// The state of one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lifecycle {
    phase: Phase,
    held: bool,
    doomed: bool,
    lost: bool,
}

impl Lifecycle {
    /// A node that its driver has begun to register.
    pub(crate) const fn new() -> Self {
        Self {
            phase: Phase::Registering,
            held: true,
            doomed: false,
            lost: false,
        }
    }

    /// Does the driver hold its handle?
    pub(crate) fn is_held(&self) -> bool {
        self.held
    }

    /// Has the driver a node with memory, whether somebody works on it or not?
    pub(crate) fn is_up(&self) -> bool {
        self.held && matches!(self.phase, Phase::Live | Phase::Leaving)
    }

    /// Is somebody working on the node?
    pub(crate) fn is_busy(&self) -> bool {
        matches!(self.phase, Phase::Registering | Phase::Leaving)
    }

    /// Is the node one whose content is lost, whether somebody works on it or not?
    pub(crate) fn is_lost(&self) -> bool {
        self.lost
    }

    /// Must whoever works on the node not give it back?
    pub(crate) fn is_doomed(&self) -> bool {
        self.doomed
    }

    /// The node is complete.
    pub(crate) fn registered(&mut self) {
        self.phase = Phase::Live;
    }

    /// A driver takes a node over that the core kept.
    pub(crate) fn adopt(&mut self) -> Result {
        if self.phase != Phase::Live || self.held {
            return Err(EBUSY);
        }
        self.held = true;
        Ok(())
    }

    /// Somebody wants the node to leave.
    pub(crate) fn begin_leave(&mut self, by: By) -> Result<Leave> {
        let by_driver = matches!(by, By::Driver | By::Loss);

        if by_driver && !self.held {
            return Err(ENODEV);
        }
        match self.phase {
            Phase::Live if by == By::Core => Err(ENODEV),
            // There is nothing on it to be kept.
            Phase::Lost if by == By::Sleep => Err(ENODEV),
            Phase::Live | Phase::Lost => {
                self.phase = Phase::Leaving;
                Ok(Leave::Begun)
            }
            Phase::Registering | Phase::Leaving => Err(EBUSY),
            Phase::Unplugged if by_driver => Ok(Leave::AlreadyGone),
            Phase::Unplugged => Err(ENODEV),
        }
    }

    /// The node that was leaving could not.
    pub(crate) fn stayed(&mut self) {
        self.phase = Phase::Live;
    }

    /// The node that was leaving could not, and has lost its content.
    pub(crate) fn lost(&mut self) {
        self.phase = Phase::Lost;
        self.held = false;
        self.lost = true;
    }

    /// The device goes while somebody works on the node.
    pub(crate) fn doom(&mut self) {
        self.doomed = true;
    }

    /// The node that was leaving has gone.
    pub(crate) fn gone(&mut self, by: By) -> Fate {
        self.phase = Phase::Unplugged;
        if matches!(by, By::Admin | By::Device) && self.held {
            Fate::Keep
        } else {
            Fate::Forget
        }
    }

    /// The driver lets go of its handle, whatever the node does.
    pub(crate) fn abandon(&mut self) {
        self.held = false;
    }

    /// What `state` in sysfs shows.
    pub(crate) fn name(&self) -> &'static CStr {
        match (self.phase, self.held) {
            (Phase::Registering, _) => c"registering",
            (Phase::Live, true) => c"online",
            (Phase::Live, false) => c"orphaned",
            (Phase::Leaving, _) => c"leaving",
            (Phase::Lost, _) => c"lost",
            (Phase::Unplugged, _) => c"unplugged",
        }
    }
}

#[cfg(CONFIG_CDM_KUNIT_TEST)]
#[kunit_tests(cdm_lifecycle)]
mod tests {
    use super::*;

    fn live() -> Lifecycle {
        let mut life = Lifecycle::new();
        life.registered();
        life
    }

    fn orphan() -> Lifecycle {
        let mut life = live();
        life.abandon();
        life
    }

    #[test]
    fn a_driver_leaves() {
        let mut life = live();
        assert_eq!(life.begin_leave(By::Driver), Ok(Leave::Begun));
        assert!(life.is_busy());
        assert_eq!(life.gone(By::Driver), Fate::Forget);
    }

    #[test]
    fn a_failed_leave_changes_nothing() {
        let mut life = live();
        assert_eq!(life.begin_leave(By::Driver), Ok(Leave::Begun));
        life.stayed();
        assert_eq!(life, live());
    }

    #[test]
    fn one_leaves_at_a_time() {
        let mut life = live();
        assert_eq!(life.begin_leave(By::Admin), Ok(Leave::Begun));
        assert_eq!(life.begin_leave(By::Admin), Err(EBUSY));
        assert_eq!(life.begin_leave(By::Driver), Err(EBUSY));
    }

    #[test]
    fn what_is_being_registered_cannot_leave() {
        let mut life = Lifecycle::new();
        assert_eq!(life.begin_leave(By::Driver), Err(EBUSY));
        assert_eq!(life.begin_leave(By::Admin), Err(EBUSY));
    }

    #[test]
    fn an_unplugged_node_keeps_its_handle() {
        let mut life = live();
        assert_eq!(life.begin_leave(By::Admin), Ok(Leave::Begun));
        assert_eq!(life.gone(By::Admin), Fate::Keep);
        assert_eq!(life.begin_leave(By::Admin), Err(ENODEV));
        assert_eq!(life.begin_leave(By::Driver), Ok(Leave::AlreadyGone));
        assert_eq!(life.adopt(), Err(EBUSY));
    }

    #[test]
    fn an_orphan_can_be_unplugged() {
        let mut life = orphan();
        assert_eq!(life.name(), c"orphaned");
        assert_eq!(life.begin_leave(By::Driver), Err(ENODEV));
        assert_eq!(life.begin_leave(By::Admin), Ok(Leave::Begun));
        assert_eq!(life.gone(By::Admin), Fate::Forget);
    }

    #[test]
    fn an_orphan_can_be_adopted() {
        let mut life = orphan();
        assert_eq!(life.adopt(), Ok(()));
        assert_eq!(life, live());
        assert_eq!(life.adopt(), Err(EBUSY));
    }

    #[test]
    fn a_device_goes() {
        // Whether its driver still holds the node, which it does on some buses, or not.
        let mut life = live();
        assert_eq!(life.begin_leave(By::Device), Ok(Leave::Begun));
        assert_eq!(life.gone(By::Device), Fate::Keep);
        assert_eq!(life.begin_leave(By::Driver), Ok(Leave::AlreadyGone));

        let mut life = orphan();
        assert_eq!(life.begin_leave(By::Device), Ok(Leave::Begun));
        assert_eq!(life.gone(By::Device), Fate::Forget);
    }

    #[test]
    fn what_is_lost_does_not_come_back() {
        let mut life = live();
        assert_eq!(life.begin_leave(By::Core), Err(ENODEV));
        assert_eq!(life.begin_leave(By::Loss), Ok(Leave::Begun));
        life.lost();
        assert!(life.is_lost());
        assert_eq!(life.name(), c"lost");
        assert_eq!(life.adopt(), Err(EBUSY));
        assert_eq!(life.begin_leave(By::Driver), Err(ENODEV));
        assert_eq!(life.begin_leave(By::Loss), Err(ENODEV));

        assert_eq!(life.begin_leave(By::Core), Ok(Leave::Begun));
        assert!(life.is_lost());
        assert_eq!(life.begin_leave(By::Admin), Err(EBUSY));
        life.lost();
        assert_eq!(life.begin_leave(By::Admin), Ok(Leave::Begun));
        assert_eq!(life.gone(By::Admin), Fate::Forget);
    }

    #[test]
    fn a_node_is_looked_at() {
        for mut life in [live(), orphan()] {
            let before = life;
            assert_eq!(life.begin_leave(By::Sleep), Ok(Leave::Begun));
            assert_eq!(life.begin_leave(By::Admin), Err(EBUSY));
            life.stayed();
            assert_eq!(life, before);
        }

        let mut life = live();
        assert_eq!(life.begin_leave(By::Driver), Ok(Leave::Begun));
        assert_eq!(life.begin_leave(By::Sleep), Err(EBUSY));
        life.lost();
        assert_eq!(life.begin_leave(By::Sleep), Err(ENODEV));
        assert_eq!(life.begin_leave(By::Core), Ok(Leave::Begun));
        assert_eq!(life.gone(By::Core), Fate::Forget);
    }

    #[test]
    fn a_device_may_go_while_the_admin_unplugs() {
        let mut life = live();
        assert_eq!(life.begin_leave(By::Admin), Ok(Leave::Begun));
        assert_eq!(life.begin_leave(By::Device), Err(EBUSY));
        assert!(!life.is_doomed());
        life.doom();
        assert!(life.is_doomed());
    }

    #[test]
    fn a_driver_may_go_while_the_admin_unplugs() {
        let mut life = live();
        assert_eq!(life.begin_leave(By::Admin), Ok(Leave::Begun));
        life.abandon();
        assert_eq!(life.gone(By::Admin), Fate::Forget);

        let mut life = live();
        assert_eq!(life.begin_leave(By::Admin), Ok(Leave::Begun));
        life.abandon();
        life.stayed();
        assert_eq!(life, orphan());
    }
}
