// SPDX-License-Identifier: GPL-2.0

//! Abstractions for the dax bus: memory that firmware or a device sets apart.
//!
//! C header: [`drivers/dax/bus.h`](srctree/drivers/dax/bus.h)

use crate::{
    alloc::NumaNode,
    bindings,
    device::{
        self,
        attr::Attributes,
        Bound, //
    },
    driver,
    error::{
        from_result,
        to_result, //
    },
    io::{
        PhysAddr,
        ResourceSize, //
    },
    module::{
        this_module,
        ModuleMetadata, //
    },
    prelude::*,
    sync::atomic::{
        Atomic,
        Relaxed, //
    },
    types::Opaque,
    ThisModule, //
};
use core::{
    marker::PhantomData,
    mem::offset_of,
    pin::Pin,
    ptr::{
        addr_of_mut,
        NonNull, //
    },
};

/// An adapter for the registration of dax drivers.
pub struct Adapter<T: Driver>(T);

// SAFETY:
// - `bindings::dax_device_driver` is a C type declared as `repr(C)`.
// - `T::Data` is the type of the driver's device private data.
// - `struct dax_device_driver` embeds a `struct device_driver`.
// - `DEVICE_DRIVER_OFFSET` is the correct byte offset to the embedded `struct device_driver`.
unsafe impl<T: Driver> driver::DriverLayout for Adapter<T> {
    type DriverType = bindings::dax_device_driver;
    type DriverData<'bound> = T::Data<'bound>;
    const DEVICE_DRIVER_OFFSET: usize = offset_of!(Self::DriverType, drv);
}

// SAFETY: A call to `unregister` for a given instance of `DriverType` is guaranteed to be valid if
// a preceding call to `register` has been successful.
unsafe impl<T: Driver> driver::RegistrationOps for Adapter<T> {
    unsafe fn register(
        drv: &Opaque<Self::DriverType>,
        name: &'static CStr,
        module: &'static ThisModule,
    ) -> Result {
        // SAFETY: It's safe to set the fields of `struct dax_device_driver` on initialization.
        unsafe {
            (*drv.get()).type_ = if T::TAKES_RESERVED {
                bindings::dax_driver_type_DAXDRV_RESERVED_TYPE
            } else {
                bindings::dax_driver_type_DAXDRV_NAMED_TYPE
            };
            (*drv.get()).probe = Some(Self::probe_callback);
            (*drv.get()).remove = Some(Self::remove_callback);
            if let Some(attributes) = T::ATTRIBUTES {
                (*drv.get()).drv.dev_groups = attributes.as_ptr();
            }
        }

        // SAFETY: `drv` is guaranteed to be a valid `DriverType`.
        to_result(unsafe {
            bindings::__dax_driver_register(drv.get(), module.as_ptr(), name.as_char_ptr())
        })
    }

    unsafe fn unregister(drv: &Opaque<Self::DriverType>) {
        // SAFETY: `drv` is guaranteed to be a valid `DriverType`.
        unsafe { bindings::dax_driver_unregister(drv.get()) }
    }
}

impl<T: Driver> Adapter<T> {
    extern "C" fn probe_callback(ddev: *mut bindings::dev_dax) -> c_int {
        // SAFETY: The dax bus only ever calls the probe callback with a valid pointer to a
        // `struct dev_dax`.
        //
        // INVARIANT: `ddev` is valid for the duration of `probe_callback()`.
        let ddev = unsafe { &*ddev.cast::<Device<device::CoreInternal<'_>>>() };

        from_result(|| {
            let data = T::probe(ddev);

            ddev.as_ref().set_drvdata(data)?;
            Ok(0)
        })
    }

    extern "C" fn remove_callback(ddev: *mut bindings::dev_dax) {
        // SAFETY: The dax bus only ever calls the remove callback with a valid pointer to a
        // `struct dev_dax`.
        //
        // INVARIANT: `ddev` is valid for the duration of `remove_callback()`.
        let ddev = unsafe { &*ddev.cast::<Device<device::CoreInternal<'_>>>() };

        // SAFETY: `remove_callback` is only ever called after a successful call to
        // `probe_callback`, hence it's guaranteed that `Device::set_drvdata()` has been called
        // and stored a `Pin<KBox<T::Data<'_>>>`.
        let data = unsafe { ddev.as_ref().drvdata_borrow::<T::Data<'_>>() };

        T::unbind(ddev, data);
    }
}

/// The dax driver trait.
///
/// A device is given to such a driver by writing the name to `new_id` of the driver; by itself it
/// takes what is kept from `kmem`, if it says so, or nothing.
pub trait Driver: Sized + 'static {
    /// The type of the driver's bus device private data.
    type Data<'bound>: Send + Sync + 'bound;

    /// Whether the driver takes what a [`Reservation`] keeps from `kmem`.
    const TAKES_RESERVED: bool = false;

    /// The attributes of the devices that are bound.
    const ATTRIBUTES: Option<&'static Attributes<Adapter<Self>>> = None;

    /// Dax driver probe.
    ///
    /// Called when a device is given to the driver.
    fn probe<'bound>(
        dev: &'bound Device<device::Core<'_>>,
    ) -> impl PinInit<Self::Data<'bound>, Error> + 'bound;

    /// Dax driver unbind.
    ///
    /// Called when a [`Device`] is unbound from its bound [`Driver`]. Implementing this callback
    /// is optional.
    fn unbind<'bound>(dev: &'bound Device<device::Core<'_>>, this: Pin<&Self::Data<'bound>>) {
        let _ = (dev, this);
    }
}

/// While there is one, `kmem` gets no device by itself: what it would get is for drivers that
/// [take it](Driver::TAKES_RESERVED).
///
/// Counts for devices and drivers that come; who has a device has it.
pub struct Reservation(());

impl Reservation {
    /// Reserves the devices, until the value is dropped.
    pub fn hold() -> Self {
        // SAFETY: It can be called at any time.
        unsafe { bindings::dax_reserve() };
        Self(())
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        // SAFETY: It takes back what `hold()` did.
        unsafe { bindings::dax_unreserve() };
    }
}

/// The dax device representation: memory, of one or more ranges.
///
/// # Invariants
///
/// A [`Device`] instance represents a valid `struct dev_dax` created by the C portion of the
/// kernel.
#[repr(transparent)]
pub struct Device<Ctx: device::DeviceContext = device::Normal>(
    Opaque<bindings::dev_dax>,
    PhantomData<Ctx>,
);

impl<Ctx: device::DeviceContext> Device<Ctx> {
    fn as_raw(&self) -> *mut bindings::dev_dax {
        self.0.get()
    }

    /// Returns the node that the memory would be on, as far as the firmware says.
    pub fn target_node(&self) -> Option<NumaNode> {
        // SAFETY: By the type invariant `self.as_raw()` is valid; the field never changes.
        let nid = unsafe { (*self.as_raw()).target_node };

        NumaNode::new(nid).ok()
    }
}

impl Device {
    /// Returns the node whose pages a task gets that maps the [`File`] of the device.
    pub fn file_node(&self) -> Option<NumaNode> {
        NumaNode::new(self.file_nid().load(Relaxed)).ok()
    }

    fn file_nid(&self) -> &Atomic<c_int> {
        // SAFETY: By the type invariant `self.as_raw()` is valid. The driver core has it as long as
        // `self`. Only `READ_ONCE()` and `WRITE_ONCE()` access it otherwise.
        unsafe { Atomic::from_ptr(addr_of_mut!((*self.as_raw()).file_nid)) }
    }

    /// Tells the log, if it has not heard much of this, why the current task may not map the file.
    pub fn refuse_mapping(&self, why: &CStr) {
        // SAFETY: By the type invariant `self.as_raw()` is valid, and `why` is a string.
        unsafe { bindings::dev_dax_refuse_mapping(self.as_raw(), why.as_char_ptr()) };
    }
}

impl Device<Bound> {
    /// Returns whether somebody has given the device to its driver, by name; if not, the driver got
    /// it for what it is.
    ///
    /// May sleep.
    pub fn is_named(&self) -> bool {
        // SAFETY: By the type invariant `self.as_raw()` is valid; it is bound, so it has a driver.
        unsafe { bindings::dev_dax_is_named(self.as_raw()) }
    }

    /// Returns a range of the memory; [`None`] if there are not so many.
    ///
    /// May sleep. While a driver has the device, ranges may be added to those that are there.
    pub fn range(&self, index: usize) -> Option<Range<'_>> {
        let index = c_int::try_from(index).ok()?;
        let mut range = bindings::range::default();

        // SAFETY: By the type invariant `self.as_raw()` is valid; `range` is valid for writes.
        if !unsafe { bindings::dev_dax_get_range(self.as_raw(), index, &mut range) } {
            return None;
        }
        // INVARIANT: It is one of the device's, and those are not empty and do not wrap. While a
        // driver has the device none is taken from it.
        Some(Range {
            dev: self,
            start: range.start,
            size: range.end - range.start + 1,
        })
    }

    /// Returns all ranges.
    ///
    /// May sleep.
    pub fn ranges(&self) -> impl Iterator<Item = Range<'_>> {
        (0..).map_while(|index| self.range(index))
    }
}

/// What the file of a device does that a driver [lets tasks open](File::add).
pub trait FileOperations: 'static {
    /// The module of the driver, which stays while the file is open.
    type OwnerModule: ModuleMetadata;

    /// The current task maps the file.
    ///
    /// The driver may have been unbound meanwhile. It is called with the lock of the task's address
    /// space held for writing.
    fn mmap(dev: &Device, mapping: Mapping<'_>) -> Result;
}

/// Makes the C operations of a file.
struct FileVTable<T: FileOperations>(PhantomData<T>);

impl<T: FileOperations> FileVTable<T> {
    extern "C" fn mmap_prepare(desc: *mut bindings::vm_area_desc) -> c_int {
        // SAFETY: The pointer is valid for the call, and so is that to the file, which
        // `dev_dax_open_file()` has given a device that stays while it is open.
        let dev = unsafe { &*(*(*desc).file).private_data.cast::<Device>() };

        from_result(|| {
            // SAFETY: As above; nobody else uses it during the call.
            let desc = unsafe { &mut *desc.cast::<Opaque<bindings::vm_area_desc>>() };

            T::mmap(dev, Mapping { desc })?;
            Ok(0)
        })
    }

    const VTABLE: bindings::file_operations = bindings::file_operations {
        owner: this_module::<T::OwnerModule>().as_ptr(),
        llseek: Some(bindings::noop_llseek),
        open: Some(bindings::dev_dax_open_file),
        mmap_prepare: Some(Self::mmap_prepare),
        #[cfg(CONFIG_TRANSPARENT_HUGEPAGE)]
        get_unmapped_area: Some(bindings::thp_get_unmapped_area),
        ..pin_init::zeroed()
    };

    const fn build() -> &'static bindings::file_operations {
        &Self::VTABLE
    }
}

/// The file `/dev/daxX.Y` of a device: tasks can open it while this exists.
///
/// Who has it open then keeps it, and the module, and can map it again when the device has a file
/// and a node again.
///
/// # Invariants
///
/// `dev_dax_add_file()` has added the file to `dev`.
pub struct File<'a> {
    dev: &'a Device<Bound>,
}

impl<'a> File<'a> {
    /// Lets tasks open the file.
    ///
    /// May sleep. Returns [`EBUSY`] if there is one already.
    ///
    /// # Safety
    ///
    /// The returned value must be dropped, not [`forgotten`](core::mem::forget): else the file
    /// would lead to a module that has gone.
    pub unsafe fn add<T: FileOperations>(dev: &'a Device<Bound>) -> Result<Self> {
        // SAFETY: By the type invariant `dev.as_raw()` is valid, and the operations are valid as
        // long as the module, which is their owner.
        to_result(unsafe { bindings::dev_dax_add_file(dev.as_raw(), FileVTable::<T>::build()) })?;
        // INVARIANT: It has been added.
        Ok(Self { dev })
    }

    /// Says whose pages tasks get that map it, see [`Device::file_node`].
    pub fn set_node(&self, node: Option<NumaNode>) {
        let nid = node.unwrap_or(NumaNode::NO_NODE).id();

        self.dev.file_nid().store(nid, Relaxed);
    }
}

impl Drop for File<'_> {
    fn drop(&mut self) {
        // SAFETY: By the type invariant it has been added.
        unsafe { bindings::dev_dax_del_file(self.dev.as_raw()) };
    }
}

/// A mapping of a [`File`] that is about to be made.
pub struct Mapping<'a> {
    desc: &'a mut Opaque<bindings::vm_area_desc>,
}

impl Mapping<'_> {
    /// Returns whether others could share what is mapped.
    pub fn is_shared(&self) -> bool {
        // SAFETY: It is valid, and nobody else writes to it.
        unsafe { bindings::dax_mapping_is_shared(self.desc.get()) }
    }

    /// Lets the mapping have the pages of a device's node, as any task could by mapping anonymous
    /// memory and binding it to the node.
    ///
    /// Returns [`EINVAL`] if it is shared, [`ENXIO`] if the node cannot be named now, and
    /// [`EACCES`] if the current task may not name it, by its cpuset.
    pub fn place_on(self, node: NumaNode) -> Result {
        // SAFETY: It is what the mmap_prepare() of a file was given, which does no more with it.
        to_result(unsafe { bindings::cdm_mmap_prepare(self.desc.get(), node.id()) })
    }
}

/// A range of the memory of a device.
///
/// # Invariants
///
/// - All of it is memory of `dev`, which is the driver's as long as that is bound.
/// - `size` is not 0, and `start + size - 1` does not wrap.
#[derive(Clone, Copy)]
pub struct Range<'a> {
    dev: &'a Device<Bound>,
    start: PhysAddr,
    size: ResourceSize,
}

impl<'a> Range<'a> {
    /// Returns the device.
    pub fn device(&self) -> &'a Device<Bound> {
        self.dev
    }

    /// Returns the first address.
    pub fn start(&self) -> PhysAddr {
        self.start
    }

    /// Returns the size in bytes.
    pub fn size(&self) -> ResourceSize {
        self.size
    }

    /// Returns the last address.
    pub fn last(&self) -> PhysAddr {
        self.start + (self.size - 1)
    }

    /// Returns the part that is made of whole blocks of this size; [`None`] if there is no such
    /// block in it.
    pub fn whole_blocks(self, block: ResourceSize) -> Option<Self> {
        let start = self.start.checked_next_multiple_of(block)?;
        let cut = start - self.start;
        let size = self.size.checked_sub(cut)?;
        let size = size - size % block;

        if size == 0 {
            return None;
        }
        // INVARIANT: It is a part of a range of the device, and not empty.
        Some(Self {
            start,
            size,
            ..self
        })
    }

    /// Returns this range and one that begins where it ends, as one; [`None`] if `next` does not.
    pub fn join(self, next: Self) -> Option<Self> {
        let is_same_device = core::ptr::eq(self.dev, next.dev);

        if !is_same_device || self.last().checked_add(1) != Some(next.start) {
            return None;
        }
        // INVARIANT: It is made of two ranges of the device, the last of which does not wrap.
        Some(Self {
            size: self.size.checked_add(next.size)?,
            ..self
        })
    }
}

// SAFETY: `dax::Device` is a transparent wrapper of `struct dev_dax`.
// The offset is guaranteed to point to a valid device field inside `dax::Device`.
unsafe impl<Ctx: device::DeviceContext> device::AsBusDevice<Ctx> for Device<Ctx> {
    const OFFSET: usize = offset_of!(bindings::dev_dax, dev);
}

// SAFETY: `Device` is a transparent wrapper of a type that doesn't depend on `Device`'s generic
// argument.
kernel::impl_device_context_deref!(unsafe { Device });
kernel::impl_device_context_into_aref!(Device);

// SAFETY: Instances of `Device` are always reference-counted.
unsafe impl crate::sync::aref::AlwaysRefCounted for Device {
    fn inc_ref(&self) {
        // SAFETY: The existence of a shared reference guarantees that the refcount is non-zero.
        unsafe { bindings::get_device(self.as_ref().as_raw()) };
    }

    unsafe fn dec_ref(obj: NonNull<Self>) {
        // CAST: `Self` a transparent wrapper of `bindings::dev_dax`.
        let ddev: *mut bindings::dev_dax = obj.cast().as_ptr();

        // SAFETY: By the type invariant of `Self`, `ddev` is a pointer to a valid
        // `struct dev_dax`.
        let dev = unsafe { addr_of_mut!((*ddev).dev) };

        // SAFETY: The safety requirements guarantee that the refcount is non-zero.
        unsafe { bindings::put_device(dev) }
    }
}

impl<Ctx: device::DeviceContext> AsRef<device::Device<Ctx>> for Device<Ctx> {
    fn as_ref(&self) -> &device::Device<Ctx> {
        // SAFETY: By the type invariant of `Self`, `self.as_raw()` is a pointer to a valid
        // `struct dev_dax`.
        let dev = unsafe { addr_of_mut!((*self.as_raw()).dev) };

        // SAFETY: `dev` points to a valid `struct device`.
        unsafe { device::Device::from_raw(dev) }
    }
}

// SAFETY: A `Device` is always reference-counted and can be released from any thread.
unsafe impl Send for Device {}

// SAFETY: `Device` can be shared among threads because all methods of `Device`
// (i.e. `Device<Normal>) are thread safe.
unsafe impl Sync for Device {}

// SAFETY: Same as `Device<Normal>` -- the underlying `struct dev_dax` is the same; `Bound` is a
// zero-sized type-state marker that does not affect thread safety, and its methods take the lock
// of the ranges.
unsafe impl Sync for Device<Bound> {}
