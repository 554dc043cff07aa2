// SPDX-License-Identifier: GPL-2.0

//! All nodes, and who may ask for what.
//!
//! The lock guards the list and is held for moments. It is not held while memory comes or goes:
//! whoever works on a node takes it out of its entry, and the [`Lifecycle`] keeps others off. No
//! notifier takes it, and no show function of a file in sysfs that goes with a node.

use crate::{
    config::{
        Config,
        Refusal,
        Rules, //
    },
    driver::{
        self,
        Driver, //
    },
    lifecycle::{
        By,
        Fate,
        Leave,
        Lifecycle, //
    },
    nid::{
        self,
        Had,
        Nid, //
    },
    node::{
        Bare,
        Lost,
        Node,
        ThisMachine, //
    },
    obstacle::{
        Obstacle,
        Stays, //
    },
    parts::{
        BadPages as _,
        Machine, //
    },
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
    str::CString,
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
    /// The device, for comparison: it may have gone.
    device: usize,
    /// Whom to tell what happens to the node, while somebody holds it.
    driver: Driver,
    /// `None` while somebody works on it, and when only a driver's handle is left.
    node: Option<Node<M>>,
}

impl<M: Machine> Entry<M> {
    /// Takes a node back that could not leave. Returns what that means, and whether no driver has
    /// it.
    fn keep(&mut self, mut node: Node<M>, handle: Handle) -> (Event, bool) {
        if handle == Handle::Abandon {
            self.life.abandon();
            self.driver = Driver::NONE;
        }
        self.life.stayed();
        let is_orphan = !self.life.is_held();
        if !is_orphan {
            node.open();
        }
        node.show(self.life.name());
        let event = if is_orphan && node.disown() {
            node.announce(Event::Orphan);
            Event::Orphan
        } else {
            Event::UnregisterFailed
        };
        self.node = Some(node);
        (event, is_orphan)
    }

    /// Gives an orphan to a driver.
    ///
    /// # Safety
    ///
    /// `owner` and `dev` must be null or valid.
    unsafe fn hand_over(
        &mut self,
        driver: Driver,
        owner: *mut bindings::module,
        dev: *mut bindings::device,
    ) -> Result<(), Refusal> {
        if self.life.is_lost() {
            return Err(Refusal::StillHeld(self.nid));
        }
        // Somebody takes it away, or its memory has gone and waits to be erased.
        let Some(node) = self.node.as_mut().filter(|node| node.is_plugged()) else {
            return Err(Refusal::NidTaken(self.nid));
        };
        // SAFETY: `owner` and `dev` are null or valid.
        unsafe { node.change_owner(owner, dev) }?;
        self.life.adopt().map_err(|_| Refusal::NidTaken(self.nid))?;
        self.device = dev as usize;
        self.driver = driver;
        node.open();
        node.show(self.life.name());
        node.announce(Event::Adopt);
        Ok(())
    }
}

/// Whose node it was last: the device is known by its place on its bus, or else by the address of
/// its memory, which may be another one when it comes back.
struct Past {
    nid: Nid,
    start: u64,
    name: Option<CString>,
}

/// What the administrator has said of a device, which is known as in [`Past`].
struct Place {
    start: u64,
    name: Option<CString>,
    listed: Option<bool>,
    uncounted: Option<bool>,
}

/// Is it the same device, by the start of its memory and its name?
fn is_same_device(this: (u64, Option<&CStr>), other: (u64, Option<&CStr>)) -> bool {
    match (this.1, other.1) {
        (Some(name), Some(other)) => name == other,
        _ => this.0 == other.0,
    }
}

/// All nodes of a machine.
pub(crate) struct Registry<M: Machine> {
    entries: KVec<Entry<M>>,
    past: KVec<Past>,
    places: KVec<Place>,
    /// For devices of which nothing else has been said.
    default: Rules,
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
            places: KVec::new(),
            default: Rules::NONE,
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

    fn had(&self, nid: Nid, start: u64, name: Option<&CStr>) -> Had {
        let Some(past) = self.past.iter().find(|past| past.nid == nid) else {
            return Had::Never;
        };
        if is_same_device((past.start, past.name.as_deref()), (start, name)) {
            Had::This
        } else {
            Had::Another
        }
    }

    /// Where is noted what was said of this device? It may have several nodes: of this memory, or
    /// else of memory that is not where it was.
    fn place(&self, start: u64, name: Option<&CStr>) -> Option<usize> {
        let is_this =
            |place: &Place| is_same_device((place.start, place.name.as_deref()), (start, name));
        let is_there = |place: &Place| {
            self.entries.iter().any(|entry| {
                entry.config.start() == place.start
                    && self.had(entry.nid, place.start, name) == Had::This
            })
        };
        let places = &self.places;

        places
            .iter()
            .position(|place| is_this(place) && place.start == start)
            .or_else(|| {
                places
                    .iter()
                    .position(|place| is_this(place) && !is_there(place))
            })
    }

    fn rules(&self, start: u64, name: Option<&CStr>) -> Rules {
        let place = self
            .place(start, name)
            .and_then(|index| self.places.get(index));
        let listed = place.and_then(|place| place.listed);
        let uncounted = place.and_then(|place| place.uncounted);

        Rules {
            listed: listed.unwrap_or(self.default.listed),
            uncounted: uncounted.unwrap_or(self.default.uncounted),
        }
    }

    /// One of these for each device that the administrator said something of.
    fn say(
        &mut self,
        start: u64,
        name: Option<CString>,
        what: impl FnOnce(&mut Place) -> Result,
    ) -> Result {
        let known = self.place(start, name.as_deref());

        if let Some(place) = known.and_then(|index| self.places.get_mut(index)) {
            place.start = start;
            what(place)
        } else {
            let mut place = Place {
                start,
                name,
                listed: None,
                uncounted: None,
            };
            self.places.reserve(1, GFP_KERNEL)?;
            what(&mut place)?;
            self.places.push(place, GFP_KERNEL)?;
            Ok(())
        }
    }

    /// [`Registry::say`] of the device that has a node.
    fn say_of(&mut self, nid: Nid, what: impl FnOnce(&mut Place) -> Result) -> Result {
        let start = self.find(nid).ok_or(ENODEV)?.config.start();
        let past = self.past.iter().find(|past| past.nid == nid);
        let name = match past.and_then(|past| past.name.as_deref()) {
            Some(name) => Some(CString::try_from(name)?),
            None => None,
        };

        self.say(start, name, what)
    }

    /// One of these for each node at most, so this does not grow for ever.
    fn remember(&mut self, nid: Nid, start: u64, name: Option<&CStr>) -> Result {
        let name = match name {
            Some(name) => Some(CString::try_from(name)?),
            None => None,
        };
        if let Some(past) = self.past.iter_mut().find(|past| past.nid == nid) {
            past.start = start;
            past.name = name;
        } else {
            self.past.push(Past { nid, start, name }, GFP_KERNEL)?;
        }
        Ok(())
    }
}

/// An entry that has no node yet, and goes if it does not get one.
struct Slot<M: Machine> {
    nid: Nid,
    rules: Rules,
    _machine: PhantomData<M>,
}

impl<M: Machine> Slot<M> {
    /// Takes a node id for a range that nobody has.
    ///
    /// `_hotplug` keeps what is known about the node ids true.
    ///
    /// # Safety
    ///
    /// `dev` must be null or valid.
    unsafe fn reserve(
        config: &Config,
        driver: Driver,
        dev: *const bindings::device,
        _hotplug: &M::Hotplug,
    ) -> Result<Self, Refusal> {
        // SAFETY: `dev` is null or valid.
        let name = unsafe { name_of(dev) };
        let expected = M::expected_nid(config.start());

        let mut registry = M::nodes();
        if let Some(other) = registry
            .entries
            .iter()
            .find(|entry| entry.config.overlaps(config))
        {
            return Err(if other.life.is_lost() {
                Refusal::StillHeld(other.nid)
            } else {
                Refusal::Overlap(other.nid)
            });
        }
        let had = |nid| registry.had(nid, config.start(), name);
        // The number stays the device's.
        if let Some(lost) = registry
            .entries
            .iter()
            .find(|entry| entry.life.is_lost() && had(entry.nid) == Had::This)
        {
            return Err(Refusal::StillHeld(lost.nid));
        }
        let is_taken = |nid| registry.is_taken(nid);
        let nid = nid::choose(
            config.nid(),
            config.wish(),
            expected,
            M::facts,
            is_taken,
            had,
        )?;
        let denied = config
            .wish()
            .and_then(|wish| nid::obstacle(wish, M::facts, is_taken));
        if let Some(obstacle) = denied {
            let name = name.unwrap_or(c"a driver");
            pr_warn!("{}: {}: node {} instead\n", name, obstacle, nid);
        }
        registry
            .remember(nid, config.start(), name)
            .map_err(|error| Refusal::Failed("an allocation", error))?;
        registry
            .entries
            .push(
                Entry {
                    nid,
                    config: *config,
                    life: Lifecycle::new(),
                    device: dev as usize,
                    driver,
                    node: None,
                },
                GFP_KERNEL,
            )
            .map_err(|error| Refusal::Failed("an allocation", error.into()))?;
        Ok(Self {
            nid,
            rules: registry.rules(config.start(), name),
            _machine: PhantomData,
        })
    }

    /// Gives the entry its node.
    fn fill(self, mut node: Node<M>, is_orphan: bool) {
        if let Some(entry) = M::nodes().find(self.nid) {
            entry.life.registered();
            let event = if is_orphan {
                entry.life.abandon();
                entry.driver = Driver::NONE;
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
        M::nodes().forget(self.nid);
    }
}

/// The name of a device.
///
/// # Safety
///
/// `dev` must be null or valid, for as long as the name is used.
unsafe fn name_of<'a>(dev: *const bindings::device) -> Option<&'a CStr> {
    if dev.is_null() {
        return None;
    }
    // SAFETY: `dev` is valid.
    Some(unsafe { device::Device::<device::Normal>::from_raw(dev.cast_mut()) }.name())
}

/// Registers a device's memory.
///
/// # Safety
///
/// - `raw.owner` and `raw.dev` must be null or valid, and `raw.bad_pages` null or valid for reads
///   of `raw.nr_bad_pages` addresses.
/// - `raw.ops` must be null or valid, and its functions may be called with `raw.data`, until the
///   node has been unregistered or released.
/// - The range must be memory of the caller's device.
pub(crate) unsafe fn register<M: Machine>(raw: &bindings::cdm_node_config) -> Result<Nid, Refusal> {
    // SAFETY: `dev` is null or valid.
    let name = unsafe { name_of(raw.dev) }.unwrap_or(c"a driver");

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
    let bad_pages: &[u64] = if raw.bad_pages.is_null() {
        &[]
    } else {
        // SAFETY: What `raw` points to is valid for reads.
        unsafe { core::slice::from_raw_parts(raw.bad_pages, raw.nr_bad_pages as usize) }
    };
    config.check_bad_pages(bad_pages)?;

    if !M::is_write_back(&config) {
        return Err(Refusal::NotWriteBack);
    }

    // SAFETY: `dev` is null or valid, and nothing is locked.
    unsafe { M::watch_bus(raw.dev) }?;
    // SAFETY: By the safety requirements.
    let driver = unsafe { Driver::new(raw) };

    let hotplug = M::lock_hotplug()?;
    // SAFETY: `owner` and `dev` are null or valid.
    if let Some(nid) = unsafe { adopt::<M>(&config, driver, raw.owner, raw.dev) }? {
        report_adoption(nid, &config, name);
        drop(hotplug);
        M::retire(bad_pages);
        return Ok(nid);
    }

    // SAFETY: `dev` is null or valid.
    let slot = unsafe { Slot::<M>::reserve(&config, driver, raw.dev, &hotplug) }?;
    let nid = slot.nid;
    let rules = slot.rules;
    let state = Lifecycle::new().name();
    let bare =
        // SAFETY: `owner` and `dev` are null or valid.
        unsafe { Bare::<M>::prepare(nid, &config, bad_pages, rules, raw.owner, raw.dev, state) }?;

    let node = match bare.plug(&hotplug) {
        Ok(node) => node,
        Err((refusal, node)) => {
            drop(hotplug);
            let left = node.map(|node| node.leave(M::leave_timeout_ms(), false));
            if let Some(Err((node, obstacle))) = left {
                pr_err!(
                    "node{}: could not be completed, and not be undone: {}: orphaned\n",
                    nid,
                    obstacle
                );
                let cause = "could not be completed, and not be undone";
                let error = obstacle.errno();
                trace::failure(nid.as_raw(), Event::Orphan, &config.traced(), error, cause);
                slot.fill(node, true);
                driver::wait_for_calls();
            }
            return Err(refusal);
        }
    };

    M::show_attrs(nid, &hotplug);
    let nr_bad_pages = node.bad_pages().count();
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
    if nr_bad_pages != 0 {
        pr_info!(
            "node{}: {} pages are broken, and stay out of use\n",
            nid,
            nr_bad_pages
        );
    }
    Ok(nid)
}

fn report_adoption(nid: Nid, config: &Config, name: &CStr) {
    trace::node(nid.as_raw(), Event::Adopt, &config.traced());
    pr_info!("node{}: {} has taken it over\n", nid, name);
}

/// Gives an orphan back to its driver, which does not know how it was registered, and writes that
/// to `raw`.
///
/// # Safety
///
/// - `raw.owner` and `raw.dev` must be null or valid, and `raw.ops` as in [`register`].
/// - The range must be memory of the caller's device.
pub(crate) unsafe fn take_back<M: Machine>(raw: &mut bindings::cdm_node_config) -> Result {
    if !M::is_ready() {
        return Err(ENOENT);
    }
    // SAFETY: `dev` is null or valid, and nothing is locked.
    unsafe { M::watch_bus(raw.dev) }.map_err(|refusal| refusal.errno())?;
    // SAFETY: By the safety requirements.
    let driver = unsafe { Driver::new(raw) };
    let _hotplug = M::lock_hotplug().map_err(|refusal| refusal.errno())?;

    let mut registry = M::nodes();
    let entry = registry
        .entries
        .iter_mut()
        .find(|entry| {
            !entry.life.is_held()
                && (entry.config.start(), entry.config.size()) == (raw.start, raw.size)
        })
        .ok_or(ENOENT)?;
    // SAFETY: `owner` and `dev` are null or valid.
    unsafe { entry.hand_over(driver, raw.owner, raw.dev) }.map_err(|refusal| refusal.errno())?;
    let (nid, config) = (entry.nid, entry.config);
    drop(registry);

    raw.nid = nid.as_raw();
    raw.allow = config.caps().bits();
    raw.flags = config.flags();
    // SAFETY: `dev` is null or valid.
    let name = unsafe { name_of(raw.dev) }.unwrap_or(c"a driver");
    report_adoption(nid, &config, name);
    Ok(())
}

/// Gives an orphan back to a driver that registers the same memory in the same way.
///
/// # Safety
///
/// `owner` and `dev` must be null or valid.
unsafe fn adopt<M: Machine>(
    config: &Config,
    driver: Driver,
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
    let is_other =
        !entry.config.promises_the_same(config) || config.nid().is_some_and(|wanted| wanted != nid);
    if is_other && !entry.life.is_lost() {
        return Err(Refusal::OrphanDiffers(nid));
    }
    // SAFETY: `owner` and `dev` are null or valid.
    unsafe { entry.hand_over(driver, owner, dev) }?;
    Ok(Some(nid))
}

/// Has the driver a node with memory?
pub(crate) fn is_up<M: Machine>(nid: Nid) -> bool {
    M::is_ready() && M::nodes().find(nid).is_some_and(|entry| entry.life.is_up())
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
            // The core looks now and then, and mostly in vain.
            let is_told = !matches!(by, By::Core | By::Sleep);
            if let Some(node) = entry.node.as_ref().filter(|_| is_told) {
                node.show(entry.life.name());
            }
            Ok(entry.node.take())
        }
    }
}

/// What a driver does about a node that stays.
#[derive(Clone, Copy, PartialEq)]
enum Handle {
    Keep,
    Abandon,
}

/// How an attempt to take a node away has ended.
enum Outcome<M: Machine> {
    Gone(Option<Lost>),
    Stayed(Node<M>, Obstacle),
    Lost(Node<M>, Lost),
}

impl<M: Machine> Outcome<M> {
    fn of_leaving(node: Node<M>, by: By, driver_learns: bool) -> Self {
        if by == By::Loss || node.is_lost() || !node.answers() {
            return Self::of_losing(node);
        }
        if by == By::Device {
            return match node.evacuate() {
                Ok(()) => Self::Gone(None),
                Err(node) => Self::of_losing(node),
            };
        }
        match node.leave(M::leave_timeout_ms(), driver_learns) {
            Ok(()) => Self::Gone(None),
            Err((node, obstacle)) => Self::Stayed(node, obstacle),
        }
    }

    fn of_losing(node: Node<M>) -> Self {
        match node.lose() {
            Ok(lost) => Self::Gone(Some(lost)),
            Err((node, lost)) => Self::Lost(node, lost),
        }
    }
}

/// Says once that the content of a node is lost.
fn report_lost(nid: Nid, by: By, memory: &trace::Memory, lost: &Lost) {
    let cause = match by {
        By::Device => "its device has gone",
        By::Loss => "its content is lost",
        By::Driver | By::Admin | By::Core | By::Sleep => "its device does not answer",
    };

    if lost.is_nothing() {
        return;
    }
    trace::node(nid.as_raw(), Event::Lost, memory);
    pr_err!("node{}: {}: {}\n", nid, cause, lost);
}

fn try_leave<M: Machine>(nid: Nid, node: Node<M>, by: By, handle: Handle) -> Result {
    let asker = M::asker(by);
    // Whoever abandons the node gets no answer, and others do not ask for the driver.
    let driver_learns = by == By::Driver && handle == Handle::Keep;
    let is_news = !node.is_lost();
    let mut outcome = Outcome::of_leaving(node, by, driver_learns);

    loop {
        let mut registry = M::nodes();
        // Nobody removes an entry whose node is leaving.
        let entry = registry.find(nid).ok_or(ENODEV)?;
        let memory = entry.config.traced();

        let (node, obstacle) = match outcome {
            Outcome::Gone(lost) => {
                if entry.life.gone(by) == Fate::Forget {
                    registry.forget(nid);
                } else {
                    entry.device = 0;
                }
                drop(registry);
                if let Some(lost) = lost.filter(|_| is_news) {
                    report_lost(nid, by, &memory, &lost);
                }
                trace::node(nid.as_raw(), Event::Unregister, &memory);
                pr_info!("node{}: has gone, asked by {}\n", nid, asker);
                return Ok(());
            }
            Outcome::Lost(mut node, lost) => {
                entry.life.lost();
                entry.device = 0;
                entry.driver = Driver::NONE;
                node.let_go_of_owner();
                node.show(entry.life.name());
                entry.node = Some(node);
                drop(registry);
                driver::wait_for_calls();
                if is_news {
                    report_lost(nid, by, &memory, &lost);
                }
                M::retry_later();
                return Err(EBUSY);
            }
            Outcome::Stayed(node, obstacle) => (node, obstacle),
        };

        // Counting is slow, and the node is still this function's alone.
        drop(registry);
        let users = node.users();

        let mut registry = M::nodes();
        let entry = registry.find(nid).ok_or(ENODEV)?;
        if entry.life.is_doomed() {
            drop(registry);
            outcome = Outcome::of_losing(node);
            continue;
        }
        let (event, is_orphan) = entry.keep(node, handle);
        drop(registry);

        if handle == Handle::Abandon {
            driver::wait_for_calls();
        }

        let error = obstacle.errno();
        let cause = Stays(&obstacle, &users);
        trace::failure(nid.as_raw(), event, &memory, error, &cause);
        if is_orphan {
            pr_err!(
                "node{}: could not leave, orphaned: {}; asked by {}; write unplugged to its state to try again\n",
                nid,
                cause,
                asker
            );
        } else {
            pr_warn!("node{}: cannot leave: {}; asked by {}\n", nid, cause, asker);
        }
        return Err(error);
    }
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
    leave_for_good::<M>(nid, By::Driver, || abandon::<M>(nid));
}

/// Takes a node away whose content is lost, as its driver says.
pub(crate) fn lost<M: Machine>(nid: Nid) {
    leave_for_good::<M>(nid, By::Loss, || doom::<M>(nid) && abandon::<M>(nid));
}

/// Lets nobody get pages on a node for a while, or lets them again, as its driver says.
pub(crate) fn set_frozen<M: Machine>(nid: Nid, frozen: bool) -> Result {
    if !M::is_ready() {
        return Err(ENODEV);
    }
    let mut registry = M::nodes();
    let entry = registry.find(nid).ok_or(ENODEV)?;
    if !entry.life.is_held() {
        return Err(ENODEV);
    }
    // Somebody is taking it away, or has.
    let node = entry.node.as_mut().ok_or(EBUSY)?;
    node.set_frozen(frozen);
    node.show(entry.life.name());
    Ok(())
}

/// Takes away the nodes of a device that goes.
pub(crate) fn device_gone<M: Machine>(dev: *const bindings::device) {
    if !M::is_ready() || dev.is_null() {
        return;
    }
    loop {
        let mut registry = M::nodes();
        let device = dev as usize;
        let Some(entry) = registry
            .entries
            .iter_mut()
            .find(|entry| entry.device == device)
        else {
            return;
        };
        // So that it is not found again, whatever comes of it.
        entry.device = 0;
        let nid = entry.nid;
        drop(registry);
        leave_for_good::<M>(nid, By::Device, || doom::<M>(nid));
    }
}

/// Tries again to take away what was lost. Returns whether something is left.
pub(crate) fn retry<M: Machine>() -> bool {
    let mut is_left = false;

    for nid in Nid::all() {
        let Ok(Some(node)) = begin_leave::<M>(nid, By::Core, core::ptr::null()) else {
            continue;
        };
        if !node.is_held() {
            is_left |= try_leave(nid, node, By::Core, Handle::Keep).is_err();
        } else if let Some(entry) = M::nodes().find(nid) {
            is_left = true;
            entry.life.lost();
            entry.node = Some(node);
        }
    }
    is_left
}

/// May the machine sleep? Not while there is something on a node.
pub(crate) fn may_sleep<M: Machine>() -> Result {
    for nid in Nid::all() {
        match begin_leave::<M>(nid, By::Sleep, core::ptr::null()) {
            Ok(Some(node)) => may_sleep_with(nid, node)?,
            // Sooner or later it is one or the other.
            Err(EBUSY) => {
                pr_warn!("node{}: comes or goes: the machine cannot sleep\n", nid);
                return Err(EBUSY);
            }
            Ok(None) | Err(_) => {}
        }
    }
    Ok(())
}

/// Looks at a node, which has been taken out, and puts it back.
fn may_sleep_with<M: Machine>(nid: Nid, node: Node<M>) -> Result {
    let users = node.users();

    let mut registry = M::nodes();
    // Nobody removes an entry whose node is leaving.
    let entry = registry.find(nid).ok_or(ENODEV)?;
    if entry.life.is_doomed() {
        drop(registry);
        return try_leave(nid, node, By::Device, Handle::Keep);
    }
    entry.life.stayed();
    entry.node = Some(node);
    drop(registry);

    if users.pages() > 0 {
        pr_warn!("node{}: the machine cannot sleep: {}\n", nid, users);
        return Err(EBUSY);
    }
    Ok(())
}

/// Takes a node away, whatever becomes of it. While somebody else is at it this waits for him, and
/// in the end tells him, by `give_up`, what to do with a node that stays; `false` if there is
/// nobody.
fn leave_for_good<M: Machine>(nid: Nid, by: By, give_up: impl Fn() -> bool) {
    const STEP_MS: u32 = 10;

    let mut patience_ms = M::leave_timeout_ms().saturating_mul(2);

    loop {
        match begin_leave::<M>(nid, by, core::ptr::null()) {
            Ok(Some(node)) => {
                // What became of it is in the log.
                let _ = try_leave(nid, node, by, Handle::Abandon);
                return;
            }
            Err(EBUSY) if patience_ms == 0 => {
                if give_up() {
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
            entry.driver = Driver::NONE;
        }
        _ => return false,
    }
    driver::wait_for_calls();
    true
}

/// Says whether a cpuset must list the node for a task to name it: of this device, for as long as
/// the machine runs.
pub(crate) fn set_listed<M: Machine>(nid: Nid, listed: bool) -> Result {
    if !M::is_ready() {
        return Err(ENODEV);
    }
    let mut registry = M::nodes();
    registry.say_of(nid, |place| {
        place.listed = Some(listed);
        Ok(())
    })?;
    // The entry, and so the node's number, stays as long as the lock is held.
    M::set_listed(nid, listed);
    Ok(())
}

/// Says whether memcg leaves the node's pages out of what it counts: of this device, for as long
/// as the machine runs. Only while there are none.
pub(crate) fn set_uncounted<M: Machine>(nid: Nid, uncounted: bool) -> Result {
    if !M::is_ready() {
        return Err(ENODEV);
    }
    let mut registry = M::nodes();
    registry.say_of(nid, |place| {
        // The entry, and so the node's number, stays as long as the lock is held.
        M::set_uncounted(nid, uncounted)?;
        place.uncounted = Some(uncounted);
        Ok(())
    })
}

/// Changes what holds for devices of which nothing has been said, from the next one that comes.
pub(crate) fn change_default<M: Machine>(what: impl FnOnce(&mut Rules)) {
    if M::is_ready() {
        what(&mut M::nodes().default);
    }
}

/// Tells whoever is taking a node away that it cannot stay.
fn doom<M: Machine>(nid: Nid) -> bool {
    match M::nodes().find(nid) {
        Some(entry) if entry.life.is_busy() => {
            entry.life.doom();
            true
        }
        _ => false,
    }
}

/// What holds for devices of which nothing has been said.
pub(crate) fn default<M: Machine>() -> Rules {
    if M::is_ready() {
        M::nodes().default
    } else {
        Rules::NONE
    }
}

/// Is there, as far as is known, nothing behind the pages of a node?
pub(crate) fn is_gone<M: Machine>(nid: Nid) -> bool {
    let mut registry = M::nodes();
    // Who works on it is told by the node that its content is lost.
    let node = registry.find(nid).and_then(|entry| entry.node.as_ref());

    node.is_some_and(|node| node.is_lost() || !node.answers())
}

/// Tells the driver of a node that the page at `addr` is broken.
pub(crate) fn poisoned<M: Machine>(nid: Nid, addr: u64) {
    let driver = || {
        M::nodes()
            .find(nid)
            .map_or(Driver::NONE, |entry| entry.driver)
    };
    driver::poisoned(driver, addr);
}

/// Shows the addresses of a node's broken pages, each with its index. Returns how many there are.
pub(crate) fn bad_pages<M: Machine>(nid: Nid, mut show: impl FnMut(usize, u64)) -> Result<usize> {
    if !M::is_ready() {
        return Err(ENODEV);
    }
    let mut registry = M::nodes();
    let entry = registry.find(nid).ok_or(ENODEV)?;
    let pages = entry.node.as_ref().ok_or(EBUSY)?.bad_pages();
    let mut nr = 0;

    pages.for_each(|addr| {
        show(nr, addr);
        nr += 1;
    });
    Ok(nr)
}

#[cfg(CONFIG_CDM_KUNIT_TEST)]
#[kunit_tests(cdm_places)]
mod tests {
    use super::*;
    use crate::fake::{
        Fake,
        MIB, //
    };

    const START: u64 = 1 << 32;
    const OTHER: u64 = START + 512 * MIB;

    #[test]
    fn what_was_said_goes_with_the_device() -> Result {
        let mut registry = Registry::<Fake>::new();
        let one = || CString::try_from(c"one");
        registry.say(START, Some(one()?), |place| {
            place.listed = Some(true);
            Ok(())
        })?;
        assert!(registry.rules(START, Some(c"one")).listed);
        assert!(registry.rules(OTHER, Some(c"one")).listed);
        // Another one is at its address now.
        assert!(!registry.rules(START, Some(c"two")).listed);

        registry.say(OTHER, Some(one()?), |place| {
            place.listed = Some(false);
            Ok(())
        })?;
        assert!(!registry.rules(OTHER, Some(c"one")).listed);
        assert_eq!(registry.places.len(), 1);
        Ok(())
    }

    #[test]
    fn without_a_name_the_address_counts() -> Result {
        let mut registry = Registry::<Fake>::new();
        registry.say(START, None, |place| {
            place.listed = Some(true);
            Ok(())
        })?;
        assert!(registry.rules(START, None).listed);
        assert!(registry.rules(START, Some(c"one")).listed);
        assert!(!registry.rules(OTHER, None).listed);
        Ok(())
    }

    #[test]
    fn the_default_is_for_what_was_not_said() -> Result {
        let mut registry = Registry::<Fake>::new();
        registry.say(START, None, |place| {
            place.listed = Some(true);
            Ok(())
        })?;
        registry.say(OTHER, None, |place| {
            place.uncounted = Some(false);
            Ok(())
        })?;
        registry.default.uncounted = true;
        let rules = registry.rules(START, None);
        assert!(rules.listed && rules.uncounted);
        let rules = registry.rules(OTHER, None);
        assert!(!rules.listed && !rules.uncounted);
        Ok(())
    }
}
