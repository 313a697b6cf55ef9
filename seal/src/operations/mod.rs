//! The operations: those that are lists of patterns in one table, each other one in a file of its own.

mod backup_files;
mod ca_certificates;
mod cron_spool;
mod customize;
mod flag_reconfiguration;
mod ifcfg;
mod ipa_client;
mod machine_id;
mod net_hostname;
mod net_hwaddr;
mod net_nmconn;
mod pacct_log;
mod ssh_hostkeys;
mod table;
mod user_account;

use crate::operation::Operation;

pub(crate) use table::TABLE;

/// The operations with a logic of their own.
pub(crate) static WITH_LOGIC: &[&Operation] = &[
    &backup_files::OPERATION,
    &ca_certificates::OPERATION,
    &cron_spool::OPERATION,
    &customize::OPERATION,
    &flag_reconfiguration::OPERATION,
    &ipa_client::OPERATION,
    &machine_id::OPERATION,
    &net_hostname::OPERATION,
    &net_hwaddr::OPERATION,
    &net_nmconn::OPERATION,
    &pacct_log::OPERATION,
    &ssh_hostkeys::OPERATION,
    &user_account::OPERATION,
];
