// SPDX-License-Identifier: GPL-2.0

//! Coherent device memory: the core.
//!
//! A registration flows one way: [`config`] says whether it may be, [`nid`] finds the node it
//! becomes, [`registry`] reserves that, [`node`] builds it of its [`parts`], without the pages that
//! [`poison`] remembers. [`lifecycle`] says who may do what to it afterwards. Everything that core
//! mm reads is published by [`node`], and nothing here calls back into core mm's hooks.
//!
//! C headers: [`include/linux/cdm.h`](srctree/include/linux/cdm.h) for drivers and core mm,
//! [`mm/cdm/glue.h`](srctree/mm/cdm/glue.h) for what this crate calls.

mod config;
mod driver;
mod exports;
#[cfg(CONFIG_CDM_KUNIT_TEST)]
mod fake;
mod lifecycle;
mod nid;
mod node;
mod obstacle;
mod parts;
mod poison;
mod registry;
#[cfg(CONFIG_CDM_KUNIT_TEST)]
mod tests;
mod trace;

// There is no `module!` here, which would define it: the core is part of mm.
const __LOG_PREFIX: &[u8] = b"cdm\0";
