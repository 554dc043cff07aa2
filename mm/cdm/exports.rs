// SPDX-License-Identifier: GPL-2.0

//! What C calls: the driver interface of `include/linux/cdm.h`, and what the C files of
//! `mm/cdm/` ask.
//!
//! `EXPORT_SYMBOL_GPL()` for the former is in `driver.c`.

use crate::{
    driver,
    nid::Nid,
    node::ThisMachine,
    poison,
    registry, //
};
use core::ptr::NonNull;
use kernel::{
    bindings,
    cdm::{
        Cap,
        Caps, //
    },
    error::from_result,
    fmt::Write,
    page::PAGE_SIZE,
    prelude::*,
    str::{
        Formatter,
        NullTerminatedFormatter, //
    }, //
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
    match unsafe { registry::register::<ThisMachine>(config) } {
        Ok(nid) => nid.as_raw(),
        Err(refusal) => refusal.errno().to_errno(),
    }
}

/// Takes a node away if it can be done within the bound that
/// `/sys/kernel/mm/cdm/leave_timeout_ms` sets.
///
/// Context: may sleep. Returns 0; `-EBUSY`, or `-ENOMEM` if ordinary memory has no room for its
/// pages, and the node is live as before; or `-ENODEV` if there is no such node.
///
/// # Safety
///
/// None: `nid` may be anything.
#[export]
unsafe extern "C" fn cdm_unregister_node(nid: c_int) -> c_int {
    from_result(|| {
        registry::unregister::<ThisMachine>(Nid::new(nid).ok_or(ENODEV)?)?;
        Ok(0)
    })
}

/// Writes the addresses of a node's broken pages, in ascending order.
///
/// Context: may sleep. Returns how many there are, of which the first `nr` have been written, or
/// `-ENODEV` if there is no such node, or `-EBUSY` if it is just coming or leaving.
///
/// # Safety
///
/// `addrs` must be valid for writes of `nr` addresses.
#[export]
unsafe extern "C" fn cdm_node_bad_pages(nid: c_int, addrs: *mut u64, nr: c_uint) -> c_int {
    from_result(|| {
        let nid = Nid::new(nid).ok_or(ENODEV)?;
        let all = registry::bad_pages::<ThisMachine>(nid, |index, addr| {
            if index < nr as usize {
                // SAFETY: By the safety requirements.
                unsafe { addrs.add(index).write(addr) };
            }
        })?;
        Ok(all as c_int)
    })
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
    if let Some(nid) = Nid::new(nid) {
        registry::release::<ThisMachine>(nid);
    }
}

/// Gives a driver the node back that it had to leave behind, as it was registered.
///
/// Of `config` the range, the module and the device say which node that is; the rest is written.
///
/// Context: as [`cdm_register_node`]. Returns 0, `-ENOENT` if there is no such node, or `-EBUSY` if
/// it is going, or what was on it is lost.
///
/// # Safety
///
/// `config` must be valid for reads and writes, and what it points to for reads.
#[export]
unsafe extern "C" fn cdm_take_back_node(config: *mut bindings::cdm_node_config) -> c_int {
    // SAFETY: `config` is valid by the safety requirements, and only the caller has it.
    let config = unsafe { &mut *config };

    from_result(|| {
        // SAFETY: The requirements on what `config` points to are the caller's.
        unsafe { registry::take_back::<ThisMachine>(config) }?;
        Ok(0)
    })
}

/// Is the memory of a driver's node there? The administrator may have unplugged it.
///
/// Context: may sleep.
///
/// # Safety
///
/// None: `nid` may be anything.
#[export]
unsafe extern "C" fn cdm_node_is_up(nid: c_int) -> bool {
    Nid::new(nid).is_some_and(registry::is_up::<ThisMachine>)
}

/// Takes a node away whose content is lost: whoever has a page there is told so by SIGBUS when he
/// looks for it, and nothing is read, moved or erased.
///
/// Context: may sleep. The node belongs to the core from now on, and goes when nothing refers to
/// its pages any more.
///
/// # Safety
///
/// None: `nid` may be anything.
#[export]
unsafe extern "C" fn cdm_node_lost(nid: c_int) {
    if let Some(nid) = Nid::new(nid) {
        registry::lost::<ThisMachine>(nid);
    }
}

fn set_frozen(nid: c_int, frozen: bool) -> c_int {
    from_result(|| {
        registry::set_frozen::<ThisMachine>(Nid::new(nid).ok_or(ENODEV)?, frozen)?;
        Ok(0)
    })
}

/// Lets nobody get pages on a node, until [`cdm_thaw_node`]: before a reset, so that it can be
/// emptied. Who has pages there keeps them; memory policies fall back as if the node had gone.
///
/// Context: may sleep. Returns 0, `-ENODEV` if there is no such node, or `-EBUSY` if somebody is
/// taking it away.
///
/// # Safety
///
/// None: `nid` may be anything.
#[export]
unsafe extern "C" fn cdm_freeze_node(nid: c_int) -> c_int {
    set_frozen(nid, true)
}

/// Undoes [`cdm_freeze_node`].
///
/// Context: as there.
///
/// # Safety
///
/// None: `nid` may be anything.
#[export]
unsafe extern "C" fn cdm_thaw_node(nid: c_int) -> c_int {
    set_frozen(nid, false)
}

/// A device goes: so do the nodes on it.
///
/// # Safety
///
/// None: `dev` is compared, not followed.
#[export]
unsafe extern "C" fn cdm_core_device_gone(dev: *mut bindings::device) {
    registry::device_gone::<ThisMachine>(dev);
}

/// Tries again to take away what was lost. Returns whether something is left.
///
/// # Safety
///
/// None.
#[export]
unsafe extern "C" fn cdm_core_retry() -> bool {
    registry::retry::<ThisMachine>()
}

/// May the machine sleep? `-EBUSY` if there is something on a node, which the log then says.
///
/// Context: may sleep.
///
/// # Safety
///
/// None.
#[export]
unsafe extern "C" fn cdm_core_may_sleep() -> c_int {
    from_result(|| {
        registry::may_sleep::<ThisMachine>()?;
        Ok(0)
    })
}

/// Takes a node away for the administrator who wrote `unplugged` to its `state`.
///
/// # Safety
///
/// None: `nid` may be anything, and `dir` is compared, not followed.
#[export]
unsafe extern "C" fn cdm_core_unplug(nid: c_int, dir: *const bindings::cdm_dir) -> c_int {
    from_result(|| {
        registry::unplug::<ThisMachine>(Nid::new(nid).ok_or(ENODEV)?, dir)?;
        Ok(0)
    })
}

/// Sets who may name a node, for the administrator who wrote to its `cdm_access`.
///
/// # Safety
///
/// None: `nid` may be anything.
#[export]
unsafe extern "C" fn cdm_core_set_listed(nid: c_int, listed: bool) -> c_int {
    from_result(|| {
        registry::set_listed::<ThisMachine>(Nid::new(nid).ok_or(ENODEV)?, listed)?;
        Ok(0)
    })
}

/// Sets who may name the nodes of devices of which nothing has been said.
///
/// # Safety
///
/// None.
#[export]
unsafe extern "C" fn cdm_core_set_default_listed(listed: bool) {
    registry::change_default::<ThisMachine>(|rules| rules.listed = listed);
}

/// Returns what [`cdm_core_set_default_listed`] has set.
///
/// # Safety
///
/// None.
#[export]
unsafe extern "C" fn cdm_core_default_listed() -> bool {
    registry::default::<ThisMachine>().listed
}

/// Sets whether memcg counts a node's pages, for the administrator who wrote to its `cdm_memcg`.
///
/// # Safety
///
/// None: `nid` may be anything.
#[export]
unsafe extern "C" fn cdm_core_set_uncounted(nid: c_int, uncounted: bool) -> c_int {
    from_result(|| {
        registry::set_uncounted::<ThisMachine>(Nid::new(nid).ok_or(ENODEV)?, uncounted)?;
        Ok(0)
    })
}

/// Sets it for the nodes of devices of which nothing has been said.
///
/// # Safety
///
/// None.
#[export]
unsafe extern "C" fn cdm_core_set_default_uncounted(uncounted: bool) {
    registry::change_default::<ThisMachine>(|rules| rules.uncounted = uncounted);
}

/// Returns what [`cdm_core_set_default_uncounted`] has set.
///
/// # Safety
///
/// None.
#[export]
unsafe extern "C" fn cdm_core_default_uncounted() -> bool {
    registry::default::<ThisMachine>().uncounted
}

/// Writes the names of what is not denied, as a C string.
///
/// # Safety
///
/// `buf` must be valid for writes of `CDM_NAMES_SIZE` bytes.
#[export]
unsafe extern "C" fn cdm_core_name_caps(deny: u32, buf: *mut u8) {
    const SIZE: usize = bindings::CDM_NAMES_SIZE as usize;

    // A slice must be initialized, and the callers' buffers come from the stack.
    // SAFETY: `buf` is valid for these writes by the safety requirements.
    unsafe { buf.write_bytes(0, SIZE) };
    // SAFETY: `buf` is valid, was initialized, and nobody else has it during the call.
    let buf = unsafe { core::slice::from_raw_parts_mut(buf, SIZE) };

    if let Some(mut out) = NullTerminatedFormatter::new(buf) {
        // The size is that of all names together, and more.
        let _ = out.write_fmt(fmt!("{}", Caps::from_denied(deny)));
    }
}

/// Writes a line for each capability: its name, and how often the node has denied it.
///
/// # Safety
///
/// `buf` must be valid for writes of a page, and initialized: it is the buffer of a sysfs show
/// function, which sysfs has cleared.
#[export]
unsafe extern "C" fn cdm_core_emit_denied(nid: c_int, buf: *mut u8) -> isize {
    let Some(nid) = Nid::new(nid) else {
        return ENODEV.to_errno() as isize;
    };
    // SAFETY: `buf` is valid and initialized by the safety requirements, and nobody else has it
    // during the call.
    let buf = unsafe { core::slice::from_raw_parts_mut(buf, PAGE_SIZE) };
    let mut out = Formatter::new(buf);

    for cap in Cap::in_order() {
        // SAFETY: A `Nid` is in range.
        let count = unsafe { bindings::cdm_denials_read(nid.as_raw(), cap.bit()) };
        // All lines together are far shorter than a page.
        if out.write_fmt(fmt!("{} {}\n", cap, count)).is_err() {
            return EINVAL.to_errno() as isize;
        }
    }
    out.bytes_written() as isize
}

/// Makes the core ready for registrations.
///
/// # Safety
///
/// Must be called once.
#[export]
unsafe extern "C" fn cdm_core_init() {
    // SAFETY: The caller calls this once, and the registry is not in use before `init()`.
    unsafe {
        driver::init();
        poison::init();
        registry::init();
    }
}

/// Notes what has changed about the broken pages of a node.
///
/// # Safety
///
/// `pages` must be from `cdm_bad_pages_alloc()`, of the node `nid` with `nr` pages from `first` on,
/// and not be freed meanwhile.
///
/// Context: may sleep.
#[export]
unsafe extern "C" fn cdm_core_poisoned(
    nid: c_int,
    pages: *mut bindings::cdm_bad_pages,
    first: usize,
    nr: usize,
) {
    if let (Some(nid), Some(pages)) = (Nid::new(nid), NonNull::new(pages)) {
        // SAFETY: By the safety requirements.
        unsafe { poison::changed(nid, pages, first, nr) };
    }
}

#[cfg(CONFIG_CDM_KUNIT_TEST)]
#[kunit_tests(cdm_exports)]
mod tests {
    use super::*;
    use core::mem::MaybeUninit;

    const SIZE: usize = bindings::CDM_NAMES_SIZE as usize;

    // What is in the buffer before does not matter.
    fn names(deny: u32) -> Result<([u8; SIZE], usize)> {
        let mut buf = MaybeUninit::<[u8; SIZE]>::uninit();
        // SAFETY: It has that size.
        unsafe { buf.as_mut_ptr().write_bytes(0xff, 1) };
        // SAFETY: As above.
        unsafe { cdm_core_name_caps(deny, buf.as_mut_ptr().cast()) };
        // SAFETY: All bytes were written above.
        let buf = unsafe { buf.assume_init() };
        let len = buf.iter().position(|byte| *byte == 0).ok_or(EINVAL)?;
        Ok((buf, len))
    }

    #[test]
    fn names_are_a_c_string() -> Result {
        let (buf, len) = names(!0)?;
        assert_eq!(&buf[..len], b"none");
        assert!(buf[len..].iter().all(|byte| *byte == 0));

        let (buf, len) = names(!bindings::CDM_ALLOW_GUP)?;
        assert_eq!(&buf[..len], b"gup");
        Ok(())
    }

    #[test]
    fn all_names_fit() -> Result {
        let (buf, len) = names(0)?;
        assert_eq!(Caps::parse(&buf[..len]), Ok(Caps::ALL));
        assert!(len < SIZE - 1);
        Ok(())
    }

    #[test]
    fn a_number_that_is_no_node() {
        for nid in [-1, c_int::MIN, bindings::MAX_NUMNODES as c_int] {
            // SAFETY: It may be anything.
            assert_eq!(unsafe { cdm_unregister_node(nid) }, ENODEV.to_errno());
            // SAFETY: It may be anything.
            unsafe { cdm_release_node(nid) };
            // SAFETY: It may be anything.
            let unplugged = unsafe { cdm_core_unplug(nid, core::ptr::null()) };
            assert_eq!(unplugged, ENODEV.to_errno());
        }
    }
}
