/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Coherent device memory: mappings of the file of a device.
 *
 * For drivers whose files give pages of the node to who maps them.
 */
#ifndef _LINUX_CDM_MAPPING_H
#define _LINUX_CDM_MAPPING_H

struct vm_area_desc;

int cdm_mmap_prepare(struct vm_area_desc *desc, int nid);

#endif /* _LINUX_CDM_MAPPING_H */
