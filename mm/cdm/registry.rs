// SPDX-License-Identifier: GPL-2.0

//! All nodes, and who may ask for what.
//!
//! The lock guards the list and is held for moments. It is not held while memory comes or goes:
//! whoever works on a node takes it out of its entry, and the [`Lifecycle`] keeps others off. No
//! notifier and no sysfs show function takes it.

use crate::{
    config::{
        Config,
        Limits,
        Refusal, //
    },
    lifecycle::{
        By,
        Fate,
        Leave,
        Lifecycle, //
    },
    nid,
    node::{
        self,
        Hotplug,
        Node, //
    },
    trace::{
        self,
        Event, //
    },
};
use kernel::{
    bindings,
    device,
    prelude::*,
    sync::{
        atomic::{
            Acquire,
            Atomic,
            Release, //
        },
        global_lock, //
    },
    time::{
        delay::fsleep,
        Delta, //
    }, //
};

/// One node.
struct Entry {
    nid: i32,
    config: Config,
    life: Lifecycle,
    /// `None` while somebody works on it, and when only a driver's handle is left.
    node: Option<Node>,
}

/// Where the memory was that a node had last.
struct Past {
    nid: i32,
    start: u64,
}

struct Registry {
    entries: KVec<Entry>,
    past: KVec<Past>,
}

global_lock! {
    // SAFETY: `init` is called before `READY` is set, without which nobody locks this.
    unsafe(uninit) static REGISTRY: Mutex<Registry> = Registry {
        entries: KVec::new(),
        past: KVec::new(),
    };
}

static READY: Atomic<bool> = Atomic::new(false);

/// Makes the registry usable.
///
/// # Safety
///
/// Must be called once.
pub(crate) unsafe fn init() {
    // SAFETY: This is called once.
    unsafe { REGISTRY.init() };
    READY.store(true, Release);
}

fn is_ready() -> bool {
    READY.load(Acquire)
}

impl Registry {
    fn find(&mut self, nid: i32) -> Option<&mut Entry> {
        self.entries.iter_mut().find(|entry| entry.nid == nid)
    }

    fn forget(&mut self, nid: i32) {
        self.entries.retain(|entry| entry.nid != nid);
    }

    fn is_taken(&self, nid: i32) -> bool {
        self.entries.iter().any(|entry| entry.nid == nid)
    }

    fn had(&self, nid: i32) -> Option<u64> {
        let past = self.past.iter().find(|past| past.nid == nid);

        past.map(|past| past.start)
    }

    /// One of these for each node at most, so this does not grow for ever.
    fn remember(&mut self, nid: i32, start: u64) -> Result {
        if let Some(past) = self.past.iter_mut().find(|past| past.nid == nid) {
            past.start = start;
        } else {
            self.past.push(Past { nid, start }, GFP_KERNEL)?;
        }
        Ok(())
    }
}

/// An entry that has no node yet, and goes if it does not get one.
struct Slot(i32);

impl Slot {
    /// Takes a node id for a range that nobody has.
    ///
    /// `_hotplug` keeps what is known about the node ids true.
    fn reserve(config: &Config, _hotplug: &Hotplug) -> Result<Self, Refusal> {
        // SAFETY: The firmware's tables do not change.
        let expected = unsafe { bindings::cdm_expected_nid(config.start()) };
        let expected = (expected != bindings::NUMA_NO_NODE).then_some(expected);

        let mut registry = REGISTRY.lock();
        if let Some(other) = registry
            .entries
            .iter()
            .find(|entry| entry.config.overlaps(config))
        {
            return Err(Refusal::Overlap(other.nid));
        }
        let nid = nid::choose(
            config.start(),
            config.nid(),
            expected,
            nid::Facts::of,
            |nid| registry.is_taken(nid),
            |nid| registry.had(nid),
        )?;
        registry
            .remember(nid, config.start())
            .map_err(|error| Refusal::Failed("an allocation", error))?;
        registry
            .entries
            .push(
                Entry {
                    nid,
                    config: *config,
                    life: Lifecycle::new(),
                    node: None,
                },
                GFP_KERNEL,
            )
            .map_err(|error| Refusal::Failed("an allocation", error.into()))?;
        Ok(Self(nid))
    }

    /// Gives the entry its node.
    fn fill(self, mut node: Node, is_orphan: bool) -> i32 {
        let nid = self.0;

        if let Some(entry) = REGISTRY.lock().find(nid) {
            entry.life.registered();
            let event = if is_orphan {
                entry.life.abandon();
                node.disown();
                Event::Orphan
            } else {
                node.open();
                Event::Register
            };
            node.show(entry.life.name());
            node.announce(event);
            entry.node = Some(node);
        }
        core::mem::forget(self);
        nid
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        REGISTRY.lock().forget(self.0);
    }
}

/// The name of the device that is registered, for the log.
///
/// # Safety
///
/// `config.dev` must be null or valid.
unsafe fn name_of(config: &bindings::cdm_node_config) -> &CStr {
    if config.dev.is_null() {
        return c"a driver";
    }
    // SAFETY: `dev` is valid.
    unsafe { device::Device::<device::Normal>::from_raw(config.dev) }.name()
}

/// Registers a device's memory.
///
/// # Safety
///
/// - `raw.owner` and `raw.dev` must be null or valid.
/// - The range must be memory of the caller's device.
pub(crate) unsafe fn register(raw: &bindings::cdm_node_config) -> Result<i32, Refusal> {
    // SAFETY: `dev` is null or valid.
    let name = unsafe { name_of(raw) };

    // SAFETY: The requirements are the same.
    match unsafe { try_register(raw, name) } {
        Ok(nid) => Ok(nid),
        Err(refusal) => {
            // Wrapping, for this is about numbers that made no sense.
            let last = raw.start.wrapping_add(raw.size).wrapping_sub(1);
            pr_err!(
                "[mem {:#x}-{:#x}] of {} is not registered: {}\n",
                raw.start,
                last,
                name,
                refusal
            );
            let memory = trace::Memory {
                start: raw.start,
                size: raw.size,
                allow: raw.allow,
            };
            trace::failure(
                raw.nid,
                Event::RegisterFailed,
                &memory,
                refusal.errno(),
                refusal,
            );
            Err(refusal)
        }
    }
}

/// # Safety
///
/// As [`register`].
unsafe fn try_register(raw: &bindings::cdm_node_config, name: &CStr) -> Result<i32, Refusal> {
    if !is_ready() {
        return Err(Refusal::TooEarly);
    }
    let config = Config::validate(raw, &Limits::of_this_machine())?;

    // SAFETY: Plain values.
    if !unsafe { bindings::cdm_range_is_write_back(config.start(), config.size()) } {
        return Err(Refusal::NotWriteBack);
    }

    let hotplug = Hotplug::lock()?;
    // SAFETY: `owner` and `dev` are null or valid.
    if let Some(nid) = unsafe { adopt(&config, raw.owner, raw.dev) }? {
        trace::node(nid, Event::Adopt, &config.traced());
        pr_info!("node{}: {} has taken it over\n", nid, name);
        return Ok(nid);
    }

    let slot = Slot::reserve(&config, &hotplug)?;
    let nid = slot.0;
    let state = Lifecycle::new().name();
    // SAFETY: `owner` and `dev` are null or valid.
    let mut node = unsafe { Node::prepare(nid, &config, raw.owner, raw.dev, state) }?;

    if let Err(refusal) = node.plug(&hotplug) {
        drop(hotplug);
        if let Err((node, error)) = node.leave() {
            pr_err!(
                "node{}: could not be completed, and not be undone ({}): orphaned\n",
                nid,
                error.to_errno()
            );
            let cause = "could not be completed, and not be undone";
            trace::failure(nid, Event::Orphan, &config.traced(), error, cause);
            slot.fill(node, true);
        }
        return Err(refusal);
    }

    node::show_attrs(nid, &hotplug);
    slot.fill(node, false);
    trace::node(nid, Event::Register, &config.traced());
    pr_info!(
        "node{}: [mem {:#x}-{:#x}] {} MiB of {}, allowed: {}\n",
        nid,
        config.start(),
        config.last(),
        config.size() >> 20,
        name,
        config.caps()
    );
    Ok(nid)
}

/// Gives an orphan back to a driver that registers the same memory in the same way.
///
/// # Safety
///
/// `owner` and `dev` must be null or valid.
unsafe fn adopt(
    config: &Config,
    owner: *mut bindings::module,
    dev: *mut bindings::device,
) -> Result<Option<i32>, Refusal> {
    let mut registry = REGISTRY.lock();
    let Some(entry) = registry
        .entries
        .iter_mut()
        .find(|entry| !entry.life.is_held() && entry.config.is_same_memory(config))
    else {
        return Ok(None);
    };

    let nid = entry.nid;
    if !entry.config.promises_the_same(config) || config.nid().is_some_and(|wanted| wanted != nid) {
        return Err(Refusal::OrphanDiffers(nid));
    }
    // Somebody takes it away, or its memory has gone and waits to be erased.
    let Some(node) = entry.node.as_mut().filter(|node| node.is_plugged()) else {
        return Err(Refusal::NidTaken(nid));
    };
    // SAFETY: `owner` and `dev` are null or valid.
    unsafe { node.change_owner(owner, dev) }?;
    entry.life.adopt().map_err(|_| Refusal::NidTaken(nid))?;
    node.open();
    node.show(entry.life.name());
    node.announce(Event::Adopt);
    Ok(Some(nid))
}

/// Takes a node out of the registry to work on it; `None` if only the entry was left.
fn begin_leave(nid: i32, by: By, dir: *const bindings::cdm_dir) -> Result<Option<Node>> {
    if !is_ready() {
        return Err(ENODEV);
    }
    let mut registry = REGISTRY.lock();
    let entry = registry.find(nid).ok_or(ENODEV)?;

    // The directory that was written to may be of a node that had the same id.
    if by == By::Admin {
        let node = entry.node.as_ref().ok_or(EBUSY)?;
        if !node.has_dir(dir) {
            return Err(ENODEV);
        }
    }

    match entry.life.begin_leave(by)? {
        Leave::AlreadyGone => {
            registry.forget(nid);
            Ok(None)
        }
        Leave::Begun => {
            if let Some(node) = entry.node.as_ref() {
                node.show(entry.life.name());
            }
            Ok(entry.node.take())
        }
    }
}

/// What a driver does about a node that stays.
#[derive(PartialEq)]
enum Handle {
    Keep,
    Abandon,
}

fn try_leave(nid: i32, node: Node, by: By, handle: Handle) -> Result {
    let result = node.leave();

    let mut registry = REGISTRY.lock();
    // Nobody removes an entry whose node is leaving.
    let entry = registry.find(nid).ok_or(ENODEV)?;
    let memory = entry.config.traced();
    let (mut node, error) = match result {
        Ok(()) => {
            if entry.life.gone(by) == Fate::Forget {
                registry.forget(nid);
            }
            drop(registry);
            trace::node(nid, Event::Unregister, &memory);
            pr_info!("node{}: has gone\n", nid);
            return Ok(());
        }
        Err(stayed) => stayed,
    };

    // Counting is slow, and the node is still this function's alone.
    drop(registry);
    let users = node.users();

    let mut registry = REGISTRY.lock();
    let entry = registry.find(nid).ok_or(ENODEV)?;
    if handle == Handle::Abandon {
        entry.life.abandon();
    }
    entry.life.stayed();
    let is_orphan = !entry.life.is_held();
    if !is_orphan {
        node.open();
    }
    node.show(entry.life.name());
    let event = if is_orphan && node.disown() {
        node.announce(Event::Orphan);
        Event::Orphan
    } else {
        Event::UnregisterFailed
    };
    entry.node = Some(node);
    drop(registry);

    trace::failure(nid, event, &memory, error, &users);
    if is_orphan {
        pr_err!(
            "node{}: could not leave ({}), orphaned; write unplugged to its state to try again; {}\n",
            nid,
            error.to_errno(),
            users
        );
    } else {
        pr_warn!(
            "node{}: cannot leave ({}); {}\n",
            nid,
            error.to_errno(),
            users
        );
    }
    Err(EBUSY)
}

/// Takes a node away for its driver, or says that it stays.
pub(crate) fn unregister(nid: i32) -> Result {
    match begin_leave(nid, By::Driver, core::ptr::null())? {
        Some(node) => try_leave(nid, node, By::Driver, Handle::Keep),
        None => Ok(()),
    }
}

/// Takes a node away for the administrator, or says that it stays.
pub(crate) fn unplug(nid: i32, dir: *const bindings::cdm_dir) -> Result {
    match begin_leave(nid, By::Admin, dir)? {
        Some(node) => try_leave(nid, node, By::Admin, Handle::Keep),
        None => Ok(()),
    }
}

/// Takes a node away for a driver that goes in any case.
///
/// While the administrator is at it, this waits: when the driver is gone its device may be switched
/// off, and if the administrator fails it is the driver's turn.
pub(crate) fn release(nid: i32) {
    const STEP_MS: u32 = 10;

    // SAFETY: It reads a variable.
    let mut patience_ms = unsafe { bindings::cdm_leave_timeout() }.saturating_mul(2);

    loop {
        match begin_leave(nid, By::Driver, core::ptr::null()) {
            Ok(Some(node)) => {
                // What became of it is in the log.
                let _ = try_leave(nid, node, By::Driver, Handle::Abandon);
                return;
            }
            Err(EBUSY) if patience_ms == 0 => {
                if abandon(nid) {
                    return;
                }
            }
            Err(EBUSY) => {
                fsleep(Delta::from_millis(STEP_MS.into()));
                patience_ms = patience_ms.saturating_sub(STEP_MS);
            }
            Ok(None) | Err(_) => return,
        }
    }
}

/// Lets go of a node that somebody else is taking away, and who then decides what becomes of it.
fn abandon(nid: i32) -> bool {
    match REGISTRY.lock().find(nid) {
        Some(entry) if entry.life.is_busy() => {
            entry.life.abandon();
            true
        }
        _ => false,
    }
}
