// SPDX-License-Identifier: GPL-2.0

//! Coherent device memory: a driver in Rust.
//!
//! The memory is BAR 2, as that of QEMU's ivshmem device:
//!
//! ```sh
//! echo cdm_sample_rust > /sys/bus/pci/devices/$DEVICE/driver_override
//! echo $DEVICE > /sys/bus/pci/drivers/cdm_sample_rust/bind
//! ```
//!
//! A BAR of a plain PCI Express device is not cache-coherent with the CPUs, and must not be handed
//! over like this.

use kernel::{
    cdm::{
        Cap,
        Coherent,
        Config,
        Node, //
    },
    cdm_caps,
    device::Core,
    module::this_module,
    pci,
    prelude::*, //
};

const MEMORY_BAR: u32 = 2;
const CONFIG: Config<'static> =
    Config::new(cdm_caps![Cap::Migrate, Cap::Thp], Coherent::asserted());

struct Sample;

struct Data<'bound> {
    // Dropped when the device is unbound, which takes the node away.
    _node: Node<'bound>,
}

kernel::pci_device_table!(PCI_TABLE, <Sample as pci::Driver>::IdInfo, []);

impl pci::Driver for Sample {
    type IdInfo = ();
    type Data<'bound> = Data<'bound>;

    const ID_TABLE: pci::IdTable<Self::IdInfo> = &PCI_TABLE;

    fn probe<'bound>(
        pdev: &'bound pci::Device<Core<'_>>,
        _info: Option<&'bound Self::IdInfo>,
    ) -> impl PinInit<Self::Data<'bound>, Error> + 'bound {
        pdev.enable_device_mem()?;

        let module = this_module::<crate::LocalModule>();
        let node = Node::register_bar(pdev, MEMORY_BAR, &CONFIG, module)?;
        dev_info!(pdev, "its memory is node {}\n", node.id());
        Ok(Data { _node: node })
    }
}

kernel::module_pci_driver! {
    type: Sample,
    name: "cdm_sample_rust",
    authors: ["The CDM developers"],
    description: "Coherent device memory: a driver in Rust",
    license: "GPL",
}
