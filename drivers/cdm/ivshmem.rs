// SPDX-License-Identifier: GPL-2.0

//! Memory of QEMU's ivshmem device as a NUMA node.
//!
//! BAR 2 is memory of the host, so it is as coherent as any of the guest's, and other virtual
//! devices reach it.
//!
//! The parameters can be changed at run time and count for the devices that are bound from then on.

use kernel::{
    alloc::NumaNode,
    cdm::{
        Caps,
        Coherent,
        Config,
        Node, //
    },
    device::Core,
    module::this_module,
    pci,
    prelude::*, //
};

const DEVICE_ID: u32 = 0x1110;
const MEMORY_BAR: u32 = 2;

struct Ivshmem;

struct Data<'bound> {
    // Taken away when the device is unbound.
    _node: Node<'bound>,
}

kernel::pci_device_table!(
    PCI_TABLE,
    <Ivshmem as pci::Driver>::IdInfo,
    [(
        pci::DeviceId::from_id(pci::Vendor::REDHAT_QUMRANET, DEVICE_ID),
        ()
    )]
);

impl Ivshmem {
    fn config(pdev: &pci::Device) -> Result<Config<'static>> {
        let names = module_parameters::caps.value();
        let caps = Caps::read(names.as_bytes()).map_err(|bad| {
            dev_err!(pdev, "caps: {}\n", bad);
            bad.errno()
        })?;

        let mut config = Config::new(caps, Coherent::asserted());
        if module_parameters::p2pdma.value() {
            config = config.peer_to_peer();
        }
        match module_parameters::nid.value() {
            -1 => Ok(config),
            nid => {
                let nid = NumaNode::new(nid)
                    .inspect_err(|_| dev_err!(pdev, "nid: {} is no node\n", nid))?;
                Ok(config.nid(nid))
            }
        }
    }
}

impl pci::Driver for Ivshmem {
    type IdInfo = ();
    type Data<'bound> = Data<'bound>;

    const ID_TABLE: pci::IdTable<Self::IdInfo> = &PCI_TABLE;

    fn probe<'bound>(
        pdev: &'bound pci::Device<Core<'_>>,
        _info: Option<&'bound Self::IdInfo>,
    ) -> impl PinInit<Self::Data<'bound>, Error> + 'bound {
        let config = Self::config(pdev)?;

        pdev.enable_device_mem()?;

        Ok(Data {
            _node: Node::register_bar(
                pdev,
                MEMORY_BAR,
                &config,
                this_module::<crate::LocalModule>(),
            )?,
        })
    }
}

kernel::module_pci_driver! {
    type: Ivshmem,
    name: "cdm_ivshmem",
    authors: ["The CDM developers"],
    description: "Memory of an ivshmem device as a NUMA node",
    license: "GPL",
    params: {
        caps: string {
            default: "migrate,thp,reclaim,interleave",
            perm: 0o644,
            description: "What the kernel may do with the pages: names, or all, or none",
        },
        nid: i32 {
            default: -1,
            perm: 0o644,
            description: "Node to become, -1: the core chooses",
        },
        p2pdma: bool {
            default: true,
            perm: 0o644,
            description: "Other devices reach the memory by DMA",
        },
    },
}
