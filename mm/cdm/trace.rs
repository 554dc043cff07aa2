// SPDX-License-Identifier: GPL-2.0

//! The tracepoint `cdm:cdm_node`, and what uevents are called.
//!
//! C header: [`include/trace/events/cdm.h`](srctree/include/trace/events/cdm.h)

use kernel::{
    bindings,
    fmt::{
        self,
        Write, //
    },
    prelude::*,
    str::NullTerminatedFormatter, //
};

mod raw {
    use kernel::prelude::*;

    kernel::declare_trace! {
        /// # Safety
        ///
        /// `cause` must be a C string.
        pub(super) unsafe fn cdm_node(
            nid: c_int,
            event: u32,
            start: u64,
            size: u64,
            allow: u32,
            error: c_int,
            cause: *const c_char,
        );
    }
}

/// What happens to a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Event {
    /// It is complete.
    Register = bindings::CDM_EVENT_REGISTER,
    /// Its driver came back.
    Adopt = bindings::CDM_EVENT_ADOPT,
    /// It has gone.
    Unregister = bindings::CDM_EVENT_UNREGISTER,
    /// Its driver has gone, and it could not.
    Orphan = bindings::CDM_EVENT_ORPHAN,
    /// A driver did not get it.
    RegisterFailed = bindings::CDM_EVENT_REGISTER_FAILED,
    /// It could not leave, and its driver still has it.
    UnregisterFailed = bindings::CDM_EVENT_UNREGISTER_FAILED,
    /// Its content is lost, and tasks are told so when they look for it.
    Lost = bindings::CDM_EVENT_LOST,
}

/// What a driver said about the memory, whether it makes sense or not.
pub(crate) struct Memory {
    pub(crate) start: u64,
    pub(crate) size: u64,
    pub(crate) allow: u32,
}

/// Something has happened as it should.
pub(crate) fn node(nid: i32, event: Event, memory: &Memory) {
    emit(nid, event, memory, 0, "");
}

/// Something has failed.
pub(crate) fn failure(
    nid: i32,
    event: Event,
    memory: &Memory,
    error: Error,
    cause: impl fmt::Display,
) {
    emit(nid, event, memory, error.to_errno(), cause);
}

fn emit(nid: i32, event: Event, memory: &Memory, error: c_int, cause: impl fmt::Display) {
    let mut buf = [0u8; 384];

    if let Some(mut out) = NullTerminatedFormatter::new(&mut buf) {
        // What does not fit is cut off, between two pieces.
        let _ = out.write_fmt(fmt!("{}", cause));
    }
    // SAFETY: The buffer ends with a NUL, for it was full of them or the formatter saw to it.
    unsafe {
        raw::cdm_node(
            nid,
            event as u32,
            memory.start,
            memory.size,
            memory.allow,
            error,
            buf.as_ptr().cast(),
        )
    };
}
