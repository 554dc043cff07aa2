// SPDX-License-Identifier: GPL-2.0

//! Attributes in sysfs that a driver gives the devices it is bound to.
//!
//! They come when `probe()` has succeeded, and are gone before the driver is unbound: whoever reads
//! or writes one has a driver with its private data.
//!
//! C header: [`include/linux/device.h`](srctree/include/linux/device.h)

use super::{
    CoreInternal,
    Device, //
};
use crate::{
    bindings,
    driver::DriverLayout,
    error::VTABLE_DEFAULT_ERROR,
    page::PAGE_SIZE,
    prelude::*,
    str::{
        as_char_ptr_in_const_context,
        Formatter, //
    },
    types::Opaque, //
};
use core::{
    marker::PhantomData,
    mem::offset_of,
    pin::Pin, //
};

/// An attribute of the devices of a driver, of which `D` is the adapter of its bus.
///
/// With [`Attribute::store`] it is a file that root can write to.
#[vtable]
pub trait Attribute<D: DriverLayout>: 'static {
    /// The name of the file.
    const NAME: &'static CStr;

    /// Writes what the file says, with the newline.
    ///
    /// May sleep. No two calls of this and [`store`](Self::store) need to be one after the other.
    fn show<'bound>(data: Pin<&'bound D::DriverData<'bound>>, out: &mut Formatter<'_>) -> Result;

    /// Takes all that was written.
    ///
    /// May sleep.
    fn store<'bound>(data: Pin<&'bound D::DriverData<'bound>>, text: &[u8]) -> Result {
        let _ = (data, text);
        build_error!(VTABLE_DEFAULT_ERROR)
    }
}

/// An attribute as C knows it.
#[doc(hidden)]
#[repr(transparent)]
pub struct File<D>(Opaque<bindings::device_attribute>, PhantomData<fn(D)>);

// SAFETY: Once it is made, nobody but lockdep writes to it, which has a lock of its own.
unsafe impl<D> Sync for File<D> {}

impl<D: DriverLayout> File<D>
where
    for<'bound> D::DriverData<'bound>: Sync,
{
    /// Makes it.
    pub const fn new<A: Attribute<D>>() -> Self {
        let mut raw: bindings::device_attribute = pin_init::zeroed();

        raw.attr.name = as_char_ptr_in_const_context(A::NAME);
        raw.attr.mode = if A::HAS_STORE { 0o644 } else { 0o444 };
        raw.__bindgen_anon_1.show = Some(show::<D, A>);
        if A::HAS_STORE {
            raw.__bindgen_anon_2.store = Some(store::<D, A>);
        }
        Self(Opaque::new(raw), PhantomData)
    }
}

/// Returns the private data of the driver of a device.
///
/// # Safety
///
/// `dev` must be bound, for `'bound`, to the driver that `D` is the layout of, and its `probe()`
/// have returned.
unsafe fn data<'bound, D: DriverLayout>(
    dev: *mut bindings::device,
) -> Pin<&'bound D::DriverData<'bound>> {
    // SAFETY: By the safety requirements `dev` is valid.
    let dev = unsafe { &*dev.cast::<Device<CoreInternal<'bound>>>() };

    // SAFETY: By the safety requirements this is between `probe()` and unbinding, and the type is
    // that of the driver's data.
    unsafe { dev.drvdata_borrow::<D::DriverData<'bound>>() }
}

/// # Safety
///
/// Only for sysfs to call, for a device whose driver is `D` and has this attribute.
unsafe extern "C" fn show<D: DriverLayout, A: Attribute<D>>(
    dev: *mut bindings::device,
    _attr: *mut bindings::device_attribute,
    buf: *mut c_char,
) -> isize {
    // SAFETY: The driver core removes the file, and waits for who is here, before it unbinds the
    // driver; it has created the file after `probe()`.
    let data = unsafe { data::<D>(dev) };
    // SAFETY: The buffer of sysfs is a page.
    let mut out = unsafe { Formatter::from_buffer(buf.cast(), PAGE_SIZE) };

    match A::show(data, &mut out) {
        Ok(()) => out.bytes_written() as isize,
        Err(error) => error.to_errno() as isize,
    }
}

/// # Safety
///
/// As [`show`].
unsafe extern "C" fn store<D: DriverLayout, A: Attribute<D>>(
    dev: *mut bindings::device,
    _attr: *mut bindings::device_attribute,
    buf: *const c_char,
    count: usize,
) -> isize {
    // SAFETY: As in `show()`.
    let data = unsafe { data::<D>(dev) };
    // SAFETY: sysfs passes as many bytes as it says.
    let text = unsafe { core::slice::from_raw_parts(buf.cast::<u8>(), count) };

    match A::store(data, text) {
        Ok(()) => count as isize,
        Err(error) => error.to_errno() as isize,
    }
}

/// A [`File`] in a list of them, or the end of the list.
#[doc(hidden)]
#[repr(transparent)]
pub struct Entry(*mut bindings::attribute);

// SAFETY: It is the address of a static.
unsafe impl Sync for Entry {}

impl Entry {
    /// The end of the list.
    pub const END: Self = Self(core::ptr::null_mut());

    /// A file.
    pub const fn new<D>(file: &'static File<D>) -> Self {
        const { assert!(offset_of!(bindings::device_attribute, attr) == 0) };
        Self(file.0.get().cast())
    }
}

/// A list of [`Entry`] as C knows it.
#[doc(hidden)]
#[repr(transparent)]
pub struct Group(bindings::attribute_group);

// SAFETY: Nobody writes to it.
unsafe impl Sync for Group {}

impl Group {
    /// Makes it.
    ///
    /// # Safety
    ///
    /// The last entry must be [`Entry::END`].
    pub const unsafe fn new(entries: &'static [Entry]) -> Self {
        let mut raw: bindings::attribute_group = pin_init::zeroed();

        raw.__bindgen_anon_2.attrs = entries.as_ptr().cast_mut().cast();
        Self(raw)
    }
}

/// The attributes of a driver's devices; see [`device_attributes!`](crate::device_attributes).
///
/// # Invariants
///
/// The first pointer is to a group whose files are for drivers with the layout `D`, and the second
/// is null.
pub struct Attributes<D>([*const bindings::attribute_group; 2], PhantomData<fn(D)>);

// SAFETY: Nobody writes to it, or to what it points to.
unsafe impl<D> Sync for Attributes<D> {}

impl<D> Attributes<D> {
    /// Makes it.
    ///
    /// # Safety
    ///
    /// The files in the group must be of the type `File<D>`.
    #[doc(hidden)]
    pub const unsafe fn new(group: &'static Group) -> Self {
        // INVARIANT: By the safety requirements.
        Self([&raw const group.0, core::ptr::null()], PhantomData)
    }

    /// What a `struct device_driver` with the layout `D` can have as `dev_groups`.
    // Of the buses, only some have drivers with attributes.
    #[allow(dead_code)]
    pub(crate) const fn as_ptr(&'static self) -> *mut *const bindings::attribute_group {
        self.0.as_ptr().cast_mut()
    }
}

/// Declares the attributes of the devices of a driver.
///
/// The type is the adapter of the bus, and the list names types that implement
/// [`Attribute`](crate::device::attr::Attribute) for it.
///
/// ```ignore
/// kernel::device_attributes! {
///     static ATTRIBUTES: dax::Adapter<MyDriver> = [State, Size];
/// }
/// ```
#[macro_export]
macro_rules! device_attributes {
    ($vis:vis static $name:ident: $layout:ty = [$($attr:ty),+ $(,)?];) => {
        $vis static $name: $crate::device::attr::Attributes<$layout> = {
            use $crate::device::attr::{
                Attributes,
                Entry,
                File,
                Group, //
            };

            static ENTRIES: &[Entry] = &[
                $({
                    static FILE: File<$layout> = File::new::<$attr>();
                    Entry::new(&FILE)
                },)+
                Entry::END,
            ];
            // SAFETY: It ends so.
            static GROUP: Group = unsafe { Group::new(ENTRIES) };

            // SAFETY: They are of that type.
            unsafe { Attributes::new(&GROUP) }
        };
    };
}
