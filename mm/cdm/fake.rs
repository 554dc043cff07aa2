// SPDX-License-Identifier: GPL-2.0

//! A machine for the tests: it notes what is asked of it, and refuses what it is told to.
//!
//! There is one, as KUnit runs one test at a time; [`reset`] makes it new.

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
    parts::{
        self,
        Machine, //
    },
    registry::Registry,
    trace::Event, //
};
use core::ops::Range;
use kernel::{
    bindings::{
        self,
        CDM_NID_HAS_CPUS,
        CDM_NID_HAS_MEMORY,
        CDM_NID_ONLINE,
        CDM_NID_POSSIBLE, //
    },
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Relaxed, //
        },
        global_lock,
        GlobalGuard, //
    }, //
};

/// A megabyte.
pub(crate) const MIB: u64 = 1 << 20;

/// Node 0 has CPUs and memory. These are possible, and are not there.
pub(crate) const FREE: Range<c_int> = 2..5;

/// What can be asked of the machine, and what undoes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Lock,
    Unlock,
    Pin,
    Unpin,
    Request,
    Unrequest,
    Publish,
    Withdraw,
    Limit,
    Unlimit,
    Register,
    Unregister,
    Create,
    Delete,
    Link,
    Prepare,
    Free,
    Add,
    Online,
    Remove,
    Erase,
    Attributes,
    Watch,
    Hold,
    LetGo,
    MarkGone,
    Evacuate,
    Lose,
    Retry,
}

impl Step {
    /// The step that this undoes.
    fn undoes(self) -> Option<Self> {
        Some(match self {
            Self::Unlock => Self::Lock,
            Self::Unpin => Self::Pin,
            Self::Unrequest => Self::Request,
            Self::Withdraw => Self::Publish,
            Self::Unlimit => Self::Limit,
            Self::Unregister => Self::Register,
            Self::Delete => Self::Create,
            Self::Free => Self::Prepare,
            Self::Remove | Self::Evacuate | Self::Lose => Self::Add,
            Self::LetGo => Self::Hold,
            _ => return None,
        })
    }
}

/// What is known about the machine, and can be changed.
pub(crate) struct State {
    steps: KVec<Step>,
    /// What has not been undone.
    standing: KVec<Step>,
    /// Steps that fail.
    pub(crate) refused: &'static [Step],
    /// What happens while memory is removed.
    pub(crate) meanwhile: Option<fn()>,
    pub(crate) is_ready: bool,
    pub(crate) is_write_back: bool,
    /// Can the memory of devices be read?
    pub(crate) answers: bool,
    /// So many pages are in use.
    pub(crate) in_use: usize,
    /// So many pages are taken from their users, and so many are held, when a node is lost.
    pub(crate) lost: (usize, usize),
    /// Of the node that was touched last.
    pub(crate) is_nameable: bool,
    /// Of the directory that was touched last.
    pub(crate) state: &'static CStr,
    /// The two, when memory was removed last.
    pub(crate) at_removal: Option<(&'static CStr, bool)>,
    /// What was announced last.
    pub(crate) event: Option<Event>,
    /// The broken pages of the node that was touched last, by their addresses.
    pub(crate) bad_pages: KVec<u64>,
    /// Are those that break from now on not remembered?
    pub(crate) ignores_poison: bool,
    /// Of the node that was touched last.
    pub(crate) rules: Rules,
    /// How long somebody has slept, in milliseconds.
    pub(crate) slept: u32,
    dirs: usize,
}

impl State {
    const fn new() -> Self {
        Self {
            steps: KVec::new(),
            standing: KVec::new(),
            refused: &[],
            meanwhile: None,
            is_ready: true,
            is_write_back: true,
            answers: true,
            in_use: 0,
            lost: (0, 0),
            is_nameable: false,
            state: c"",
            at_removal: None,
            event: None,
            bad_pages: KVec::new(),
            ignores_poison: false,
            rules: Rules::NONE,
            slept: 0,
            dirs: 0,
        }
    }

    /// Was this a step since the steps were forgotten, or asked for?
    pub(crate) fn did(&self, step: Step) -> bool {
        self.steps.contains(&step)
    }

    /// Notes a step; returns whether it is granted.
    fn note(&mut self, step: Step) -> bool {
        // A test fails if these do.
        let _ = self.steps.push(step, GFP_KERNEL);
        if self.refused.contains(&step) {
            return false;
        }
        if let Some(undone) = step.undoes() {
            if let Some(i) = self.standing.iter().rposition(|other| *other == undone) {
                let _ = self.standing.remove(i);
            }
        } else {
            let _ = self.standing.push(step, GFP_KERNEL);
        }
        true
    }
}

global_lock! {
    // SAFETY: `reset` initializes it, with which every test begins.
    pub(crate) unsafe(uninit) static STATE: Mutex<State> = State::new();
}

global_lock! {
    // SAFETY: As above.
    pub(crate) unsafe(uninit) static NODES: Mutex<Registry<Fake>> = Registry::new();
}

static IS_INITIALIZED: Atomic<bool> = Atomic::new(false);

/// Makes the machine new. Every test begins with it.
pub(crate) fn reset() {
    if !IS_INITIALIZED.load(Relaxed) {
        IS_INITIALIZED.store(true, Relaxed);
        // SAFETY: This is done once.
        unsafe { STATE.init() };
        // SAFETY: This is done once.
        unsafe { NODES.init() };
    }
    *NODES.lock() = Registry::new();
    *STATE.lock() = State::new();
}

/// The machine refuses these steps from now on, and no others.
pub(crate) fn refuse(steps: &'static [Step]) {
    STATE.lock().refused = steps;
}

/// What is known about the machine, and can be changed.
pub(crate) fn state() -> GlobalGuard<STATE> {
    STATE.lock()
}

/// Forgets what the steps were.
pub(crate) fn forget_steps() {
    STATE.lock().steps.clear();
}

/// Were these the steps since they were forgotten, or this was asked?
pub(crate) fn steps_were(steps: &[Step]) -> bool {
    let taken = core::mem::take(&mut STATE.lock().steps);

    if taken.as_slice() != steps {
        pr_err!("steps: {:?}\n", taken.as_slice());
    }
    taken.as_slice() == steps
}

/// How many parts of nodes are there?
pub(crate) fn parts() -> usize {
    let is_part = |step: &&Step| {
        use Step::*;
        matches!(
            step,
            Lock | Pin | Request | Publish | Limit | Register | Create | Prepare | Add
        )
    };

    STATE.lock().standing.iter().filter(is_part).count()
}

fn note(step: Step) {
    STATE.lock().note(step);
}

fn ask(step: Step) -> Result {
    if STATE.lock().note(step) {
        Ok(())
    } else {
        Err(EIO)
    }
}

fn ask_for(step: Step, what: &'static str) -> Result<(), Refusal> {
    ask(step).map_err(|error| Refusal::Failed(what, error))
}

/// See the module.
pub(crate) struct Fake;

impl Machine for Fake {
    type Nodes = NODES;
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
        STATE.lock().is_ready
    }

    fn nodes() -> GlobalGuard<NODES> {
        NODES.lock()
    }

    fn limits() -> Limits {
        Limits {
            block: 128 * MIB,
            first: 0,
            last: (1 << 40) - 1,
        }
    }

    fn is_write_back(_config: &Config) -> bool {
        STATE.lock().is_write_back
    }

    fn expected_nid(_start: u64) -> Option<Nid> {
        None
    }

    fn facts(nid: Nid) -> Facts {
        Facts(match nid.as_raw() {
            0 => CDM_NID_POSSIBLE | CDM_NID_ONLINE | CDM_NID_HAS_CPUS | CDM_NID_HAS_MEMORY,
            nid if FREE.contains(&nid) => CDM_NID_POSSIBLE,
            _ => 0,
        })
    }

    fn lock_hotplug() -> Result<Hotplug, Refusal> {
        ask(Step::Lock).map_err(|_| Refusal::HotplugBusy)?;
        Ok(Hotplug)
    }

    unsafe fn watch_bus(dev: *mut bindings::device) -> Result<(), Refusal> {
        if dev.is_null() {
            return Ok(());
        }
        ask_for(Step::Watch, "watching")
    }

    fn retry_later() {
        note(Step::Retry);
    }

    fn show_attrs(_nid: Nid, _hotplug: &Hotplug) {
        note(Step::Attributes);
    }

    fn set_listed(_nid: Nid, listed: bool) {
        STATE.lock().rules.listed = listed;
    }

    fn set_uncounted(_nid: Nid, uncounted: bool) -> Result {
        let mut state = STATE.lock();
        if state.in_use > 0 {
            return Err(EBUSY);
        }
        state.rules.uncounted = uncounted;
        Ok(())
    }

    fn retire(addrs: &[u64]) {
        // A test fails if this does.
        let _ = STATE.lock().bad_pages.extend_from_slice(addrs, GFP_KERNEL);
    }

    fn asker(by: By) -> Asker {
        Asker::current(by)
    }

    fn leave_timeout_ms() -> u32 {
        100
    }

    fn sleep_ms(ms: u32) {
        STATE.lock().slept += ms;
    }
}

macro_rules! undone_by {
    ($($part:ident: $step:ident),* $(,)?) => {
        $(
            impl Drop for $part {
                fn drop(&mut self) {
                    note(Step::$step);
                }
            }
        )*
    };
}

undone_by! {
    Hotplug: Unlock,
    Owner: Unpin,
    Region: Unrequest,
    Device: LetGo,
    Published: Withdraw,
    Limit: Unlimit,
    Group: Unregister,
    Dir: Delete,
    Absent: Free,
}

pub(crate) struct Hotplug;

pub(crate) struct Owner;

impl parts::Owner for Owner {
    unsafe fn pin(_module: *mut bindings::module) -> Result<Self, Refusal> {
        ask(Step::Pin).map_err(|_| Refusal::OwnerLeaving)?;
        Ok(Self)
    }
}

pub(crate) struct Region;

impl parts::Region<Fake> for Region {
    fn request(_config: &Config) -> Result<Self, Refusal> {
        ask(Step::Request).map_err(|_| Refusal::RangeBusy)?;
        Ok(Self)
    }

    fn erase(&self, _bad_pages: &BadPages) -> Result {
        ask(Step::Erase)
    }

    fn users(&self) -> Users {
        let mut users = Users::default();
        users.raw.anon = STATE.lock().in_use;
        users
    }
}

pub(crate) struct Device;

impl parts::Device<Fake> for Device {
    unsafe fn hold(_dev: *mut bindings::device, _region: &Region) -> Result<Self, Refusal> {
        ask_for(Step::Hold, "holding")?;
        Ok(Self)
    }

    fn answers(&self) -> bool {
        STATE.lock().answers
    }
}

pub(crate) struct Published;

impl parts::Published for Published {
    fn new(_nid: Nid, _config: &Config, rules: Rules) -> Result<Self, Refusal> {
        ask_for(Step::Publish, "publishing")?;
        STATE.lock().rules = rules;
        Ok(Self)
    }

    fn set_nameable(&mut self, nameable: bool) {
        STATE.lock().is_nameable = nameable;
    }

    fn mark_gone(&mut self) {
        note(Step::MarkGone);
    }
}

pub(crate) struct BadPages;

impl parts::BadPages for BadPages {
    fn prepare(_nid: Nid, _config: &Config, addrs: &[u64]) -> Result<Self, Refusal> {
        let mut fake = STATE.lock();

        fake.bad_pages.clear();
        fake.bad_pages
            .extend_from_slice(addrs, GFP_KERNEL)
            .map_err(|error| Refusal::Failed("the broken pages", error.into()))?;
        Ok(Self)
    }

    fn ignore(&self) {
        STATE.lock().ignores_poison = true;
    }

    fn count(&self) -> usize {
        STATE.lock().bad_pages.len()
    }

    fn for_each(&self, mut show: impl FnMut(u64)) {
        for addr in STATE.lock().bad_pages.iter() {
            show(*addr);
        }
    }
}

pub(crate) struct Limit;

impl parts::Limit for Limit {
    fn register(_nid: Nid, _config: &Config) -> Result<Self, Refusal> {
        ask_for(Step::Limit, "limiting")?;
        Ok(Self)
    }
}

pub(crate) struct Group;

impl parts::Group for Group {
    fn register(_nid: Nid, _config: &Config) -> Result<Self, Refusal> {
        ask_for(Step::Register, "the group")?;
        Ok(Self)
    }
}

/// Its number is its address.
pub(crate) struct Dir(usize);

/// The directory that was created so many directories ago.
pub(crate) fn dir(ago: usize) -> *const bindings::cdm_dir {
    core::ptr::without_provenance(STATE.lock().dirs.wrapping_sub(ago))
}

impl parts::Dir for Dir {
    fn create(_nid: Nid, state: &'static CStr) -> Result<Self, Refusal> {
        ask_for(Step::Create, "the directory")?;

        let mut fake = STATE.lock();
        fake.state = state;
        fake.dirs += 1;
        Ok(Self(fake.dirs))
    }

    fn set_state(&self, state: &'static CStr) {
        STATE.lock().state = state;
    }

    unsafe fn set_device(&self, _dev: *mut bindings::device) -> Result<(), Refusal> {
        ask_for(Step::Link, "the link")
    }

    fn announce(&self, event: Event) {
        STATE.lock().event = Some(event);
    }

    fn is(&self, dir: *const bindings::cdm_dir) -> bool {
        self.0 == dir.addr()
    }
}

pub(crate) struct Absent;

impl parts::Absent<Fake> for Absent {
    fn prepare(_nid: Nid, _group: &Group, _config: &Config) -> Result<Self, Refusal> {
        ask_for(Step::Prepare, "preparing")?;
        Ok(Self)
    }

    fn add(self, _hotplug: &Hotplug) -> Result<Present, Refusal> {
        ask_for(Step::Add, "adding")?;
        core::mem::forget(self);
        Ok(Present)
    }
}

pub(crate) struct Present;

impl parts::Present<Fake> for Present {
    fn online(&self, _hotplug: &Hotplug) -> Result<(), Refusal> {
        ask_for(Step::Online, "onlining")
    }

    fn remove(self, timeout_ms: u32) -> Result<Absent, (Self, Obstacle)> {
        let meanwhile = {
            let mut fake = STATE.lock();

            fake.at_removal = Some((fake.state, fake.is_nameable));
            fake.meanwhile.take()
        };
        if let Some(meanwhile) = meanwhile {
            meanwhile();
        }
        match ask(Step::Remove) {
            Ok(()) => Ok(Absent),
            Err(_) => Err((self, Obstacle::TimeUp(timeout_ms))),
        }
    }

    fn evacuate(self) -> Result<Absent, Self> {
        match ask(Step::Evacuate) {
            Ok(()) => Ok(Absent),
            Err(_) => Err(self),
        }
    }

    fn lose(self) -> Result<(Absent, Lost), (Self, Lost)> {
        let (taken, held) = STATE.lock().lost;
        let lost = Lost(bindings::cdm_lost { taken, held });

        match ask(Step::Lose) {
            Ok(()) => Ok((Absent, lost)),
            Err(_) => Err((self, lost)),
        }
    }

    fn is_held(&self) -> bool {
        STATE.lock().refused.contains(&Step::Lose)
    }
}
