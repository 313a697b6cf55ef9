//! The operations: those that are lists of patterns in one table, each other one in a file of its own.

mod backup_files;
mod boot_entry_token;
mod ca_certificates;
mod cron_spool;
mod customize;
mod disk_guids;
mod firstboot_reset;
mod flag_reconfiguration;
mod fs_uuids;
mod ifcfg;
mod ipa_client;
mod line_edits;
mod log_sweep;
mod lvm_uuids;
mod machine_id;
mod net_hostname;
mod net_hwaddr;
mod net_netplan;
mod net_networkd;
mod net_nmconn;
mod net_static;
mod new_ids;
mod pacct_log;
mod random_seed;
mod script;
mod snapd_serial;
mod ssh_hostkeys;
mod ssh_user_keys;
mod state_table;
mod storage_ids;
mod systemd_credential_secret;
mod table;
mod tls_selfsigned;
mod user_account;

use crate::operation::Operation;

pub(crate) use customize::PROFILE;
pub(crate) use state_table::STATE_TABLE;
pub(crate) use table::TABLE;

/// The operations with a logic of their own.
pub(crate) static WITH_LOGIC: &[&Operation] = &[
    &backup_files::OPERATION,
    &ca_certificates::OPERATION,
    &cron_spool::OPERATION,
    &customize::OPERATION,
    &disk_guids::OPERATION,
    &firstboot_reset::OPERATION,
    &flag_reconfiguration::OPERATION,
    &fs_uuids::OPERATION,
    &ipa_client::OPERATION,
    &lvm_uuids::OPERATION,
    &machine_id::OPERATION,
    &net_hostname::OPERATION,
    &net_hwaddr::OPERATION,
    &net_nmconn::OPERATION,
    &net_static::OPERATION,
    &pacct_log::OPERATION,
    &random_seed::OPERATION,
    &script::OPERATION,
    &snapd_serial::OPERATION,
    &ssh_hostkeys::OPERATION,
    &ssh_user_keys::AUTHORIZED_KEYS,
    &ssh_user_keys::OPERATION,
    &user_account::OPERATION,
    &boot_entry_token::OPERATION,
    &line_edits::GOOGLE_GUEST,
    &line_edits::HOSTS_FILE,
    &line_edits::MACHINE_INFO,
    &line_edits::NET_INTERFACES,
    &line_edits::NET_WICKED,
    &line_edits::POPULARITY_CONTEST,
    &log_sweep::OPERATION,
    &net_netplan::OPERATION,
    &net_networkd::OPERATION,
    &storage_ids::OPERATION,
    &systemd_credential_secret::OPERATION,
    &tls_selfsigned::OPERATION,
];
