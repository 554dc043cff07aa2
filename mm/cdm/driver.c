// SPDX-License-Identifier: GPL-2.0
/*
 * Coherent device memory: what drivers call, and their modules.
 */
#include <linux/cdm.h>
#include <linux/export.h>
#include <linux/module.h>

#include "glue.h"

/* Defined in exports.rs, which cannot export by itself. */
EXPORT_SYMBOL_GPL(cdm_register_node);
EXPORT_SYMBOL_GPL(cdm_unregister_node);
EXPORT_SYMBOL_GPL(cdm_release_node);
EXPORT_SYMBOL_GPL(cdm_take_back_node);
EXPORT_SYMBOL_GPL(cdm_node_is_up);
EXPORT_SYMBOL_GPL(cdm_node_lost);
EXPORT_SYMBOL_GPL(cdm_freeze_node);
EXPORT_SYMBOL_GPL(cdm_thaw_node);
EXPORT_SYMBOL_GPL(cdm_node_bad_pages);

/* The module whose device the memory is. */

bool cdm_owner_get(struct module *owner)
{
	return try_module_get(owner);
}

void cdm_owner_put(struct module *owner)
{
	module_put(owner);
}
