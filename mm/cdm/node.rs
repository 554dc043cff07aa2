// SPDX-License-Identifier: GPL-2.0

//! A node, and what this machine makes it of.
//!
//! [`Bare`] is a node without memory, and can be dropped. [`Node`] has memory, and can only leave.

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
    obstacle::{
        Asker,
        Obstacle,
        Users, //
    },
    parts::{
        self,
        Absent as _,
        BadPages as _,
        Device as _,
        Dir as _,
        Group as _,
        Limit as _,
        Machine,
        Owner as _,
        Present as _,
        Published as _,
        Region as _, //
    },
    poison::{
        self,
        BadPages, //
    },
    registry,
    trace::Event, //
};
use core::{
    mem::ManuallyDrop,
    ptr::NonNull, //
};
use kernel::{
    bindings,
    error::to_result,
    fmt,
    prelude::*,
    str::CStrExt,
    sync::GlobalGuard,
    time::{
        delay::fsleep,
        Delta, //
    },
    types::NotThreadSafe, //
};

/// The machine that this runs on.
pub(crate) struct ThisMachine;

impl Machine for ThisMachine {
    type Nodes = registry::REGISTRY;
    type Hotplug = Hotplug;
    type Owner = Owner;
    type BadPages = BadPages;
    type Region = Region;
    type Device = Device;
    type Published = Published;
    type Limit = Limit;
    type Group = Group;
    type Dir = Dir;
    type Absent = Absent;
    type Present = Present;

    fn is_ready() -> bool {
        registry::is_ready()
    }

    fn nodes() -> GlobalGuard<Self::Nodes> {
        registry::REGISTRY.lock()
    }

    fn limits() -> Limits {
        // SAFETY: It reads what does not change after boot.
        let limits = unsafe { bindings::cdm_limits() };
        Limits {
            block: limits.block,
            first: limits.first,
            last: limits.last,
        }
    }

    fn is_write_back(config: &Config) -> bool {
        // SAFETY: Plain values.
        unsafe { bindings::cdm_range_is_write_back(config.start(), config.size()) }
    }

    fn expected_nid(start: u64) -> Option<Nid> {
        // SAFETY: The firmware's tables do not change.
        Nid::new(unsafe { bindings::cdm_expected_nid(start) })
    }

    fn facts(nid: Nid) -> Facts {
        // SAFETY: A `Nid` is in range.
        Facts(unsafe { bindings::cdm_nid_facts(nid.as_raw()) })
    }

    fn lock_hotplug() -> Result<Hotplug, Refusal> {
        Hotplug::lock()
    }

    unsafe fn watch_bus(dev: *mut bindings::device) -> Result<(), Refusal> {
        // SAFETY: By the safety requirements.
        to_result(unsafe { bindings::cdm_watch_bus(dev) })
            .map_err(|error| Refusal::Failed("watching the bus", error))
    }

    fn retry_later() {
        // SAFETY: It queues work.
        unsafe { bindings::cdm_retry_later() };
    }

    fn show_attrs(nid: Nid, _hotplug: &Hotplug) {
        // SAFETY: A `Nid` is in range; `_hotplug` is the lock that it asks for.
        unsafe { bindings::cdm_show_attrs(nid.as_raw()) };
    }

    fn set_listed(nid: Nid, listed: bool) {
        // SAFETY: A `Nid` is in range.
        unsafe { bindings::cdm_set_listed(nid.as_raw(), listed) };
    }

    fn set_uncounted(nid: Nid, uncounted: bool) -> Result {
        // SAFETY: A `Nid` is in range; this may sleep.
        to_result(unsafe { bindings::cdm_set_uncounted(nid.as_raw(), uncounted) })
    }

    fn retire(addrs: &[u64]) {
        poison::retire(addrs);
    }

    fn asker(by: By) -> Asker {
        Asker::current(by)
    }

    fn leave_timeout_ms() -> u32 {
        // SAFETY: It reads a variable.
        unsafe { bindings::cdm_leave_timeout() }
    }

    fn sleep_ms(ms: u32) {
        fsleep(Delta::from_millis(ms.into()));
    }
}

/// A reference to the driver's module.
///
/// # Invariants
///
/// The pointer is null or there is a reference that this gives back.
pub(crate) struct Owner(*mut bindings::module);

// SAFETY: A reference is not tied to a thread.
unsafe impl Send for Owner {}

impl parts::Owner for Owner {
    unsafe fn pin(module: *mut bindings::module) -> Result<Self, Refusal> {
        // SAFETY: `module` is null, which means built in, or valid.
        if !unsafe { bindings::cdm_owner_get(module) } {
            return Err(Refusal::OwnerLeaving);
        }
        // INVARIANT: It was taken above.
        Ok(Self(module))
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        // SAFETY: By the type invariant.
        unsafe { bindings::cdm_owner_put(self.0) };
    }
}

/// The right to change the machine's memory.
///
/// A lock that its task has to give back, or one that the task's caller holds: the type stays with
/// the task in both cases.
///
/// # Invariants
///
/// The number is from `cdm_hotplug_lock()`, which has not been undone.
#[must_use = "the lock is given back when this is dropped"]
pub(crate) struct Hotplug(c_int, NotThreadSafe);

impl Hotplug {
    /// Takes the lock, or borrows it from a caller who holds it.
    fn lock() -> Result<Self, Refusal> {
        // SAFETY: This may sleep, as every caller may.
        let how = unsafe { bindings::cdm_hotplug_lock() };
        if how < 0 {
            return Err(Refusal::HotplugBusy);
        }
        // INVARIANT: It is no error.
        Ok(Self(how, NotThreadSafe))
    }
}

impl Drop for Hotplug {
    fn drop(&mut self) {
        // SAFETY: By the type invariant; this task has it.
        unsafe { bindings::cdm_hotplug_unlock(self.0) };
    }
}

/// A range in the resource tree.
///
/// # Invariants
///
/// The pointer is from `cdm_region_request()`.
pub(crate) struct Region(NonNull<bindings::resource>);

// SAFETY: The resource tree has a lock of its own.
unsafe impl Send for Region {}

impl parts::Region<ThisMachine> for Region {
    fn request(config: &Config) -> Result<Self, Refusal> {
        // SAFETY: Plain values; this may sleep.
        let res = unsafe { bindings::cdm_region_request(config.start(), config.size()) };

        // INVARIANT: As promised.
        NonNull::new(res).map(Self).ok_or(Refusal::RangeBusy)
    }

    fn erase(&self, bad_pages: &BadPages) -> Result {
        // SAFETY: By the type invariants.
        to_result(unsafe { bindings::cdm_region_erase(self.0.as_ptr(), bad_pages.as_ptr()) })
    }

    fn users(&self) -> Users {
        let mut users = Users::default();
        // SAFETY: By the type invariant; `users.raw` is valid for writes.
        unsafe { bindings::cdm_count_users(self.0.as_ptr(), &mut users.raw) };
        users
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: By the type invariant; nothing uses it any more.
        unsafe { bindings::cdm_region_release(self.0.as_ptr()) };
    }
}

/// The device, which stays awake and with its driver while it has a node.
///
/// # Invariants
///
/// The pointer is from `cdm_device_hold()`.
pub(crate) struct Device(NonNull<bindings::cdm_device>);

// SAFETY: A reference is not tied to a thread.
unsafe impl Send for Device {}

impl parts::Device<ThisMachine> for Device {
    unsafe fn hold(dev: *mut bindings::device, region: &Region) -> Result<Self, Refusal> {
        // SAFETY: `dev` is valid, and the resource stays as long as it has to.
        let device = unsafe { bindings::cdm_device_hold(dev, region.0.as_ptr()) };

        // INVARIANT: As promised.
        NonNull::new(device)
            .map(Self)
            .ok_or(Refusal::Failed("an allocation", ENOMEM))
    }

    fn answers(&self) -> bool {
        // SAFETY: By the type invariant.
        unsafe { bindings::cdm_device_answers(self.0.as_ptr()) }
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        // SAFETY: By the type invariant; this is the only time.
        unsafe { bindings::cdm_device_let_go(self.0.as_ptr()) };
    }
}

/// The node's mask, as core mm reads it.
///
/// # Invariants
///
/// `cdm_publish()` has been called for the node, and not been undone.
pub(crate) struct Published(Nid);

impl parts::Published for Published {
    fn new(nid: Nid, config: &Config, rules: Rules) -> Result<Self, Refusal> {
        let mut word = config.caps().denied();
        if rules.uncounted {
            word |= bindings::CDM_UNCOUNTED;
        }
        // SAFETY: A `Nid` is in range. The registry gave it to this node alone.
        to_result(unsafe { bindings::cdm_publish(nid.as_raw(), word, rules.listed) })
            .map_err(|error| Refusal::Failed("an allocation", error))?;

        // INVARIANT: As was done.
        Ok(Self(nid))
    }

    fn set_nameable(&mut self, nameable: bool) {
        // SAFETY: A `Nid` is in range.
        unsafe { bindings::cdm_set_nameable(self.0.as_raw(), nameable) };
    }

    fn mark_gone(&mut self) {
        // SAFETY: A `Nid` is in range, and by the type invariant the word is this node's.
        unsafe { bindings::cdm_mark_gone(self.0.as_raw()) };
    }
}

impl Drop for Published {
    fn drop(&mut self) {
        // SAFETY: By the type invariant; a node that has memory is not dropped.
        unsafe { bindings::cdm_withdraw(self.0.as_raw()) };
    }
}

/// A region of the dmem controller.
///
/// # Invariants
///
/// `cdm_limit_attach()` has been called for the node, and not been undone.
pub(crate) struct Limit(Nid);

impl parts::Limit for Limit {
    fn register(nid: Nid, config: &Config) -> Result<Self, Refusal> {
        // SAFETY: A `Nid` is in range. The registry gave it to this node alone, without memory yet.
        to_result(unsafe {
            bindings::cdm_limit_attach(nid.as_raw(), config.start(), config.size())
        })
        .map_err(|error| Refusal::Failed("the region for limits", error))?;

        // INVARIANT: As was done.
        Ok(Self(nid))
    }
}

impl Drop for Limit {
    fn drop(&mut self) {
        // SAFETY: By the type invariant; a node that has memory is not dropped.
        unsafe { bindings::cdm_limit_detach(self.0.as_raw()) };
    }
}

/// The group of the node's memory blocks.
///
/// # Invariants
///
/// The number is from `memory_group_register_static()`.
pub(crate) struct Group(c_int);

impl parts::Group for Group {
    fn register(nid: Nid, config: &Config) -> Result<Self, Refusal> {
        let pages = config.size() >> bindings::PAGE_SHIFT;
        // SAFETY: It refuses what is not possible.
        let mgid = unsafe { bindings::memory_group_register_static(nid.as_raw(), pages as usize) };
        if mgid < 0 {
            return Err(Refusal::Failed("the memory group", Error::from_errno(mgid)));
        }
        // INVARIANT: It is no error.
        Ok(Self(mgid))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // SAFETY: By the type invariant. Its blocks have gone with the memory; it can only fail if
        // one were left.
        unsafe { bindings::memory_group_unregister(self.0) };
    }
}

/// `/sys/kernel/mm/cdm/nodeN`.
///
/// # Invariants
///
/// The pointer is from `cdm_dir_create()`.
pub(crate) struct Dir(NonNull<bindings::cdm_dir>);

// SAFETY: sysfs has locks of its own.
unsafe impl Send for Dir {}

impl parts::Dir for Dir {
    fn create(nid: Nid, state: &'static CStr) -> Result<Self, Refusal> {
        // SAFETY: `state` lives for ever.
        let dir = unsafe { bindings::cdm_dir_create(nid.as_raw(), state.as_char_ptr()) };

        // INVARIANT: As promised.
        NonNull::new(dir)
            .map(Self)
            .ok_or(Refusal::Failed("the sysfs directory", ENOMEM))
    }

    fn set_state(&self, state: &'static CStr) {
        // SAFETY: By the type invariant; `state` lives for ever.
        unsafe { bindings::cdm_dir_set_state(self.0.as_ptr(), state.as_char_ptr()) };
    }

    unsafe fn set_device(&self, dev: *mut bindings::device) -> Result<(), Refusal> {
        // SAFETY: By the type invariant, and the safety requirements.
        to_result(unsafe { bindings::cdm_dir_set_device(self.0.as_ptr(), dev) })
            .map_err(|error| Refusal::Failed("the link to the device", error))
    }

    fn announce(&self, event: Event) {
        // SAFETY: By the type invariant; the mask is known for as long as the directory exists.
        unsafe { bindings::cdm_dir_announce(self.0.as_ptr(), event as u32) };
    }

    fn is(&self, dir: *const bindings::cdm_dir) -> bool {
        core::ptr::eq(self.0.as_ptr(), dir)
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        // SAFETY: By the type invariant. Nobody drops it under the registry's lock, which who
        // writes `state` takes.
        unsafe { bindings::cdm_dir_remove(self.0.as_ptr()) };
    }
}

/// The memory of a node that is not there.
///
/// # Invariants
///
/// The pointer is from `cdm_memory_alloc()`, and that memory has not been added, or been removed.
pub(crate) struct Absent(NonNull<bindings::cdm_memory>);

// SAFETY: It is not tied to a thread.
unsafe impl Send for Absent {}

impl parts::Absent<ThisMachine> for Absent {
    fn prepare(nid: Nid, group: &Group, config: &Config) -> Result<Self, Refusal> {
        // SAFETY: Plain values; this may sleep.
        let raw = unsafe {
            bindings::cdm_memory_alloc(nid.as_raw(), group.0, config.start(), config.size())
        };

        // INVARIANT: As promised; nothing has been added.
        NonNull::new(raw)
            .map(Self)
            .ok_or(Refusal::Failed("an allocation", ENOMEM))
    }

    fn add(self, _hotplug: &Hotplug) -> Result<Present, Refusal> {
        // SAFETY: By the type invariant; `_hotplug` is the lock that it asks for.
        to_result(unsafe { bindings::cdm_memory_add(self.0.as_ptr()) })
            .map_err(|error| Refusal::Failed("adding memory", error))?;

        // INVARIANT: It has been added.
        Ok(Present(ManuallyDrop::new(self).0))
    }
}

impl Drop for Absent {
    fn drop(&mut self) {
        // SAFETY: By the type invariant; nothing uses it any more.
        unsafe { bindings::cdm_memory_free(self.0.as_ptr()) };
    }
}

/// The memory of a node that is there.
///
/// # Invariants
///
/// The pointer is from `cdm_memory_alloc()`, and that memory has been added and not been removed.
#[must_use = "memory that is there has to be removed"]
pub(crate) struct Present(NonNull<bindings::cdm_memory>);

// SAFETY: It is not tied to a thread.
unsafe impl Send for Present {}

impl parts::Present<ThisMachine> for Present {
    fn online(&self, _hotplug: &Hotplug) -> Result<(), Refusal> {
        // SAFETY: By the type invariant; `_hotplug` is the lock that it asks for.
        to_result(unsafe { bindings::cdm_memory_online(self.0.as_ptr()) })
            .map_err(|error| Refusal::Failed("bringing memory online", error))
    }

    fn remove(self, timeout_ms: u32) -> Result<Absent, (Self, Obstacle)> {
        let mut obstacle = bindings::cdm_obstacle::default();
        // SAFETY: By the type invariant; `obstacle` is valid for writes.
        if unsafe { bindings::cdm_memory_remove(self.0.as_ptr(), timeout_ms, &mut obstacle) } {
            // INVARIANT: It has been removed.
            Ok(Absent(self.0))
        } else {
            Err((self, Obstacle::from_raw(&obstacle)))
        }
    }

    fn evacuate(self) -> Result<Absent, Self> {
        // SAFETY: By the type invariant.
        match unsafe { bindings::cdm_memory_evacuate(self.0.as_ptr()) } {
            // INVARIANT: It has been removed.
            0 => Ok(Absent(self.0)),
            _ => Err(self),
        }
    }

    fn lose(self) -> Result<(Absent, Lost), (Self, Lost)> {
        let mut lost = Lost::default();
        // SAFETY: By the type invariant; `lost` is valid for writes.
        match unsafe { bindings::cdm_memory_lose(self.0.as_ptr(), &mut lost.0) } {
            // INVARIANT: It has been removed.
            0 => Ok((Absent(self.0), lost)),
            _ => Err((self, lost)),
        }
    }

    fn is_held(&self) -> bool {
        // SAFETY: By the type invariant.
        unsafe { bindings::cdm_memory_is_held(self.0.as_ptr()) }
    }
}

/// What it meant that the content of a node was lost.
#[derive(Clone, Copy, Default)]
pub(crate) struct Lost(pub(crate) bindings::cdm_lost);

impl Lost {
    /// Has nobody lost anything?
    pub(crate) fn is_nothing(&self) -> bool {
        self.0.taken == 0 && self.0.held == 0
    }
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} pages taken from their users", self.0.taken)?;
        if self.0.held != 0 {
            write!(f, ", {} stay until nothing refers to them", self.0.held)?;
        }
        Ok(())
    }
}

/// All of a node but its memory.
///
/// Fields go in the order of their declaration: the directory before the mask, which core mm needs
/// as long as there is a page, the device and its range after that, and the module last, which may
/// be the one that wants to be unloaded.
struct Rest<M: Machine> {
    dir: M::Dir,
    bad_pages: M::BadPages,
    _group: M::Group,
    _limit: M::Limit,
    published: M::Published,
    device: Option<M::Device>,
    region: M::Region,
    _owner: Option<M::Owner>,
    /// Pages may have data in them.
    used: bool,
    driver_scrubs: bool,
    /// The driver has gone without it.
    disowned: bool,
    /// There is nothing behind its pages any more.
    is_lost: bool,
    /// Its driver wants nobody to get pages there for a while.
    frozen: bool,
}

impl<M: Machine> Rest<M> {
    /// # Safety
    ///
    /// `dev` must be null or valid, and `region` be dropped after the returned value.
    unsafe fn hold(
        dev: *mut bindings::device,
        region: &M::Region,
    ) -> Result<Option<M::Device>, Refusal> {
        if dev.is_null() {
            return Ok(None);
        }
        // SAFETY: By the safety requirements.
        unsafe { M::Device::hold(dev, region) }.map(Some)
    }

    /// Can the memory be read? Without a device nobody knows better.
    fn answers(&self) -> bool {
        self.device.as_ref().is_none_or(M::Device::answers)
    }
}

/// A node without memory. Dropping it undoes all of it.
#[must_use = "the node is undone when this is dropped"]
pub(crate) struct Bare<M: Machine> {
    memory: M::Absent,
    rest: Rest<M>,
}

impl<M: Machine> Bare<M> {
    /// Builds all but the memory.
    ///
    /// `bad_pages` are addresses in pages that the driver knows to be broken.
    ///
    /// # Safety
    ///
    /// `owner` and `dev` must be null or valid.
    pub(crate) unsafe fn prepare(
        nid: Nid,
        config: &Config,
        bad_pages: &[u64],
        rules: Rules,
        owner: *mut bindings::module,
        dev: *mut bindings::device,
        state: &'static CStr,
    ) -> Result<Self, Refusal> {
        // SAFETY: By the safety requirements.
        let owner = unsafe { M::Owner::pin(owner) }?;
        let region = M::Region::request(config)?;
        // SAFETY: By the safety requirements; both this function and `Rest` drop it before that.
        let device = unsafe { Rest::<M>::hold(dev, &region) }?;
        let published = M::Published::new(nid, config, rules)?;
        let bad_pages = M::BadPages::prepare(nid, config, bad_pages)?;
        let limit = M::Limit::register(nid, config)?;
        let group = M::Group::register(nid, config)?;
        let dir = M::Dir::create(nid, state)?;
        // SAFETY: By the safety requirements.
        unsafe { dir.set_device(dev) }?;
        let memory = M::Absent::prepare(nid, &group, config)?;

        Ok(Self {
            memory,
            rest: Rest {
                dir,
                bad_pages,
                _group: group,
                _limit: limit,
                published,
                device,
                region,
                _owner: Some(owner),
                used: false,
                driver_scrubs: config.driver_scrubs(),
                disowned: false,
                is_lost: false,
                frozen: false,
            },
        })
    }

    /// Adds the memory and brings it online.
    ///
    /// After an error there may be a node that has memory, and has to [`leave`](Node::leave).
    pub(crate) fn plug(self, hotplug: &M::Hotplug) -> Result<Node<M>, (Refusal, Option<Node<M>>)> {
        let Self { memory, rest } = self;
        let memory = memory.add(hotplug).map_err(|refusal| (refusal, None))?;
        let online = memory.online(hotplug);
        let node = Node {
            memory: Memory::Present(memory),
            rest: ManuallyDrop::new(rest),
        };
        match online {
            Ok(()) => Ok(node),
            Err(refusal) => Err((refusal, Some(node))),
        }
    }
}

/// What keeps a [`Node`] from being undone.
enum Memory<M: Machine> {
    /// Its memory is there.
    Present(M::Present),
    /// The memory has gone, what tasks left there could not be erased.
    Unerased(M::Absent),
}

/// A node of a device's memory.
///
/// It stands on all that is in `rest`, which is therefore not dropped with it: only [`Bare`] drops
/// that, and it takes memory that is [absent](parts::Absent) to make one.
#[must_use = "a node that has memory has to leave"]
pub(crate) struct Node<M: Machine> {
    memory: Memory<M>,
    rest: ManuallyDrop<Rest<M>>,
}

impl<M: Machine> Node<M> {
    /// Has the node its memory?
    pub(crate) fn is_plugged(&self) -> bool {
        matches!(self.memory, Memory::Present(_))
    }

    /// Lets tasks name the node, unless its driver does not want that now.
    pub(crate) fn open(&mut self) {
        if self.is_plugged() && !self.rest.frozen {
            self.rest.used = true;
            self.rest.published.set_nameable(true);
        }
    }

    /// Closes the node until its driver says otherwise, or opens it again.
    pub(crate) fn set_frozen(&mut self, frozen: bool) {
        self.rest.frozen = frozen;
        if frozen {
            self.close();
        } else {
            self.open();
        }
    }

    /// Lets no task name the node any more. Who has named it keeps the pages.
    pub(crate) fn close(&mut self) {
        self.rest.published.set_nameable(false);
    }

    /// Takes the module and the device of the driver that adopts the node in place of those that
    /// left it.
    ///
    /// # Safety
    ///
    /// `owner` and `dev` must be null or valid.
    pub(crate) unsafe fn change_owner(
        &mut self,
        owner: *mut bindings::module,
        dev: *mut bindings::device,
    ) -> Result<(), Refusal> {
        // SAFETY: By the safety requirements.
        let owner = unsafe { M::Owner::pin(owner) }?;
        // SAFETY: By the safety requirements; fields are dropped in their order.
        let device = unsafe { Rest::<M>::hold(dev, &self.rest.region) }?;
        // SAFETY: By the safety requirements.
        unsafe { self.rest.dir.set_device(dev) }?;
        self.rest.device = device;
        self.rest._owner = Some(owner);
        self.rest.disowned = false;
        self.rest.frozen = false;
        Ok(())
    }

    /// Can its memory be read?
    pub(crate) fn answers(&self) -> bool {
        self.rest.answers()
    }

    /// Is there nothing behind its pages any more?
    pub(crate) fn is_lost(&self) -> bool {
        self.rest.is_lost
    }

    /// Does something still refer to pages of a node that is lost?
    pub(crate) fn is_held(&self) -> bool {
        match &self.memory {
            Memory::Present(present) => present.is_held(),
            Memory::Unerased(_) => false,
        }
    }

    /// No code of the driver is needed for what is left of the node.
    pub(crate) fn let_go_of_owner(&mut self) {
        self.disown();
        self.rest._owner = None;
    }

    /// The driver has gone: no device is shown any more. Returns whether that is news.
    pub(crate) fn disown(&mut self) -> bool {
        // SAFETY: There is no device to be valid. Removing the link cannot fail.
        let _ = unsafe { self.rest.dir.set_device(core::ptr::null_mut()) };
        !core::mem::replace(&mut self.rest.disowned, true)
    }

    /// Sends a uevent.
    pub(crate) fn announce(&self, event: Event) {
        self.rest.dir.announce(event);
    }

    /// Shows the state in sysfs.
    pub(crate) fn show(&self, state: &'static CStr) {
        // Of what is unerased only leaving is left to do.
        self.rest.dir.set_state(match self.memory {
            Memory::Present(_) if self.rest.frozen && state == c"online" => c"frozen",
            Memory::Present(_) => state,
            Memory::Unerased(_) => c"unerased",
        });
    }

    /// Is this the directory of the node?
    pub(crate) fn has_dir(&self, dir: *const bindings::cdm_dir) -> bool {
        self.rest.dir.is(dir)
    }

    /// The pages that are out of use for good.
    pub(crate) fn bad_pages(&self) -> &M::BadPages {
        &self.rest.bad_pages
    }

    /// Who uses pages of the node.
    pub(crate) fn users(&self) -> Users {
        let mut users = match self.memory {
            Memory::Present(_) => self.rest.region.users(),
            Memory::Unerased(_) => Users::default(),
        };
        users.bad = self.rest.bad_pages.count();
        users
    }

    /// Takes the node down, or gives it back.
    ///
    /// `driver_learns` if its driver is told that the node has gone, and can keep its promise to
    /// erase the memory. In all other cases this does.
    ///
    /// Sleeps for about `timeout_ms` from when it has the right to change the machine's memory.
    pub(crate) fn leave(
        mut self,
        timeout_ms: u32,
        driver_learns: bool,
    ) -> Result<(), (Self, Obstacle)> {
        self.close();
        let Self { memory, rest } = self;

        let memory = match memory {
            Memory::Unerased(absent) => absent,
            Memory::Present(present) => match present.remove(timeout_ms) {
                Ok(absent) => absent,
                Err((present, obstacle)) => {
                    let memory = Memory::Present(present);
                    return Err((Self { memory, rest }, obstacle));
                }
            },
        };
        if rest.used && !(rest.driver_scrubs && driver_learns) {
            // It may have been torn out while pages moved.
            let erased = match rest.answers() {
                true => rest.region.erase(&rest.bad_pages),
                false => Err(ENODEV),
            };
            if let Err(error) = erased {
                let memory = Memory::Unerased(memory);
                return Err((Self { memory, rest }, Obstacle::NotErased(error)));
            }
        }

        drop(Bare::<M> {
            memory,
            rest: ManuallyDrop::into_inner(rest),
        });
        Ok(())
    }

    /// Takes down a node whose device goes, as far as that is possible without a loss.
    ///
    /// Sleeps for about as long as a node may take to leave.
    pub(crate) fn evacuate(mut self) -> Result<(), Self> {
        self.close();
        let Self { memory, rest } = self;

        let memory = match memory {
            Memory::Unerased(absent) => absent,
            Memory::Present(present) => match present.evacuate() {
                Ok(absent) => absent,
                Err(present) => {
                    let memory = Memory::Present(present);
                    return Err(Self { memory, rest });
                }
            },
        };
        // Whoever gets the device next. There is no second attempt: it goes.
        if rest.used && rest.answers() && rest.region.erase(&rest.bad_pages).is_err() {
            pr_warn!("the memory of a device that goes could not be erased\n");
        }
        drop(Bare::<M> {
            memory,
            rest: ManuallyDrop::into_inner(rest),
        });
        Ok(())
    }

    /// Takes down a node whose content is lost, or as much of it as nothing refers to.
    ///
    /// Nothing is read, moved or erased. Sleeps for about as long as a node may take to leave.
    pub(crate) fn lose(mut self) -> Result<Lost, (Self, Lost)> {
        let is_news = !core::mem::replace(&mut self.rest.is_lost, true);

        self.close();
        self.rest.bad_pages.ignore();
        self.rest.published.mark_gone();
        let Self { memory, rest } = self;
        let result = match memory {
            Memory::Unerased(absent) => Ok((absent, Lost::default())),
            Memory::Present(present) => present.lose(),
        };
        let (Ok((_, lost)) | Err((_, lost))) = &result;
        if is_news && !lost.is_nothing() {
            rest.dir.announce(Event::Lost);
        }
        match result {
            Ok((memory, lost)) => {
                drop(Bare::<M> {
                    memory,
                    rest: ManuallyDrop::into_inner(rest),
                });
                Ok(lost)
            }
            Err((present, lost)) => {
                let memory = Memory::Present(present);
                Err((Self { memory, rest }, lost))
            }
        }
    }
}
