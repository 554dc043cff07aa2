// SPDX-License-Identifier: GPL-2.0

//! A node and what it is made of.
//!
//! Every part is a value whose `drop` undoes it, and [`Node`] lists them in the order in which they
//! have to go. The exception is the memory, which may refuse to leave.

use crate::{
    config::{
        Config,
        Refusal, //
    },
    trace::Event, //
};
use core::ptr::NonNull;
use kernel::{
    bindings,
    error::to_result,
    fmt,
    prelude::*,
    str::CStrExt, //
};

/// A reference to the driver's module.
struct Owner(*mut bindings::module);

impl Owner {
    /// # Safety
    ///
    /// `module` must be null or valid.
    unsafe fn pin(module: *mut bindings::module) -> Result<Self, Refusal> {
        // SAFETY: `module` is null, which means built in, or valid.
        if !unsafe { bindings::cdm_owner_get(module) } {
            return Err(Refusal::OwnerLeaving);
        }
        Ok(Self(module))
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        // SAFETY: `pin` took the reference that this gives back.
        unsafe { bindings::cdm_owner_put(self.0) };
    }
}

/// The right to change the machine's memory.
pub(crate) struct Hotplug(c_int);

impl Hotplug {
    /// Takes the lock, or borrows it from a caller who holds it.
    pub(crate) fn lock() -> Result<Self, Refusal> {
        // SAFETY: This may sleep, as every caller may.
        let how = unsafe { bindings::cdm_hotplug_lock() };
        if how < 0 {
            return Err(Refusal::HotplugBusy);
        }
        Ok(Self(how))
    }
}

impl Drop for Hotplug {
    fn drop(&mut self) {
        // SAFETY: `lock` returned this.
        unsafe { bindings::cdm_hotplug_unlock(self.0) };
    }
}

/// A range in the resource tree.
///
/// # Invariants
///
/// The pointer is from `cdm_region_request()`.
struct Region(NonNull<bindings::resource>);

impl Region {
    fn request(config: &Config) -> Result<Self, Refusal> {
        // SAFETY: Plain values; this may sleep.
        let res = unsafe { bindings::cdm_region_request(config.start(), config.size()) };

        // INVARIANT: As promised.
        NonNull::new(res).map(Self).ok_or(Refusal::RangeBusy)
    }

    /// Overwrites the range, whose memory must have been removed.
    fn erase(&self) -> Result {
        // SAFETY: By the type invariant.
        to_result(unsafe { bindings::cdm_region_erase(self.0.as_ptr()) })
    }

    /// Counts who uses the pages of the memory in the range.
    fn users(&self) -> Users {
        let mut users = bindings::cdm_users::default();
        // SAFETY: By the type invariant; `users` is valid for writes.
        unsafe { bindings::cdm_count_users(self.0.as_ptr(), &mut users) };
        Users(users)
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: By the type invariant; nothing uses it any more.
        unsafe { bindings::cdm_region_release(self.0.as_ptr()) };
    }
}

/// The node's mask, as core mm reads it.
struct Published(i32);

impl Published {
    fn new(nid: i32, config: &Config) -> Result<Self, Refusal> {
        // SAFETY: The registry gave `nid` to this node alone, and it has no page yet.
        to_result(unsafe { bindings::cdm_publish(nid, config.caps().denied()) })
            .map_err(|error| Refusal::Failed("an allocation", error))?;
        Ok(Self(nid))
    }
}

impl Drop for Published {
    fn drop(&mut self) {
        // SAFETY: `new` published it; the memory has gone, for it is dropped first.
        unsafe { bindings::cdm_withdraw(self.0) };
    }
}

/// The group of the node's memory blocks.
struct Group(c_int);

impl Group {
    fn register(nid: i32, config: &Config) -> Result<Self, Refusal> {
        let pages = config.size() >> bindings::PAGE_SHIFT;
        // SAFETY: `nid` is possible.
        let mgid = unsafe { bindings::memory_group_register_static(nid, pages as usize) };
        if mgid < 0 {
            return Err(Refusal::Failed("the memory group", Error::from_errno(mgid)));
        }
        Ok(Self(mgid))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // SAFETY: `register` returned it, and its blocks have gone with the memory. It can only
        // fail if one were left.
        unsafe { bindings::memory_group_unregister(self.0) };
    }
}

/// `/sys/kernel/mm/cdm/nodeN`.
///
/// # Invariants
///
/// The pointer is from `cdm_dir_create()`.
struct Dir(NonNull<bindings::cdm_dir>);

impl Dir {
    fn create(nid: i32, state: &'static CStr) -> Result<Self, Refusal> {
        // SAFETY: `state` lives for ever.
        let dir = unsafe { bindings::cdm_dir_create(nid, state.as_char_ptr()) };

        // INVARIANT: As promised.
        NonNull::new(dir)
            .map(Self)
            .ok_or(Refusal::Failed("the sysfs directory", ENOMEM))
    }

    fn set_state(&self, state: &'static CStr) {
        // SAFETY: By the type invariant; `state` lives for ever.
        unsafe { bindings::cdm_dir_set_state(self.0.as_ptr(), state.as_char_ptr()) };
    }

    /// # Safety
    ///
    /// `dev` must be null or valid.
    unsafe fn set_device(&self, dev: *mut bindings::device) -> Result<(), Refusal> {
        // SAFETY: By the type invariant, and the safety requirements.
        to_result(unsafe { bindings::cdm_dir_set_device(self.0.as_ptr(), dev) })
            .map_err(|error| Refusal::Failed("the link to the device", error))
    }

    fn announce(&self, event: Event) {
        // SAFETY: By the type invariant; the mask is known for as long as the directory exists.
        unsafe { bindings::cdm_dir_announce(self.0.as_ptr(), event as u32) };
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        // SAFETY: By the type invariant. Nobody drops it under the registry's lock, which who
        // writes `state` takes.
        unsafe { bindings::cdm_dir_remove(self.0.as_ptr()) };
    }
}

/// The memory of the node.
///
/// # Invariants
///
/// - The pointer is from `cdm_memory_alloc()`.
/// - If `present`, the memory has been added and not been removed.
struct Memory {
    raw: NonNull<bindings::cdm_memory>,
    present: bool,
}

impl Memory {
    fn prepare(nid: i32, group: &Group, config: &Config) -> Result<Self, Refusal> {
        // SAFETY: Plain values; this may sleep.
        let raw =
            unsafe { bindings::cdm_memory_alloc(nid, group.0, config.start(), config.size()) };

        // INVARIANT: As promised; nothing has been added.
        NonNull::new(raw)
            .map(|raw| Self {
                raw,
                present: false,
            })
            .ok_or(Refusal::Failed("an allocation", ENOMEM))
    }

    fn add(&mut self, _hotplug: &Hotplug) -> Result<(), Refusal> {
        // SAFETY: By the type invariant; `_hotplug` is the lock that it asks for.
        to_result(unsafe { bindings::cdm_memory_add(self.raw.as_ptr()) })
            .map_err(|error| Refusal::Failed("adding memory", error))?;
        // INVARIANT: It has been added.
        self.present = true;

        // SAFETY: As above.
        to_result(unsafe { bindings::cdm_memory_online(self.raw.as_ptr()) })
            .map_err(|error| Refusal::Failed("bringing memory online", error))
    }

    fn remove(&mut self) -> Result {
        if self.present {
            // SAFETY: By the type invariant.
            to_result(unsafe { bindings::cdm_memory_remove(self.raw.as_ptr()) })?;
            // INVARIANT: It has been removed.
            self.present = false;
        }
        Ok(())
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // Node::leave() and Node::plug() see to it that memory which is present is not dropped.
        if !self.present {
            // SAFETY: By the type invariant; nothing uses it any more.
            unsafe { bindings::cdm_memory_free(self.raw.as_ptr()) };
        }
    }
}

/// Sees to it that a node has its attributes in sysfs.
pub(crate) fn show_attrs(nid: i32, _hotplug: &Hotplug) {
    // SAFETY: `_hotplug` is the lock that it asks for.
    unsafe { bindings::cdm_show_attrs(nid) };
}

/// Who keeps a node from leaving, for the log.
pub(crate) struct Users(bindings::cdm_users);

impl fmt::Display for Users {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let users = &self.0;
        let pages = users.anon + users.file + users.hugetlb + users.other;
        write!(
            f,
            "{pages} pages in use: {} anonymous, {} file, {} hugetlb, {} other; {} pinned; pids",
            users.anon, users.file, users.hugetlb, users.other, users.pinned
        )?;
        if users.nr_pids == 0 {
            return f.write_str(" unknown");
        }
        for pid in users.pids.iter().take(users.nr_pids as usize) {
            write!(f, " {pid}")?;
        }
        Ok(())
    }
}

/// A node of a device's memory.
///
/// Fields go in the order of their declaration: the directory before the mask, which core mm needs
/// as long as there is a page, the range after that, and the module last, which may be the one that
/// wants to be unloaded.
pub(crate) struct Node {
    memory: Memory,
    dir: Dir,
    _group: Group,
    _published: Published,
    region: Region,
    _owner: Owner,
    nid: i32,
    /// Pages may have data in them.
    used: bool,
    driver_scrubs: bool,
    /// The driver has gone without it.
    disowned: bool,
}

// SAFETY: The pointers in it are not tied to a thread.
unsafe impl Send for Node {}

impl Node {
    /// Builds all but the memory.
    ///
    /// # Safety
    ///
    /// `owner` and `dev` must be null or valid.
    pub(crate) unsafe fn prepare(
        nid: i32,
        config: &Config,
        owner: *mut bindings::module,
        dev: *mut bindings::device,
        state: &'static CStr,
    ) -> Result<Self, Refusal> {
        // SAFETY: By the safety requirements.
        let owner = unsafe { Owner::pin(owner) }?;
        let region = Region::request(config)?;
        let published = Published::new(nid, config)?;
        let group = Group::register(nid, config)?;
        let dir = Dir::create(nid, state)?;
        // SAFETY: By the safety requirements.
        unsafe { dir.set_device(dev) }?;
        let memory = Memory::prepare(nid, &group, config)?;

        Ok(Self {
            memory,
            dir,
            _group: group,
            _published: published,
            region,
            _owner: owner,
            nid,
            used: false,
            driver_scrubs: config.driver_scrubs(),
            disowned: false,
        })
    }

    /// Adds the memory and brings it online.
    ///
    /// After an error the node may have memory and has to [`leave`](Self::leave).
    pub(crate) fn plug(&mut self, hotplug: &Hotplug) -> Result<(), Refusal> {
        self.memory.add(hotplug)
    }

    /// Has the node its memory?
    pub(crate) fn is_plugged(&self) -> bool {
        self.memory.present
    }

    /// Lets tasks name the node.
    pub(crate) fn open(&mut self) {
        if self.memory.present {
            self.used = true;
            // SAFETY: The node is complete.
            unsafe { bindings::cdm_set_nameable(self.nid, true) };
        }
    }

    /// Lets no task name the node any more. Who has named it keeps the pages.
    pub(crate) fn close(&mut self) {
        // SAFETY: `nid` is this node's.
        unsafe { bindings::cdm_set_nameable(self.nid, false) };
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
        let owner = unsafe { Owner::pin(owner) }?;
        // SAFETY: By the safety requirements.
        unsafe { self.dir.set_device(dev) }?;
        self._owner = owner;
        self.disowned = false;
        Ok(())
    }

    /// The driver has gone: no device is shown any more. Returns whether that is news.
    pub(crate) fn disown(&mut self) -> bool {
        // SAFETY: There is no device to be valid. Removing the link cannot fail.
        let _ = unsafe { self.dir.set_device(core::ptr::null_mut()) };
        !core::mem::replace(&mut self.disowned, true)
    }

    /// Sends a uevent.
    pub(crate) fn announce(&self, event: Event) {
        self.dir.announce(event);
    }

    /// Shows the state in sysfs.
    pub(crate) fn show(&self, state: &'static CStr) {
        // The memory has gone but could not be erased: only leaving is left to do.
        let state = if self.used && !self.memory.present {
            c"unerased"
        } else {
            state
        };
        self.dir.set_state(state);
    }

    /// Is this the directory of the node?
    pub(crate) fn has_dir(&self, dir: *const bindings::cdm_dir) -> bool {
        core::ptr::eq(self.dir.0.as_ptr(), dir)
    }

    /// Who uses pages of the node.
    pub(crate) fn users(&self) -> Users {
        self.region.users()
    }

    /// Takes the node down, or gives it back.
    ///
    /// Sleeps for about as long as a node may take to leave.
    pub(crate) fn leave(mut self) -> Result<(), (Self, Error)> {
        self.close();
        if let Err(error) = self.memory.remove() {
            return Err((self, error));
        }
        if self.used && !self.driver_scrubs {
            if let Err(error) = self.region.erase() {
                return Err((self, error));
            }
        }
        Ok(())
    }
}
