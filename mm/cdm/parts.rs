// SPDX-License-Identifier: GPL-2.0

//! What a node is made of, and the machine that gives it.
//!
//! This is the seam of the core. On this side are the decisions, which need no device to be tested;
//! beyond it is what memory hotplug, the resource tree and sysfs do. Each part is a value whose
//! `drop` undoes it. The exception is the memory, which may refuse to leave: that is [`Absent`] or
//! [`Present`], and only what is absent can go.
//!
//! The parts of this machine are in [`node`](crate::node).

use crate::{
    config::{
        Config,
        Limits,
        Refusal,
        Rules, //
    },
    lifecycle::By,
    nid::{
        Facts,
        Nid, //
    },
    node::Lost,
    obstacle::{
        Asker,
        Obstacle,
        Users, //
    },
    registry::Registry,
    trace::Event, //
};
use kernel::{
    bindings,
    prelude::*,
    sync::{
        lock::GlobalLockBackend,
        GlobalGuard, //
    }, //
};

/// A machine with memory hotplug.
pub(crate) trait Machine: Sized + 'static {
    /// The lock around the list of all nodes.
    type Nodes: GlobalLockBackend<Item = Registry<Self>>;

    /// The right to change the machine's memory; dropping it gives that back.
    type Hotplug;
    /// See [`Owner`].
    type Owner: Owner;
    /// See [`BadPages`].
    type BadPages: BadPages;
    /// See [`Region`].
    type Region: Region<Self>;
    /// See [`Device`].
    type Device: Device<Self>;
    /// See [`Published`].
    type Published: Published;
    /// See [`Limit`].
    type Limit: Limit;
    /// See [`Group`].
    type Group: Group;
    /// See [`Dir`].
    type Dir: Dir;
    /// See [`Absent`].
    type Absent: Absent<Self>;
    /// See [`Present`].
    type Present: Present<Self>;

    /// Can nodes be registered yet?
    fn is_ready() -> bool;

    /// Locks the list of all nodes, once the machine [is ready](Self::is_ready).
    fn nodes() -> GlobalGuard<Self::Nodes>;

    /// What memory hotplug can take.
    fn limits() -> Limits;

    /// Do the CPUs cache the range, as far as the machine says?
    fn is_write_back(config: &Config) -> bool;

    /// The node where the firmware expects memory at this address.
    fn expected_nid(start: u64) -> Option<Nid>;

    /// What `nid` is used for.
    ///
    /// The answer holds as long as nobody adds or removes memory.
    fn facts(nid: Nid) -> Facts;

    /// Takes the right to change the machine's memory, or borrows it from a caller who has it.
    fn lock_hotplug() -> Result<Self::Hotplug, Refusal>;

    /// Hears from now on which devices go that are on the bus of this one.
    ///
    /// # Safety
    ///
    /// `dev` must be null or valid, and no lock of the core held.
    unsafe fn watch_bus(dev: *mut bindings::device) -> Result<(), Refusal>;

    /// Calls [`retry`](crate::registry::retry) in a while.
    fn retry_later();

    /// Sees to it that a node has its attributes in sysfs.
    fn show_attrs(nid: Nid, hotplug: &Self::Hotplug);

    /// Sets whether a cpuset must list the node for a task to name it.
    fn set_listed(nid: Nid, listed: bool);

    /// Sets whether memcg leaves the node's pages out of what it counts. `EBUSY` if there are any.
    fn set_uncounted(nid: Nid, uncounted: bool) -> Result;

    /// Takes broken pages, each with one of these addresses in it, out of a node that is in use.
    fn retire(addrs: &[u64]);

    /// Who asks for a node to leave.
    fn asker(by: By) -> Asker;

    /// How long a node that shall leave may take, in milliseconds.
    fn leave_timeout_ms() -> u32;

    /// Waits.
    fn sleep_ms(ms: u32);
}

/// A reference to the driver's module.
pub(crate) trait Owner: Sized + Send {
    /// # Safety
    ///
    /// `module` must be null or valid.
    unsafe fn pin(module: *mut bindings::module) -> Result<Self, Refusal>;
}

/// A range in the resource tree.
pub(crate) trait Region<M: Machine>: Sized + Send {
    /// Claims the range.
    fn request(config: &Config) -> Result<Self, Refusal>;

    /// Overwrites the range, whose memory must have been removed, but for its broken pages.
    fn erase(&self, bad_pages: &M::BadPages) -> Result;

    /// Counts who uses the pages of the memory in the range.
    fn users(&self) -> Users;
}

/// The device, which stays awake and with its driver while it has a node.
pub(crate) trait Device<M: Machine>: Sized + Send {
    /// # Safety
    ///
    /// - `dev` must be valid.
    /// - `region` must be dropped after the returned value.
    unsafe fn hold(dev: *mut bindings::device, region: &M::Region) -> Result<Self, Refusal>;

    /// Can its memory be read, as far as is known?
    fn answers(&self) -> bool;
}

/// The node's mask, as core mm reads it.
pub(crate) trait Published: Sized + Send {
    /// Makes it known. The node has no page yet.
    fn new(nid: Nid, config: &Config, rules: Rules) -> Result<Self, Refusal>;

    /// Lets tasks name the node, or not any more. Who has named it keeps the pages.
    fn set_nameable(&mut self, nameable: bool);

    /// Says that there is nothing behind the node's pages any more.
    fn mark_gone(&mut self);
}

/// The broken pages of a node, which are kept out of use.
pub(crate) trait BadPages: Sized + Send {
    /// Those that are remembered of the range, and those with one of the driver's `addrs` in them.
    fn prepare(nid: Nid, config: &Config, addrs: &[u64]) -> Result<Self, Refusal>;

    /// The content is lost: what is taken out of use from now on is not broken.
    fn ignore(&self);

    /// How many there are.
    fn count(&self) -> usize;

    /// Calls `show` with the address of each, in ascending order.
    fn for_each(&self, show: impl FnMut(u64));
}

/// What lets cgroups limit the node.
pub(crate) trait Limit: Sized + Send {
    /// Makes a region of the node, before it has a page.
    fn register(nid: Nid, config: &Config) -> Result<Self, Refusal>;
}

/// The group of the node's memory blocks.
pub(crate) trait Group: Sized + Send {
    /// Makes the group.
    fn register(nid: Nid, config: &Config) -> Result<Self, Refusal>;
}

/// `/sys/kernel/mm/cdm/nodeN`.
///
/// Who writes `state` there takes the lock of [`Machine::nodes`], and dropping this waits for him.
pub(crate) trait Dir: Sized + Send {
    /// Makes the directory.
    fn create(nid: Nid, state: &'static CStr) -> Result<Self, Refusal>;

    /// Shows the state.
    fn set_state(&self, state: &'static CStr);

    /// Shows the device, or none.
    ///
    /// # Safety
    ///
    /// `dev` must be null or valid.
    unsafe fn set_device(&self, dev: *mut bindings::device) -> Result<(), Refusal>;

    /// Sends a uevent. The node's mask is known.
    fn announce(&self, event: Event);

    /// Is it this one?
    fn is(&self, dir: *const bindings::cdm_dir) -> bool;
}

/// The memory of a node before it is added, and after it has been removed.
pub(crate) trait Absent<M: Machine>: Sized + Send {
    /// Allocates what is needed to add and to remove it.
    fn prepare(nid: Nid, group: &M::Group, config: &Config) -> Result<Self, Refusal>;

    /// Adds the memory, all or nothing.
    fn add(self, hotplug: &M::Hotplug) -> Result<M::Present, Refusal>;
}

/// The memory of a node that has been added, in part online or not.
///
/// Dropping it leaves the memory where it is. What the memory stands on must be kept then.
pub(crate) trait Present<M: Machine>: Sized + Send {
    /// Brings all of it online.
    fn online(&self, hotplug: &M::Hotplug) -> Result<(), Refusal>;

    /// Takes the memory away, all or nothing.
    ///
    /// Sleeps for about `timeout_ms` from when it has the right to change the machine's memory.
    fn remove(self, timeout_ms: u32) -> Result<M::Absent, (Self, Obstacle)>;

    /// Takes away as much of the memory as can be moved out; then only [`lose`](Self::lose) is
    /// left.
    ///
    /// Sleeps for about [`Machine::leave_timeout_ms`].
    fn evacuate(self) -> Result<M::Absent, Self>;

    /// Takes away what nothing refers to, of memory that is [marked](Published::mark_gone), without
    /// reading or moving any of it.
    ///
    /// Sleeps as [`evacuate`](Self::evacuate).
    fn lose(self) -> Result<(M::Absent, Lost), (Self, Lost)>;

    /// Would [`lose`](Self::lose), which has failed, fail again?
    fn is_held(&self) -> bool;
}
