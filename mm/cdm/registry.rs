// SPDX-License-Identifier: GPL-2.0

//! All nodes, and who may ask for what.
//!
//! The lock guards the list and is held for moments. It is not held while memory comes or goes:
//! whoever works on a node takes it out of its entry, and the [`Lifecycle`] keeps others off. No
//! notifier and no sysfs show function takes it.

use crate::{
    config::{
        Config,
        Refusal, //
    },
    lifecycle::{
        By,
        Fate,
        Leave,
        Lifecycle, //
    },
    nid::{
        self,
        Nid, //
    },
    node::{
        Bare,
        Node,
        ThisMachine, //
    },
    parts::Machine,
    trace::{
        self,
        Event, //
    },
};
use core::marker::PhantomData;
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
    }, //
};

/// One node.
struct Entry<M: Machine> {
    nid: Nid,
    config: Config,
    life: Lifecycle,
    /// `None` while somebody works on it, and when only a driver's handle is left.
    node: Option<Node<M>>,
}

/// Where the memory was that a node had last.
struct Past {
    nid: Nid,
    start: u64,
}

/// All nodes of a machine.
pub(crate) struct Registry<M: Machine> {
    entries: KVec<Entry<M>>,
    past: KVec<Past>,
}

global_lock! {
    // SAFETY: `init` is called before `READY` is set, without which nobody locks this.
    pub(crate) unsafe(uninit) static REGISTRY: Mutex<Registry<ThisMachine>> = Registry::new();
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

/// Has the initcall of the core run?
pub(crate) fn is_ready() -> bool {
    READY.load(Acquire)
}

impl<M: Machine> Registry<M> {
    /// None yet.
    pub(crate) const fn new() -> Self {
        Self {
            entries: KVec::new(),
            past: KVec::new(),
        }
    }

    fn find(&mut self, nid: Nid) -> Option<&mut Entry<M>> {
        self.entries.iter_mut().find(|entry| entry.nid == nid)
    }

    fn forget(&mut self, nid: Nid) {
        self.entries.retain(|entry| entry.nid != nid);
    }

    fn is_taken(&self, nid: Nid) -> bool {
        self.entries.iter().any(|entry| entry.nid == nid)
    }

    fn had(&self, nid: Nid) -> Option<u64> {
        let past = self.past.iter().find(|past| past.nid == nid);

        past.map(|past| past.start)
    }

    /// One of these for each node at most, so this does not grow for ever.
    fn remember(&mut self, nid: Nid, start: u64) -> Result {
        if let Some(past) = self.past.iter_mut().find(|past| past.nid == nid) {
            past.start = start;
        } else {
            self.past.push(Past { nid, start }, GFP_KERNEL)?;
        }
        Ok(())
    }
}

/// An entry that has no node yet, and goes if it does not get one.
struct Slot<M: Machine>(Nid, PhantomData<M>);

impl<M: Machine> Slot<M> {
    /// Takes a node id for a range that nobody has.
    ///
    /// `_hotplug` keeps what is known about the node ids true.
    fn reserve(config: &Config, _hotplug: &M::Hotplug) -> Result<Self, Refusal> {
        let expected = M::expected_nid(config.start());

        let mut registry = M::nodes();
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
            M::facts,
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
        Ok(Self(nid, PhantomData))
    }

    /// Gives the entry its node.
    fn fill(self, mut node: Node<M>, is_orphan: bool) {
        if let Some(entry) = M::nodes().find(self.0) {
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
    }
}

impl<M: Machine> Drop for Slot<M> {
    fn drop(&mut self) {
        M::nodes().forget(self.0);
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
pub(crate) unsafe fn register<M: Machine>(raw: &bindings::cdm_node_config) -> Result<Nid, Refusal> {
    // SAFETY: `dev` is null or valid.
    let name = unsafe { name_of(raw) };

    // SAFETY: The requirements are the same.
    match unsafe { try_register::<M>(raw, name) } {
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
unsafe fn try_register<M: Machine>(
    raw: &bindings::cdm_node_config,
    name: &CStr,
) -> Result<Nid, Refusal> {
    if !M::is_ready() {
        return Err(Refusal::TooEarly);
    }
    let config = Config::validate(raw, &M::limits())?;

    if !M::is_write_back(&config) {
        return Err(Refusal::NotWriteBack);
    }

    let hotplug = M::lock_hotplug()?;
    // SAFETY: `owner` and `dev` are null or valid.
    if let Some(nid) = unsafe { adopt::<M>(&config, raw.owner, raw.dev) }? {
        trace::node(nid.as_raw(), Event::Adopt, &config.traced());
        pr_info!("node{}: {} has taken it over\n", nid, name);
        return Ok(nid);
    }

    let slot = Slot::<M>::reserve(&config, &hotplug)?;
    let nid = slot.0;
    let state = Lifecycle::new().name();
    // SAFETY: `owner` and `dev` are null or valid.
    let bare = unsafe { Bare::<M>::prepare(nid, &config, raw.owner, raw.dev, state) }?;

    let node = match bare.plug(&hotplug) {
        Ok(node) => node,
        Err((refusal, node)) => {
            drop(hotplug);
            if let Some(Err((node, error))) = node.map(Node::leave) {
                pr_err!(
                    "node{}: could not be completed, and not be undone ({}): orphaned\n",
                    nid,
                    error.to_errno()
                );
                let cause = "could not be completed, and not be undone";
                trace::failure(nid.as_raw(), Event::Orphan, &config.traced(), error, cause);
                slot.fill(node, true);
            }
            return Err(refusal);
        }
    };

    M::show_attrs(nid, &hotplug);
    slot.fill(node, false);
    trace::node(nid.as_raw(), Event::Register, &config.traced());
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
unsafe fn adopt<M: Machine>(
    config: &Config,
    owner: *mut bindings::module,
    dev: *mut bindings::device,
) -> Result<Option<Nid>, Refusal> {
    let mut registry = M::nodes();
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
fn begin_leave<M: Machine>(
    nid: Nid,
    by: By,
    dir: *const bindings::cdm_dir,
) -> Result<Option<Node<M>>> {
    if !M::is_ready() {
        return Err(ENODEV);
    }
    let mut registry = M::nodes();
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

fn try_leave<M: Machine>(nid: Nid, node: Node<M>, by: By, handle: Handle) -> Result {
    let result = node.leave();

    let mut registry = M::nodes();
    // Nobody removes an entry whose node is leaving.
    let entry = registry.find(nid).ok_or(ENODEV)?;
    let memory = entry.config.traced();
    let (mut node, error) = match result {
        Ok(()) => {
            if entry.life.gone(by) == Fate::Forget {
                registry.forget(nid);
            }
            drop(registry);
            trace::node(nid.as_raw(), Event::Unregister, &memory);
            pr_info!("node{}: has gone\n", nid);
            return Ok(());
        }
        Err(stayed) => stayed,
    };

    // Counting is slow, and the node is still this function's alone.
    drop(registry);
    let users = node.users();

    let mut registry = M::nodes();
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

    trace::failure(nid.as_raw(), event, &memory, error, &users);
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
pub(crate) fn unregister<M: Machine>(nid: Nid) -> Result {
    match begin_leave::<M>(nid, By::Driver, core::ptr::null())? {
        Some(node) => try_leave(nid, node, By::Driver, Handle::Keep),
        None => Ok(()),
    }
}

/// Takes a node away for the administrator, or says that it stays.
pub(crate) fn unplug<M: Machine>(nid: Nid, dir: *const bindings::cdm_dir) -> Result {
    match begin_leave::<M>(nid, By::Admin, dir)? {
        Some(node) => try_leave(nid, node, By::Admin, Handle::Keep),
        None => Ok(()),
    }
}

/// Takes a node away for a driver that goes in any case.
///
/// While the administrator is at it, this waits: when the driver is gone its device may be switched
/// off, and if the administrator fails it is the driver's turn.
pub(crate) fn release<M: Machine>(nid: Nid) {
    const STEP_MS: u32 = 10;

    let mut patience_ms = M::leave_timeout_ms().saturating_mul(2);

    loop {
        match begin_leave::<M>(nid, By::Driver, core::ptr::null()) {
            Ok(Some(node)) => {
                // What became of it is in the log.
                let _ = try_leave(nid, node, By::Driver, Handle::Abandon);
                return;
            }
            Err(EBUSY) if patience_ms == 0 => {
                if abandon::<M>(nid) {
                    return;
                }
            }
            Err(EBUSY) => {
                M::sleep_ms(STEP_MS);
                patience_ms = patience_ms.saturating_sub(STEP_MS);
            }
            Ok(None) | Err(_) => return,
        }
    }
}

/// Lets go of a node that somebody else is taking away, and who then decides what becomes of it.
fn abandon<M: Machine>(nid: Nid) -> bool {
    match M::nodes().find(nid) {
        Some(entry) if entry.life.is_busy() => {
            entry.life.abandon();
            true
        }
        _ => false,
    }
}
