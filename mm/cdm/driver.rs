// SPDX-License-Identifier: GPL-2.0

//! What a driver is told of its node.

use kernel::{
    bindings,
    prelude::*,
    sync::global_lock, //
};

global_lock! {
    // SAFETY: `init` is called before there is a node.
    unsafe(uninit) static CALLING: Mutex<()> = ();
}

/// Makes this usable.
///
/// # Safety
///
/// Must be called once, before anything else here is used.
pub(crate) unsafe fn init() {
    // SAFETY: This is called once.
    unsafe { CALLING.init() };
}

/// A driver that can be called.
///
/// # Invariants
///
/// `ops` is null or valid, and its functions may be called with `data`, until
/// [`wait_for_calls`] after the last place that has this value has got another one.
#[derive(Clone, Copy)]
pub(crate) struct Driver {
    ops: *const bindings::cdm_node_ops,
    data: *mut c_void,
}

// SAFETY: The driver's functions may be called from any task.
unsafe impl Send for Driver {}

impl Driver {
    /// Nobody.
    pub(crate) const NONE: Self = Self {
        ops: core::ptr::null(),
        data: core::ptr::null_mut(),
    };

    /// The driver that registers a node.
    ///
    /// # Safety
    ///
    /// What the type promises of `config.ops` and `config.data` must hold.
    pub(crate) unsafe fn new(config: &bindings::cdm_node_config) -> Self {
        // INVARIANT: By the safety requirements.
        Self {
            ops: config.ops,
            data: config.data,
        }
    }
}

/// Tells a driver that the page at `addr` is broken.
///
/// `driver` looks up who that is: it is called when nobody waits in [`wait_for_calls`] for this.
pub(crate) fn poisoned(driver: impl FnOnce() -> Driver, addr: u64) {
    let _calling = CALLING.lock();
    let driver = driver();

    // SAFETY: `ops` is null or valid by the type invariant: who changes that waits for `CALLING`.
    if let Some(poisoned) = unsafe { driver.ops.as_ref() }.and_then(|ops| ops.poisoned) {
        // SAFETY: As above.
        unsafe { poisoned(driver.data, addr) };
    }
}

/// Waits for calls that are on their way. Not for use under a lock that [`poisoned`]'s `driver`
/// takes.
pub(crate) fn wait_for_calls() {
    drop(CALLING.lock());
}
