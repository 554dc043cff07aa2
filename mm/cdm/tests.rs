// SPDX-License-Identifier: GPL-2.0

//! Nodes that come and go on a machine that is none; see [`fake`](crate::fake).

use crate::{
    config::Refusal,
    fake::{
        self,
        Fake,
        Step::{
            self,
            *, //
        }, //
    },
    nid::Nid,
    node::Hotplug,
    registry, //
};
use kernel::{
    bindings,
    prelude::*, //
};

const START: u64 = 1 << 32;
const SIZE: u64 = 512 * fake::MIB;

/// What is done for a node, in this order.
const BUILT: &[Step] = &[
    Lock, Pin, Request, Publish, Limit, Register, Create, Link, Prepare, Add, Online, Attributes,
    Unlock,
];
/// What of it can fail, and then leaves nothing behind.
const FALLIBLE: &[&[Step]] = &[
    &[Lock],
    &[Pin],
    &[Request],
    &[Publish],
    &[Limit],
    &[Register],
    &[Create],
    &[Link],
    &[Prepare],
    &[Add],
    &[Online],
];
/// What is done once its memory has gone, in this order.
const UNDONE: &[Step] = &[
    Free, Delete, Unregister, Unlimit, Withdraw, Unrequest, Unpin,
];
/// A node has so many parts.
const PARTS: usize = 8;

fn raw() -> bindings::cdm_node_config {
    bindings::cdm_node_config {
        start: START,
        size: SIZE,
        nid: bindings::NUMA_NO_NODE,
        allow: bindings::CDM_ALLOW_MIGRATE | bindings::CDM_ALLOW_THP,
        flags: bindings::CDM_NODE_COHERENT,
        owner: core::ptr::null_mut(),
        dev: core::ptr::null_mut(),
        bad_pages: core::ptr::null(),
        nr_bad_pages: 0,
        ops: core::ptr::null(),
        data: core::ptr::null_mut(),
    }
}

fn register_other(change: impl FnOnce(&mut bindings::cdm_node_config)) -> Result<Nid, Refusal> {
    let mut raw = raw();
    change(&mut raw);

    // SAFETY: `owner` and `dev` are null, and the fake machine does not touch the range.
    unsafe { registry::register::<Fake>(&raw) }
}

fn register() -> Result<Nid> {
    register_other(|_| ()).map_err(|refusal| refusal.errno())
}

fn unregister(nid: Nid) -> Result {
    registry::unregister::<Fake>(nid)
}

fn release(nid: Nid) {
    registry::release::<Fake>(nid);
}

/// The administrator writes to `state` of the directory that was created last.
fn unplug(nid: Nid) -> Result {
    registry::unplug::<Fake>(nid, fake::dir(0))
}

fn shown() -> &'static CStr {
    fake::state().state
}

fn is_nameable() -> bool {
    fake::state().is_nameable
}

/// A node that its driver could not take along.
fn orphan() -> Result<Nid> {
    fake::reset();
    let nid = register()?;
    fake::refuse(&[Remove]);
    release(nid);
    fake::refuse(&[]);
    Ok(nid)
}

/// Checks that the node is there as it was registered.
fn is_as_before() -> bool {
    fake::parts() == PARTS && shown() == c"online" && is_nameable()
}

/// The right to change the machine's memory stays with its task: were it [`Send`], there would be
/// two ways to infer `A` here, and this would not compile.
const _: () = {
    struct ThatIsSend;
    trait IsNotSend<A> {
        const CHECKED: () = ();
    }
    impl<T> IsNotSend<()> for T {}
    impl<T: Send> IsNotSend<ThatIsSend> for T {}
    <Hotplug as IsNotSend<_>>::CHECKED
};

#[kunit_tests(cdm_node)]
mod node {
    use super::*;
    use crate::{
        config::{
            Config,
            Rules, //
        },
        node::{
            Bare,
            Node, //
        },
        obstacle::Obstacle,
        parts::Machine,
        trace::Event, //
    };

    fn bare() -> Result<Bare<Fake>, Refusal> {
        fake::reset();
        let config = Config::validate(&raw(), &Fake::limits())?;
        let nid = Nid::new(fake::FREE.start).ok_or(Refusal::NoNid)?;
        let (owner, dev) = (core::ptr::null_mut(), core::ptr::null_mut());

        // SAFETY: Both are null.
        unsafe { Bare::prepare(nid, &config, &[], Rules::NONE, owner, dev, c"registering") }
    }

    fn plugged() -> Result<Node<Fake>> {
        let bare = bare().map_err(|refusal| refusal.errno())?;

        bare.plug(&fake::Hotplug)
            .map_err(|(refusal, _)| refusal.errno())
    }

    #[test]
    fn without_memory_it_undoes_itself() {
        let bare = bare();
        assert!(bare.is_ok());
        assert_eq!(fake::parts(), PARTS - 1);
        assert!(fake::steps_were(&[
            Pin, Request, Publish, Limit, Register, Create, Link, Prepare
        ]));
        assert_eq!(shown(), c"registering");
        drop(bare);
        assert!(fake::steps_were(UNDONE));
        assert_eq!(fake::parts(), 0);
    }

    #[test]
    fn with_memory_it_does_not() -> Result {
        drop(plugged()?);
        // Its memory is there, and all that this stands on.
        assert_eq!(fake::parts(), PARTS);
        Ok(())
    }

    #[test]
    fn a_refusal_to_add_leaves_nothing() {
        let bare = bare();
        fake::refuse(&[Add]);
        let refused = bare.map(|bare| bare.plug(&fake::Hotplug).err());
        assert!(matches!(refused, Ok(Some((_, None)))));
        assert_eq!(fake::parts(), 0);
    }

    #[test]
    fn a_refusal_to_bring_online_leaves_a_node() {
        let bare = bare();
        fake::refuse(&[Online]);
        let refused = bare.map(|bare| bare.plug(&fake::Hotplug).err());
        assert_eq!(fake::parts(), PARTS);
        if let Ok(Some((_, Some(node)))) = refused {
            assert!(node.is_plugged());
            // Nobody has named it: there is nothing to erase.
            fake::forget_steps();
            assert!(node.leave(100, true).is_ok());
        }
        assert_eq!(fake::parts(), 0);
    }

    #[test]
    fn it_is_closed_before_it_leaves() -> Result {
        let mut node = plugged()?;
        assert!(!is_nameable());
        node.open();
        assert!(is_nameable());
        assert!(node.leave(100, true).is_ok());
        let at_removal = fake::state().at_removal;
        assert_eq!(at_removal.map(|(_, nameable)| nameable), Some(false));
        Ok(())
    }

    #[test]
    fn what_was_used_is_erased() -> Result {
        let node = plugged()?;
        fake::forget_steps();
        assert!(node.leave(100, true).is_ok());
        assert!(!fake::state().did(Erase));

        let mut node = plugged()?;
        node.open();
        assert!(node.leave(100, true).is_ok());
        assert!(fake::state().did(Erase));
        Ok(())
    }

    #[test]
    fn what_cannot_be_erased_stays() -> Result {
        let mut node = plugged()?;
        node.open();
        fake::refuse(&[Erase]);
        let Err((mut node, obstacle)) = node.leave(100, true) else {
            return Err(EINVAL);
        };
        assert_eq!(obstacle, Obstacle::NotErased(EIO));
        assert!(!node.is_plugged());
        assert_eq!(fake::parts(), PARTS - 1);

        // Nobody names it again, whatever its driver thinks.
        node.open();
        assert!(!is_nameable());
        node.show(c"online");
        assert_eq!(shown(), c"unerased");

        fake::refuse(&[]);
        assert!(node.leave(100, true).is_ok());
        assert_eq!(fake::parts(), 0);
        Ok(())
    }

    /// A device that can be held, and at which nobody looks.
    fn with_device(node: &mut Node<Fake>) -> Result {
        let dev = core::ptr::dangling_mut();

        // SAFETY: The fake machine does not look at it.
        unsafe { node.change_owner(core::ptr::null_mut(), dev) }.map_err(|refusal| refusal.errno())
    }

    fn it_is_torn_out() {
        fake::state().answers = false;
    }

    #[test]
    fn what_was_torn_out_is_not_erased() -> Result {
        let mut node = plugged()?;
        with_device(&mut node)?;
        node.open();
        fake::state().meanwhile = Some(it_is_torn_out);
        let Err((node, obstacle)) = node.leave(100, false) else {
            return Err(EINVAL);
        };
        assert_eq!(obstacle, Obstacle::NotErased(ENODEV));
        assert!(!node.answers());
        assert!(node.lose().is_ok());
        assert!(!fake::state().did(Erase));
        assert_eq!(fake::parts(), 0);

        // Nor where it goes in any case.
        let mut node = plugged()?;
        with_device(&mut node)?;
        node.open();
        it_is_torn_out();
        assert!(node.evacuate().is_ok());
        assert!(!fake::state().did(Erase));

        let mut node = plugged()?;
        with_device(&mut node)?;
        node.open();
        assert!(node.evacuate().is_ok());
        assert!(fake::state().did(Erase));
        Ok(())
    }

    #[test]
    fn its_driver_goes_once() -> Result {
        let mut node = plugged()?;
        assert!(node.disown());
        assert!(!node.disown());
        // SAFETY: Both are null.
        let adopted = unsafe { node.change_owner(core::ptr::null_mut(), core::ptr::null_mut()) };
        assert!(adopted.is_ok());
        assert!(node.disown());
        node.announce(Event::Orphan);
        assert_eq!(fake::state().event, Some(Event::Orphan));
        assert!(node.leave(100, true).is_ok());
        Ok(())
    }
}

#[kunit_tests(cdm_registry)]
mod nodes {
    use super::*;
    use crate::trace::Event;

    #[test]
    fn a_driver_comes_and_goes() -> Result {
        fake::reset();
        let nid = register()?;
        assert_eq!(nid.as_raw(), fake::FREE.start);
        assert!(fake::steps_were(BUILT));
        assert!(is_as_before());
        assert_eq!(fake::state().event, Some(Event::Register));

        assert_eq!(unregister(nid), Ok(()));
        assert!(fake::steps_were(&[
            Remove, Erase, Free, Delete, Unregister, Unlimit, Withdraw, Unrequest, Unpin
        ]));
        assert_eq!(fake::state().at_removal, Some((c"leaving", false)));
        assert_eq!(fake::parts(), 0);
        assert_eq!(unregister(nid), Err(ENODEV));
        Ok(())
    }

    #[test]
    fn nothing_is_registered_too_early() {
        fake::reset();
        fake::state().is_ready = false;
        assert_eq!(register(), Err(EPROBE_DEFER));
        assert_eq!(Nid::new(2).map(unregister), Some(Err(ENODEV)));
        assert!(fake::steps_were(&[]));
    }

    #[test]
    fn what_is_refused_leaves_nothing() -> Result {
        for refused in FALLIBLE {
            fake::reset();
            fake::refuse(refused);
            assert!(register().is_err());
            assert_eq!(fake::parts(), 0);
            assert!(!is_nameable());

            fake::refuse(&[]);
            // Neither does the registry know anything.
            let nid = register()?;
            assert_eq!(nid.as_raw(), fake::FREE.start);
            assert!(is_as_before());
        }
        Ok(())
    }

    #[test]
    fn refusals() {
        fake::reset();
        fake::state().is_write_back = false;
        assert_eq!(register_other(|_| ()), Err(Refusal::NotWriteBack));
        assert!(fake::steps_were(&[]));

        fake::reset();
        assert_eq!(register_other(|raw| raw.size = 0), Err(Refusal::Empty));
        assert_eq!(
            register_other(|raw| raw.nid = 9),
            Err(Refusal::NoSuchNid(9))
        );
        let cpus = Nid::new(0).map(Refusal::NidHasCpus);
        assert_eq!(register_other(|raw| raw.nid = 0).err(), cpus);
        fake::refuse(&[Lock]);
        assert_eq!(register_other(|_| ()), Err(Refusal::HotplugBusy));
        fake::refuse(&[Pin]);
        assert_eq!(register_other(|_| ()), Err(Refusal::OwnerLeaving));
        fake::refuse(&[Request]);
        assert_eq!(register_other(|_| ()), Err(Refusal::RangeBusy));
        assert_eq!(fake::parts(), 0);
    }

    #[test]
    fn nodes_do_not_share() -> Result {
        fake::reset();
        let nid = register()?;
        let overlaps = register_other(|raw| raw.start += SIZE / 2);
        assert_eq!(overlaps, Err(Refusal::Overlap(nid)));
        let taken = register_other(|raw| {
            raw.start += SIZE;
            raw.nid = nid.as_raw();
        });
        assert_eq!(taken, Err(Refusal::NidTaken(nid)));
        assert!(is_as_before());

        // As many as there are node ids.
        for i in 1..fake::FREE.len() as u64 {
            assert!(register_other(|raw| raw.start += i * SIZE).is_ok());
        }
        let last = register_other(|raw| raw.start += 9 * SIZE);
        assert_eq!(last, Err(Refusal::NoNid));
        assert_eq!(fake::parts(), fake::FREE.len() * PARTS);
        Ok(())
    }

    #[test]
    fn memory_gets_the_node_that_it_had() -> Result {
        fake::reset();
        let first = register()?;
        unregister(first)?;
        let other = register_other(|raw| raw.start += SIZE).map_err(|refusal| refusal.errno())?;
        assert!(other != first);
        assert_eq!(register(), Ok(first));
        Ok(())
    }

    #[test]
    fn a_node_that_cannot_leave_is_as_before() -> Result {
        fake::reset();
        let nid = register()?;
        fake::refuse(&[Remove]);
        assert_eq!(unregister(nid), Err(EBUSY));
        assert!(is_as_before());
        assert_eq!(unplug(nid), Err(EBUSY));
        assert!(is_as_before());
        // Nobody outside hears of it.
        assert_eq!(fake::state().event, Some(Event::Register));

        fake::refuse(&[]);
        assert_eq!(unregister(nid), Ok(()));
        assert_eq!(fake::parts(), 0);
        Ok(())
    }

    #[test]
    fn the_driver_s_own_erasing() -> Result {
        fake::reset();
        let nid = register_other(|raw| raw.flags |= bindings::CDM_NODE_SCRUBS)
            .map_err(|refusal| refusal.errno())?;
        assert_eq!(unregister(nid), Ok(()));
        assert!(!fake::state().did(Erase));
        Ok(())
    }

    #[test]
    fn a_driver_that_is_not_told_does_not_erase() -> Result {
        let scrubbed = || {
            fake::reset();
            register_other(|raw| raw.flags |= bindings::CDM_NODE_SCRUBS)
                .map_err(|refusal| refusal.errno())
        };

        release(scrubbed()?);
        assert!(fake::state().did(Erase));

        assert_eq!(unplug(scrubbed()?), Ok(()));
        assert!(fake::state().did(Erase));

        let nid = scrubbed()?;
        fake::refuse(&[Remove]);
        release(nid);
        fake::refuse(&[]);
        assert!(!fake::state().did(Erase));
        assert_eq!(unplug(nid), Ok(()));
        assert!(fake::state().did(Erase));
        Ok(())
    }

    #[test]
    fn what_was_said_of_a_device_stays() -> Result {
        fake::reset();
        let nid = register()?;
        assert!(!fake::state().rules.listed);
        registry::set_listed::<Fake>(nid, true)?;
        assert!(fake::state().rules.listed);
        unregister(nid)?;
        assert_eq!(registry::set_listed::<Fake>(nid, false), Err(ENODEV));

        // Not for another one, whatever its number.
        let other = register_other(|raw| {
            raw.start += SIZE;
            raw.nid = nid.as_raw();
        });
        assert_eq!(other, Ok(nid));
        assert!(!fake::state().rules.listed);
        unregister(nid)?;
        let nid = register()?;
        assert!(fake::state().rules.listed);
        unregister(nid)?;

        registry::change_default::<Fake>(|rules| rules.listed = true);
        assert!(registry::default::<Fake>().listed);
        let other =
            register_other(|raw| raw.start += 2 * SIZE).map_err(|refusal| refusal.errno())?;
        assert!(fake::state().rules.listed);
        registry::set_listed::<Fake>(other, false)?;
        unregister(other)?;
        register_other(|raw| raw.start += 2 * SIZE).map_err(|refusal| refusal.errno())?;
        assert!(!fake::state().rules.listed);
        Ok(())
    }

    #[test]
    fn memcg_is_told_while_nothing_is_in_use() -> Result {
        fake::reset();
        let nid = register()?;
        fake::state().in_use = 1;
        assert_eq!(registry::set_uncounted::<Fake>(nid, true), Err(EBUSY));
        fake::state().in_use = 0;
        unregister(nid)?;
        let nid = register()?;
        assert!(!fake::state().rules.uncounted);
        registry::set_uncounted::<Fake>(nid, true)?;
        assert!(fake::state().rules.uncounted);
        unregister(nid)?;
        assert_eq!(registry::set_uncounted::<Fake>(nid, false), Err(ENODEV));
        let nid = register()?;
        assert!(fake::state().rules.uncounted);
        unregister(nid)
    }

    #[test]
    fn broken_pages_of_the_driver() -> Result {
        fake::reset();
        let addrs = [START, START + SIZE - 1];
        let with = |raw: &mut bindings::cdm_node_config| {
            raw.bad_pages = addrs.as_ptr();
            raw.nr_bad_pages = 2;
        };
        let nid = register_other(with).map_err(|refusal| refusal.errno())?;
        let mut seen = [0; 2];
        let nr = registry::bad_pages::<Fake>(nid, |index, addr| {
            if let Some(seen) = seen.get_mut(index) {
                *seen = addr;
            }
        });
        assert_eq!(nr, Ok(2));
        assert_eq!(seen, addrs);
        unregister(nid)?;
        assert_eq!(registry::bad_pages::<Fake>(nid, |_, _| ()), Err(ENODEV));

        let outside = register_other(|raw| {
            with(raw);
            raw.start += SIZE;
        });
        assert_eq!(outside, Err(Refusal::BadPageOutside(START)));

        // Who takes a node over that is in use may have found one.
        orphan()?;
        register_other(with).map_err(|refusal| refusal.errno())?;
        assert_eq!(fake::state().bad_pages.as_slice(), &addrs);
        Ok(())
    }

    #[test]
    fn a_released_node_goes_or_is_orphaned() -> Result {
        fake::reset();
        let nid = register()?;
        release(nid);
        assert_eq!(fake::parts(), 0);
        assert_eq!(unregister(nid), Err(ENODEV));

        let nid = orphan()?;
        assert_eq!(fake::parts(), PARTS);
        assert_eq!(shown(), c"orphaned");
        assert_eq!(fake::state().event, Some(Event::Orphan));
        assert!(!is_nameable());
        // The driver has let go of it.
        assert_eq!(unregister(nid), Err(ENODEV));
        release(nid);
        assert_eq!(fake::parts(), PARTS);

        assert_eq!(unplug(nid), Ok(()));
        assert_eq!(fake::parts(), 0);
        assert_eq!(unplug(nid), Err(ENODEV));
        Ok(())
    }

    #[test]
    fn an_orphan_is_adopted_by_the_same() -> Result {
        let nid = orphan()?;
        let differs = Err(Refusal::OrphanDiffers(nid));
        assert_eq!(register_other(|raw| raw.allow = 0), differs);
        let flags = bindings::CDM_NODE_SCRUBS;
        assert_eq!(register_other(|raw| raw.flags |= flags), differs);
        assert_eq!(register_other(|raw| raw.nid = nid.as_raw() + 1), differs);
        let overlaps = register_other(|raw| raw.size /= 2);
        assert_eq!(overlaps, Err(Refusal::Overlap(nid)));
        fake::refuse(&[Link]);
        assert!(register().is_err());
        assert_eq!(shown(), c"orphaned");
        fake::refuse(&[]);
        fake::forget_steps();

        assert_eq!(register(), Ok(nid));
        assert!(fake::steps_were(&[Lock, Pin, Link, Unpin, Unlock]));
        assert!(is_as_before());
        assert_eq!(fake::state().event, Some(Event::Adopt));
        // It is not anybody's a second time.
        assert_eq!(register_other(|_| ()), Err(Refusal::Overlap(nid)));
        assert_eq!(unregister(nid), Ok(()));
        assert_eq!(fake::parts(), 0);
        Ok(())
    }

    #[test]
    fn an_orphan_is_taken_back() -> Result {
        let take_back = |start| {
            let mut asked = bindings::cdm_node_config {
                start,
                nid: bindings::NUMA_NO_NODE,
                allow: 0,
                flags: 0,
                ..raw()
            };
            // SAFETY: `owner` and `dev` are null, and the fake machine does not touch the range.
            let taken = unsafe { registry::take_back::<Fake>(&mut asked) };
            taken.map(|()| (asked.nid, asked.allow, asked.flags))
        };

        fake::reset();
        assert_eq!(take_back(START), Err(ENOENT));
        let nid = register()?;
        assert!(registry::is_up::<Fake>(nid));
        // It is somebody's.
        assert_eq!(take_back(START), Err(ENOENT));

        let nid = orphan()?;
        assert!(!registry::is_up::<Fake>(nid));
        assert_eq!(take_back(START + SIZE), Err(ENOENT));
        fake::refuse(&[Link]);
        assert_eq!(take_back(START), Err(EIO));
        assert_eq!(shown(), c"orphaned");
        fake::refuse(&[]);
        assert_eq!(
            take_back(START),
            Ok((nid.as_raw(), raw().allow, raw().flags))
        );
        assert!(is_as_before());
        assert!(registry::is_up::<Fake>(nid));
        assert_eq!(fake::state().event, Some(Event::Adopt));

        // The number is the driver's yet.
        assert_eq!(unplug(nid), Ok(()));
        assert!(!registry::is_up::<Fake>(nid));
        assert_eq!(unregister(nid), Ok(()));
        assert_eq!(fake::parts(), 0);
        Ok(())
    }

    #[test]
    fn a_wish_that_cannot_be() -> Result {
        let wish = |nid| {
            register_other(|raw| {
                raw.nid = nid;
                raw.flags |= bindings::CDM_NODE_NID_WISH;
            })
            .map_err(|refusal| refusal.errno())
        };

        fake::reset();
        let last = fake::FREE.end - 1;
        assert_eq!(wish(last)?.as_raw(), last);
        assert_eq!(Nid::new(last).map(unregister), Some(Ok(())));
        // Node 0 has CPUs.
        fake::reset();
        assert_eq!(wish(0)?.as_raw(), fake::FREE.start);
        assert_eq!(Nid::new(fake::FREE.start).map(unregister), Some(Ok(())));
        Ok(())
    }

    #[test]
    fn what_can_be_neither_completed_nor_undone_is_an_orphan() -> Result {
        fake::reset();
        fake::refuse(&[Online, Remove]);
        assert_eq!(register(), Err(EIO));
        assert_eq!(fake::parts(), PARTS);
        assert_eq!(shown(), c"orphaned");
        assert_eq!(fake::state().event, Some(Event::Orphan));
        assert!(!is_nameable());

        fake::refuse(&[]);
        let nid = Nid::new(fake::FREE.start).ok_or(EINVAL)?;
        assert_eq!(unregister(nid), Err(ENODEV));
        assert_eq!(unplug(nid), Ok(()));
        assert_eq!(fake::parts(), 0);
        Ok(())
    }

    #[test]
    fn the_admin_unplugs() -> Result {
        fake::reset();
        let nid = register()?;
        // The directory of a node that was here before.
        assert_eq!(registry::unplug::<Fake>(nid, fake::dir(1)), Err(ENODEV));
        assert!(is_as_before());
        assert_eq!(unplug(nid), Ok(()));
        assert_eq!(fake::parts(), 0);
        assert_eq!(unplug(nid), Err(EBUSY));

        // The driver has its handle, which does not come to mean another node.
        let wanted = register_other(|raw| {
            raw.start += SIZE;
            raw.nid = nid.as_raw();
        });
        assert_eq!(wanted, Err(Refusal::NidTaken(nid)));
        assert_eq!(unregister(nid), Ok(()));
        assert_eq!(unregister(nid), Err(ENODEV));
        Ok(())
    }

    fn the_driver_goes() {
        if let Some(nid) = Nid::new(fake::FREE.start) {
            release(nid);
        }
    }

    #[test]
    fn the_driver_goes_while_the_admin_is_at_it() -> Result {
        fake::reset();
        let nid = register()?;
        fake::state().meanwhile = Some(the_driver_goes);
        assert_eq!(unplug(nid), Ok(()));
        // It has waited for what the administrator does, and not for ever.
        assert_eq!(fake::state().slept, 200);
        assert_eq!(fake::parts(), 0);
        assert_eq!(unregister(nid), Err(ENODEV));

        fake::reset();
        let nid = register()?;
        fake::state().meanwhile = Some(the_driver_goes);
        fake::refuse(&[Remove]);
        assert_eq!(unplug(nid), Err(EBUSY));
        assert_eq!(shown(), c"orphaned");
        assert!(!is_nameable());
        assert_eq!(fake::parts(), PARTS);
        fake::refuse(&[]);
        assert_eq!(register(), Ok(nid));
        assert!(is_as_before());
        Ok(())
    }

    fn others_try() {
        let busy = match Nid::new(fake::FREE.start) {
            None => false,
            Some(nid) => {
                register_other(|_| ()) == Err(Refusal::NidTaken(nid)) && unplug(nid) == Err(EBUSY)
            }
        };
        if !busy {
            fake::state().slept = 1;
        }
    }

    #[test]
    fn nobody_gets_what_is_leaving() -> Result {
        let nid = orphan()?;
        fake::state().meanwhile = Some(others_try);
        assert_eq!(unplug(nid), Ok(()));
        // Neither the driver that came back nor another administrator.
        assert_eq!(fake::state().slept, 0);
        assert_eq!(fake::parts(), 0);
        Ok(())
    }

    #[test]
    fn what_cannot_be_erased_is_kept() -> Result {
        fake::reset();
        let nid = register()?;
        fake::refuse(&[Erase]);
        release(nid);
        assert_eq!(shown(), c"unerased");
        assert!(!is_nameable());
        assert_eq!(register_other(|_| ()), Err(Refusal::NidTaken(nid)));
        fake::forget_steps();

        fake::refuse(&[]);
        assert_eq!(unplug(nid), Ok(()));
        assert!(fake::steps_were(&[
            Erase, Free, Delete, Unregister, Unlimit, Withdraw, Unrequest, Unpin
        ]));
        assert_eq!(register(), Ok(nid));
        Ok(())
    }

    #[test]
    fn what_is_lost_is_neither_moved_nor_erased() -> Result {
        fake::reset();
        let nid = register()?;
        fake::state().lost = (7, 0);
        fake::forget_steps();
        registry::lost::<Fake>(nid);
        assert!(fake::steps_were(&[
            MarkGone, Lose, Free, Delete, Unregister, Unlimit, Withdraw, Unrequest, Unpin
        ]));
        assert!(!is_nameable());
        assert!(fake::state().ignores_poison);
        assert_eq!(fake::state().event, Some(Event::Lost));
        assert_eq!(fake::parts(), 0);
        // Its driver has none any more, and can have one.
        assert_eq!(unregister(nid), Err(ENODEV));
        assert_eq!(register(), Ok(nid));
        Ok(())
    }

    #[test]
    fn what_is_lost_and_held_waits() -> Result {
        fake::reset();
        let nid = register()?;
        fake::state().lost = (7, 3);
        fake::refuse(&[Lose]);
        fake::forget_steps();
        registry::lost::<Fake>(nid);
        // The module is not needed, and somebody comes to look.
        assert!(fake::steps_were(&[MarkGone, Lose, Link, Unpin, Retry]));
        assert_eq!(shown(), c"lost");
        assert_eq!(unregister(nid), Err(ENODEV));
        release(nid);
        assert_eq!(unplug(nid), Err(EBUSY));
        assert_eq!(register_other(|_| ()), Err(Refusal::StillHeld(nid)));
        assert!(registry::retry::<Fake>());
        assert_eq!(shown(), c"lost");

        fake::refuse(&[]);
        assert!(!registry::retry::<Fake>());
        assert_eq!(fake::parts(), 0);
        assert_eq!(register(), Ok(nid));
        Ok(())
    }

    #[test]
    fn a_driver_may_freeze_its_node() -> Result {
        fake::reset();
        let nid = register()?;
        assert_eq!(registry::set_frozen::<Fake>(nid, true), Ok(()));
        assert_eq!(shown(), c"frozen");
        assert!(!is_nameable());
        // An attempt that fails does not open it.
        fake::refuse(&[Remove]);
        assert_eq!(unregister(nid), Err(EBUSY));
        assert_eq!(shown(), c"frozen");
        assert!(!is_nameable());

        assert_eq!(registry::set_frozen::<Fake>(nid, false), Ok(()));
        assert!(is_as_before());
        release(nid);
        assert_eq!(registry::set_frozen::<Fake>(nid, true), Err(ENODEV));
        Ok(())
    }

    #[test]
    fn a_machine_sleeps_if_nodes_are_empty() -> Result {
        fake::reset();
        assert_eq!(registry::may_sleep::<Fake>(), Ok(()));
        let nid = register()?;
        assert_eq!(registry::may_sleep::<Fake>(), Ok(()));
        assert!(is_as_before());

        fake::state().in_use = 1;
        assert_eq!(registry::may_sleep::<Fake>(), Err(EBUSY));
        assert!(is_as_before());
        assert_eq!(unregister(nid), Ok(()));
        assert_eq!(registry::may_sleep::<Fake>(), Ok(()));
        Ok(())
    }

    #[test]
    fn an_orphan_keeps_a_machine_awake() -> Result {
        let nid = orphan()?;
        fake::state().in_use = 1;
        assert_eq!(registry::may_sleep::<Fake>(), Err(EBUSY));
        assert_eq!(shown(), c"orphaned");
        assert!(!is_nameable());
        fake::state().in_use = 0;
        assert_eq!(registry::may_sleep::<Fake>(), Ok(()));
        assert_eq!(unplug(nid), Ok(()));
        Ok(())
    }

    #[test]
    fn what_is_lost_lets_a_machine_sleep() -> Result {
        fake::reset();
        let nid = register()?;
        fake::refuse(&[Lose]);
        fake::state().in_use = 1;
        registry::lost::<Fake>(nid);
        assert_eq!(shown(), c"lost");
        assert_eq!(registry::may_sleep::<Fake>(), Ok(()));
        assert_eq!(shown(), c"lost");
        fake::refuse(&[]);
        assert!(!registry::retry::<Fake>());
        Ok(())
    }
}
