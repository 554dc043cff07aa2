// SPDX-License-Identifier: GPL-2.0

//! What C calls: the driver interface of `include/linux/cdm.h`, and `mm/cdm/glue.c`.
//!
//! `EXPORT_SYMBOL_GPL()` for the former is in `glue.c`.

use crate::registry;
use kernel::{
    bindings,
    cdm::Caps,
    error::from_result,
    fmt::Write,
    page::PAGE_SIZE,
    prelude::*,
    str::Formatter, //
};

/// Makes a device's memory a NUMA node.
///
/// # Safety
///
/// - `config` must be valid for reads, and so must what it points to.
/// - The range that it names must be memory of the caller's device.
///
/// Context: may sleep; takes `device_hotplug_lock` unless the caller holds it. Returns the node id,
/// or a negative errno with one line in the log that says why.
#[export]
unsafe extern "C" fn cdm_register_node(config: *const bindings::cdm_node_config) -> c_int {
    // SAFETY: `config` is valid for reads by the safety requirements.
    let config = unsafe { &*config };

    // SAFETY: The requirements on what `config` points to and names are the caller's.
    unsafe { registry::register(config) }.unwrap_or_else(|refusal| refusal.errno().to_errno())
}

/// Takes a node away if it can be done within the bound that
/// `/sys/kernel/mm/cdm/leave_timeout_ms` sets.
///
/// Context: may sleep. Returns 0, or `-EBUSY` and the node is live as before, or `-ENODEV` if there
/// is no such node.
///
/// # Safety
///
/// None: `nid` may be anything.
#[export]
unsafe extern "C" fn cdm_unregister_node(nid: c_int) -> c_int {
    from_result(|| registry::unregister(nid).map(|()| 0))
}

/// Takes a node away for a driver that cannot wait for it: if the one attempt fails, the node
/// belongs to the core from now on.
///
/// Context: may sleep.
///
/// # Safety
///
/// None: `nid` may be anything.
#[export]
unsafe extern "C" fn cdm_release_node(nid: c_int) {
    registry::release(nid);
}

/// Takes a node away for the administrator who wrote `unplugged` to its `state`.
///
/// # Safety
///
/// None: `nid` may be anything, and `dir` is compared, not followed.
#[export]
unsafe extern "C" fn cdm_core_unplug(nid: c_int, dir: *const bindings::cdm_dir) -> c_int {
    from_result(|| registry::unplug(nid, dir).map(|()| 0))
}

/// Writes the names of what is not denied, and a newline.
///
/// # Safety
///
/// `buf` must be valid for writes of a page: it is the buffer of a sysfs show function.
#[export]
unsafe extern "C" fn cdm_core_emit_caps(deny: u32, buf: *mut u8) -> isize {
    // SAFETY: `buf` is valid for writes of a page by the safety requirements, and nobody else has
    // it during the call.
    let buf = unsafe { core::slice::from_raw_parts_mut(buf, PAGE_SIZE) };
    let mut out = Formatter::new(buf);

    // All names together are far shorter than a page.
    match out.write_fmt(fmt!("{}\n", Caps::from_denied(deny))) {
        Ok(()) => out.bytes_written() as isize,
        Err(_) => EINVAL.to_errno() as isize,
    }
}

/// Makes the core ready for registrations.
///
/// # Safety
///
/// Must be called once.
#[export]
unsafe extern "C" fn cdm_core_init() {
    // SAFETY: The caller calls this once.
    unsafe { registry::init() };
}
