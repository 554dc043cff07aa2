// SPDX-License-Identifier: GPL-2.0

//! Coherent device memory.
//!
//! A driver whose device has memory that is cache-coherent with the CPUs can hand it to the kernel,
//! as a NUMA node of its own. Nobody gets a page there without naming the node, and [`Caps`] says
//! what the kernel may do with the pages that live there.
//!
//! C header: [`include/linux/cdm.h`](srctree/include/linux/cdm.h)
//!
//! # Examples
//!
//! In `probe()` of a PCI driver, for memory that is the whole of BAR 2:
//!
//! ```
//! # #[cfg(CONFIG_PCI)]
//! # mod example {
//! use kernel::{
//!     cdm::{
//!         Cap,
//!         Coherent,
//!         Config,
//!         Node, //
//!     },
//!     cdm_caps,
//!     device::Core,
//!     pci,
//!     prelude::*, //
//! };
//!
//! fn register<'bound>(
//!     pdev: &'bound pci::Device<Core<'_>>,
//!     module: &'static ThisModule,
//! ) -> Result<Node<'bound>> {
//!     pdev.enable_device_mem()?;
//!
//!     let config = Config::new(cdm_caps![Cap::Migrate, Cap::Thp], Coherent::asserted());
//!     Node::register_bar(pdev, 2, &config, module)
//! }
//! # }
//! ```

use crate::{
    alloc::NumaNode,
    bindings,
    device::{
        self,
        Bound, //
    },
    error::to_result,
    io::{
        PhysAddr,
        ResourceSize, //
    },
    prelude::*, //
};
use core::marker::PhantomData;

/// Counts the changes of what a driver has to write, for drivers that are built for several
/// kernels.
pub const INTERFACE: u32 = bindings::CDM_INTERFACE;

mod caps;

pub use caps::{
    BadWord,
    Cap,
    Caps,
    Rule, //
};

/// Returns the size of a memory block, of which nodes are made, in bytes.
pub fn block_size() -> ResourceSize {
    // SAFETY: It reads what does not change after boot.
    let size = unsafe { bindings::memory_block_size_bytes() };
    size as ResourceSize
}

/// The driver's word that its memory is coherent.
///
/// The kernel maps the memory write-back, lets tasks run atomic operations on it and does not flush
/// caches for it. Where the caches of all CPUs are not kept coherent with the device, that corrupts
/// data; a BAR of a plain PCI Express device is such a place.
#[derive(Clone, Copy, Debug)]
pub struct Coherent(());

impl Coherent {
    /// Asserts that the memory is cache-coherent with all CPUs.
    pub const fn asserted() -> Self {
        Self(())
    }
}

/// What a driver says about its memory.
#[derive(Clone, Copy, Debug)]
pub struct Config<'a> {
    caps: Caps,
    flags: u32,
    nid: c_int,
    bad_pages: &'a [PhysAddr],
}

impl<'a> Config<'a> {
    /// A node whose pages are for what `caps` allows.
    ///
    /// There is no default: a driver has to say.
    pub const fn new(caps: Caps, _coherent: Coherent) -> Self {
        Self {
            caps,
            flags: bindings::CDM_NODE_COHERENT,
            nid: bindings::NUMA_NO_NODE,
            bad_pages: &[],
        }
    }

    /// Asks for this node id, instead of one that the core chooses.
    ///
    /// [`NumaNode::NO_NODE`] leaves the choice to the core. Registering returns an error if the
    /// node has CPUs or memory.
    pub const fn nid(mut self, nid: NumaNode) -> Self {
        self.nid = nid.id();
        self
    }

    /// Asks for this node id if it can be, and for one that the core chooses if not.
    ///
    /// The log says why it cannot.
    pub const fn prefer_nid(mut self, nid: NumaNode) -> Self {
        self.nid = nid.id();
        self.flags |= bindings::CDM_NODE_NID_WISH;
        self
    }

    /// Asserts that other devices reach the memory by DMA.
    ///
    /// Without it [`Caps::NEED_PEER_TO_PEER`] cannot be allowed.
    pub const fn peer_to_peer(mut self) -> Self {
        self.flags |= bindings::CDM_NODE_P2PDMA;
        self
    }

    /// Names pages that are broken, by an address in each: nobody gets them.
    ///
    /// Nor does anybody get a page that the core has found broken before, at this address, whoever
    /// had registered it then. Registering returns an error if an address is not in the memory.
    pub const fn bad_pages(mut self, pages: &'a [PhysAddr]) -> Self {
        self.bad_pages = pages;
        self
    }

    /// Names all pages that are broken.
    ///
    /// Like [`bad_pages`](Self::bad_pages), but what the core has found before is forgotten. For a
    /// driver that keeps a list of its own, and whose device can replace memory that was broken.
    pub const fn all_bad_pages(mut self, pages: &'a [PhysAddr]) -> Self {
        self.flags |= bindings::CDM_NODE_ALL_BAD_PAGES;
        self.bad_pages(pages)
    }

    /// Promises that the driver erases the memory when [`Node::leave`] has returned [`Ok`], so that
    /// the core need not do it.
    ///
    /// Where nobody tells the driver that the node has gone, the core does it all the same: when
    /// the [`Node`] is dropped, when the administrator unplugs it, when an orphan leaves.
    pub const fn scrubbed_by_driver(mut self) -> Self {
        self.flags |= bindings::CDM_NODE_SCRUBS;
        self
    }
}

/// A device's memory that is registered as a NUMA node.
///
/// Dropping it takes the node away. That cannot fail, while taking a node away can: if tasks do not
/// let go of its pages within the bound that `/sys/kernel/mm/cdm/leave_timeout_ms` sets, the core
/// keeps the node as an orphan, with the module pinned, until it can go or the driver registers the
/// same memory again. [`Node::leave`] gives an answer instead.
///
/// The module cannot be unloaded while the node exists; unbind the device first.
///
/// Who forgets to keep it gets a warning:
///
/// ```ignore,compile_fail
/// # #![deny(unused_must_use)]
/// # use kernel::{cdm::{Config, Node}, device::Core, pci, prelude::*};
/// fn probe(
///     pdev: &pci::Device<Core<'_>>,
///     config: &Config<'_>,
///     module: &'static ThisModule,
/// ) -> Result {
///     // error: unused `Node` that must be used
///     Node::register_bar(pdev, 2, config, module)?;
///     Ok(())
/// }
/// ```
///
/// # Invariants
///
/// `nid` was returned by `cdm_register_node()`, and this value holds the driver's claim on it.
#[derive(Debug)]
#[must_use = "the node goes when this is dropped"]
pub struct Node<'a> {
    nid: c_int,
    _device: PhantomData<&'a device::Device<Bound>>,
}

impl<'a> Node<'a> {
    /// Registers the memory behind a BAR.
    ///
    /// The driver must have [enabled](crate::pci::Device::enable_device_mem) the memory of the
    /// device, and must not have requested or mapped the BAR. `module` is the driver's.
    ///
    /// It takes the whole BAR. May sleep; it takes `device_hotplug_lock`.
    ///
    /// Returns, beside what memory hotplug says, and with a line in the log:
    ///
    /// - [`EINVAL`] if the BAR is not memory, is not made of whole memory blocks, or its memory
    ///   type is not write-back; if `config` breaks a rule, or asks for a node id that cannot be.
    /// - [`EBUSY`] if the BAR or the node id is in use.
    /// - [`E2BIG`] if memory cannot have these addresses.
    /// - [`ENOSPC`] if no node id is free.
    /// - [`EPROBE_DEFER`] if somebody else keeps memory hotplug busy.
    #[cfg(CONFIG_PCI)]
    pub fn register_bar(
        pdev: &'a crate::pci::Device<Bound>,
        bar: u32,
        config: &Config<'_>,
        module: &'static ThisModule,
    ) -> Result<Self> {
        let flags = crate::io::resource::Flags::IORESOURCE_MEM;
        if !pdev.resource_flags(bar)?.contains(flags) {
            dev_err!(pdev, "BAR {} is not memory\n", bar);
            return Err(EINVAL);
        }
        let start = pdev.resource_start(bar)?;
        let size = pdev.resource_len(bar)?;

        // SAFETY: The range is a BAR of the device, and the device is bound to the caller for `'a`.
        unsafe { Self::register_range(pdev.as_ref(), start, size, config, module) }
    }

    /// Registers a range of physical addresses.
    ///
    /// Otherwise like [`register_bar`](Self::register_bar), which is to be preferred: it knows that
    /// the range is the device's.
    ///
    /// # Safety
    ///
    /// The range must be memory of `dev`, without side effects of reading and writing it, that
    /// nothing else uses until the node has gone.
    pub unsafe fn register_range(
        dev: &'a device::Device<Bound>,
        start: PhysAddr,
        size: ResourceSize,
        config: &Config<'_>,
        module: &'static ThisModule,
    ) -> Result<Self> {
        let raw = bindings::cdm_node_config {
            start,
            size,
            nid: config.nid,
            allow: config.caps.bits(),
            flags: config.flags,
            owner: module.as_ptr(),
            dev: dev.as_raw(),
            bad_pages: config.bad_pages.as_ptr(),
            nr_bad_pages: c_uint::try_from(config.bad_pages.len())?,
            ops: core::ptr::null(),
            data: core::ptr::null_mut(),
        };

        // SAFETY: `raw` and what it points to are valid for the call, and the range is the device's
        // by the safety requirements.
        let nid = unsafe { bindings::cdm_register_node(&raw) };
        if nid < 0 {
            return Err(Error::from_errno(nid));
        }

        // INVARIANT: `nid` is not an errno, so it is the node, which is this driver's.
        Ok(Self {
            nid,
            _device: PhantomData,
        })
    }

    /// Registers a range of a dax device.
    ///
    /// Otherwise like [`register_bar`](Self::register_bar).
    #[cfg(CONFIG_RUST_DAX_ABSTRACTIONS)]
    pub fn register_dax(
        range: crate::dax::Range<'a>,
        config: &Config<'_>,
        module: &'static ThisModule,
    ) -> Result<Self> {
        let dev = range.device().as_ref();

        // SAFETY: By the type invariant of the range it is memory of the device, which is bound to
        // the caller for `'a`.
        unsafe { Self::register_range(dev, range.start(), range.size(), config, module) }
    }

    /// Takes back the node of this very range of a dax device, if the driver had to leave one
    /// behind when it was unbound; with what it was registered to allow.
    ///
    /// Returns what memory hotplug says, and [`EBUSY`] if the node is going.
    #[cfg(CONFIG_RUST_DAX_ABSTRACTIONS)]
    pub fn take_back_dax(
        range: crate::dax::Range<'a>,
        module: &'static ThisModule,
    ) -> Result<Option<(Self, Caps)>> {
        let dev: &device::Device<Bound> = range.device().as_ref();
        let mut raw = bindings::cdm_node_config {
            start: range.start(),
            size: range.size(),
            owner: module.as_ptr(),
            dev: dev.as_raw(),
            ..pin_init::zeroed()
        };

        // SAFETY: `raw` and what it points to are valid for the call.
        match to_result(unsafe { bindings::cdm_take_back_node(&mut raw) }) {
            Ok(()) => (),
            Err(ENOENT) => return Ok(None),
            Err(error) => return Err(error),
        }
        // INVARIANT: The node is this driver's now.
        let node = Self {
            nid: raw.nid,
            _device: PhantomData,
        };
        Ok(Some((node, Caps::from_bits(raw.allow).ok_or(EINVAL)?)))
    }

    /// Returns the node id.
    pub fn id(&self) -> c_int {
        self.nid
    }

    /// Returns the addresses of its pages that are broken, in ascending order.
    ///
    /// May sleep. Returns [`EBUSY`] while the administrator takes the node away, and [`ENODEV`]
    /// when he has.
    pub fn bad_pages(&self) -> Result<KVec<PhysAddr>> {
        let mut pages = KVec::new();
        loop {
            let room = c_uint::try_from(pages.len())?;
            // SAFETY: `pages` is valid for writes of `room` addresses.
            let nr = unsafe { bindings::cdm_node_bad_pages(self.nid, pages.as_mut_ptr(), room) };
            if nr < 0 {
                return Err(Error::from_errno(nr));
            }
            let nr = nr as usize;
            if nr <= pages.len() {
                pages.truncate(nr);
                return Ok(pages);
            }
            // Another one may break meanwhile.
            pages.resize(nr + 1, 0, GFP_KERNEL)?;
        }
    }

    /// Returns whether its memory is there: the administrator may have unplugged the node.
    pub fn is_up(&self) -> bool {
        // SAFETY: The number may be anything.
        unsafe { bindings::cdm_node_is_up(self.nid) }
    }

    /// Takes the node away, or gives it back.
    ///
    /// May sleep, for as long as `/sys/kernel/mm/cdm/leave_timeout_ms` says.
    ///
    /// Returns [`EBUSY`] if somebody holds on to a page; the log says who. The node is live then,
    /// as before; pages that had already moved stay in ordinary memory. Returns [`ENOMEM`] if
    /// ordinary memory has no room for its pages, none of which has moved.
    pub fn leave(self) -> Result<(), (Self, Error)> {
        // SAFETY: By the type invariant the node is this driver's.
        match to_result(unsafe { bindings::cdm_unregister_node(self.nid) }) {
            Ok(()) => {
                // There is nothing left to release.
                core::mem::forget(self);
                Ok(())
            }
            Err(error) => Err((self, error)),
        }
    }

    /// Lets nobody get pages on the node, until [`Node::thaw`].
    ///
    /// For a reset that is planned: then [`Node::leave`], and register again. Who has pages there
    /// keeps them; memory policies fall back as if the node had gone.
    ///
    /// Returns [`ENODEV`] if the administrator has unplugged the node, and [`EBUSY`] while he does.
    pub fn freeze(&mut self) -> Result {
        // SAFETY: By the type invariant the node is this driver's.
        to_result(unsafe { bindings::cdm_freeze_node(self.nid) })
    }

    /// Lets tasks have pages on the node again. Returns what [`Node::freeze`] does.
    pub fn thaw(&mut self) -> Result {
        // SAFETY: By the type invariant the node is this driver's.
        to_result(unsafe { bindings::cdm_thaw_node(self.nid) })
    }

    /// Says that what was in the memory is lost: the device was reset, or its link went down.
    ///
    /// Tasks that have pages there get SIGBUS when they look for them, and files an error; nothing
    /// is read, moved or erased. The memory is removed, and the driver may register it again; the
    /// node will have the same id. Pages that something in the kernel refers to, such as a pipe,
    /// stay until it lets go of them; until then a registration returns [`EBUSY`].
    ///
    /// May sleep, for as long as `/sys/kernel/mm/cdm/leave_timeout_ms` says.
    pub fn lost(self) {
        // SAFETY: By the type invariant the node is this driver's.
        unsafe { bindings::cdm_node_lost(self.nid) };
        // There is nothing left to release.
        core::mem::forget(self);
    }
}

impl Drop for Node<'_> {
    fn drop(&mut self) {
        // SAFETY: By the type invariant the node is this driver's.
        unsafe { bindings::cdm_release_node(self.nid) };
    }
}

#[cfg(CONFIG_CDM_KUNIT_TEST)]
#[macros::kunit_tests(cdm_driver)]
mod tests {
    use super::*;
    use crate::faux;

    const CONFIG: Config<'static> = Config::new(Caps::of(&[Cap::Migrate]), Coherent::asserted());

    // SAFETY: What is built in has no module.
    static MODULE: ThisModule = unsafe { ThisModule::from_ptr(core::ptr::null_mut()) };

    #[test]
    fn what_a_driver_says() -> Result {
        assert_eq!(CONFIG.caps, Cap::Migrate.into());
        assert_eq!(CONFIG.flags, bindings::CDM_NODE_COHERENT);
        assert_eq!(CONFIG.nid, bindings::NUMA_NO_NODE);

        assert_eq!(CONFIG.nid(NumaNode::new(3)?).nid, 3);
        assert_eq!(CONFIG.nid(NumaNode::NO_NODE).nid, bindings::NUMA_NO_NODE);
        let wish = CONFIG.prefer_nid(NumaNode::new(3)?);
        assert_eq!(wish.nid, 3);
        assert_eq!(
            wish.flags,
            bindings::CDM_NODE_COHERENT | bindings::CDM_NODE_NID_WISH
        );
        assert_eq!(
            CONFIG.peer_to_peer().flags,
            bindings::CDM_NODE_COHERENT | bindings::CDM_NODE_P2PDMA
        );
        assert_eq!(
            CONFIG.scrubbed_by_driver().flags,
            bindings::CDM_NODE_COHERENT | bindings::CDM_NODE_SCRUBS
        );
        Ok(())
    }

    #[test]
    fn a_refusal_is_an_error() -> Result {
        let faux = faux::Registration::new(c"cdm_kunit", None)?;
        let faux: &faux::Device<Bound> = faux.as_ref();
        let dev = faux.as_ref();

        // SAFETY: The range is empty.
        let node = unsafe { Node::register_range(dev, 0, 0, &CONFIG, &MODULE) };
        assert_eq!(node.err(), Some(EINVAL));
        // SAFETY: The range has no whole memory block, so it is refused.
        let node = unsafe { Node::register_range(dev, 1 << 32, 1, &CONFIG, &MODULE) };
        assert_eq!(node.err(), Some(EINVAL));
        // SAFETY: No memory can have these addresses.
        let node = unsafe { Node::register_range(dev, 1 << 63, 1 << 32, &CONFIG, &MODULE) };
        assert_eq!(node.err(), Some(E2BIG));
        Ok(())
    }
}
