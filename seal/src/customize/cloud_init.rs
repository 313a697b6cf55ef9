//! `--cloud-init`: a NoCloud seed in the guest, where cloud-init looks for one by default, checked before it is there.

use std::path::Path;

use saphyr::{LoadableYamlNode as _, Yaml};

use super::copy;
use crate::Result;
use crate::changes::Changes;
use crate::requested::refused;

const SEED: &str = "/var/lib/cloud/seed/nocloud";

/// Puts user-data, meta-data and a network configuration into the guest's seed.
pub(super) fn install(
    changes: &mut Changes<'_>,
    user_data: &Path,
    meta_data: Option<&Path>,
    network_config: Option<&Path>,
) -> Result<()> {
    let user_text = copy::read_local(user_data)?;
    for warning in
        check_user_data(&user_text).or_else(|reason| refused(format!("{}: {reason}", user_data.display())))?
    {
        changes.warn(format!("{}: {warning}", user_data.display()));
    }
    // Without an instance ID, cloud-init would take the seed for none.
    let meta_text = match meta_data {
        Some(file) => checked_mapping(file)?,
        None => b"instance-id: nocloud\n".to_vec(),
    };
    let network_text = network_config.map(checked_mapping).transpose()?;
    let mut has_cloud_init = false;
    for program in ["/usr/bin/cloud-init", "/bin/cloud-init"] {
        has_cloud_init |= changes.is_file(program.as_bytes())?;
    }
    if !has_cloud_init {
        changes.warn("the guest has no cloud-init, which would read the seed".to_owned());
    }
    if changes.stat(b"/etc/cloud/cloud-init.disabled")?.is_some() {
        changes.warn("cloud-init is switched off by /etc/cloud/cloud-init.disabled".to_owned());
    }
    changes.make_directories(SEED.as_bytes())?;
    changes.install_file(format!("{SEED}/user-data").as_bytes(), &user_text, 0o600)?;
    changes.install_file(format!("{SEED}/meta-data").as_bytes(), &meta_text, 0o600)?;
    match network_text {
        Some(text) => changes.install_file(format!("{SEED}/network-config").as_bytes(), &text, 0o600),
        None => Ok(()),
    }
}

fn checked_mapping(file: &Path) -> Result<Vec<u8>> {
    let text = copy::read_local(file)?;
    match mapping_keys(&text) {
        Ok(_) => Ok(text),
        Err(reason) => refused(format!("{}: {reason}", file.display())),
    }
}

/// Checks user-data, and gives what is odd about it.
fn check_user_data(text: &[u8]) -> Result<Vec<String>, String> {
    let first = text.split(|&byte| byte == b'\n').next().unwrap_or_default().trim_ascii();
    if OTHER_KINDS.iter().any(|kind| first.starts_with(kind.as_bytes())) || text.starts_with(b"\x1f\x8b") {
        return Ok(Vec::new());
    }
    if first != b"#cloud-config" && first != b"#cloud-config-archive" {
        return Err("its first line is none that cloud-init knows, such as #cloud-config".to_owned());
    }
    if first == b"#cloud-config-archive" {
        return Ok(Vec::new());
    }
    let keys = mapping_keys(text)?;
    let unknown = keys.iter().filter(|key| !KEYS.contains(&key.as_str()));
    Ok(unknown.map(|key| format!("'{key}' is no key of cloud-config that is known here")).collect())
}

/// The keys of a document that is a mapping.
fn mapping_keys(text: &[u8]) -> Result<Vec<String>, String> {
    let text = std::str::from_utf8(text).map_err(|_| "it is not UTF-8".to_owned())?;
    let documents = Yaml::load_from_str(text).map_err(|error| format!("it is no YAML: {error}"))?;
    let document = match documents.as_slice() {
        [] => return Ok(Vec::new()),
        [document] => document,
        _ => return Err("it holds more than one document".to_owned()),
    };
    if document.is_null() {
        return Ok(Vec::new());
    }
    let Some(mapping) = document.as_mapping() else { return Err("it is no mapping of keys to values".to_owned()) };
    Ok(mapping.keys().map(|key| key.as_str().unwrap_or("(no text)").to_owned()).collect())
}

/// First lines of user-data that is no cloud-config, and that is left unchecked.
const OTHER_KINDS: &[&str] = &[
    "#!",
    "## template: jinja",
    "#include",
    "#include-once",
    "#cloud-boothook",
    "#part-handler",
    "Content-Type:",
    "MIME-Version:",
    "From ",
];

/// The top keys of cloud-config, by the modules' reference of cloud-init 25.
const KEYS: &[&str] = &[
    "allow_public_ssh_keys",
    "ansible",
    "apk_repos",
    "apt",
    "apt_pipelining",
    "apt_reboot_if_required",
    "apt_update",
    "apt_upgrade",
    "authkey_hash",
    "autoinstall",
    "bootcmd",
    "byobu_by_default",
    "ca-certs",
    "ca_certs",
    "chef",
    "chpasswd",
    "cloud_config_modules",
    "cloud_final_modules",
    "cloud_init_modules",
    "create_hostname_file",
    "datasource",
    "datasource_list",
    "debug",
    "device_aliases",
    "disable_ec2_metadata",
    "disable_root",
    "disable_root_opts",
    "disk_setup",
    "drivers",
    "fan",
    "final_message",
    "fqdn",
    "fs_setup",
    "groups",
    "growpart",
    "grub-dpkg",
    "grub_dpkg",
    "hostname",
    "keyboard",
    "landscape",
    "launch-index",
    "locale",
    "locale_configfile",
    "lxd",
    "manage_etc_hosts",
    "manage_resolv_conf",
    "mcollective",
    "merge_how",
    "merge_type",
    "migrate",
    "mount_default_fields",
    "mounts",
    "network",
    "no_ssh_fingerprints",
    "ntp",
    "output",
    "package_reboot_if_required",
    "package_update",
    "package_upgrade",
    "packages",
    "password",
    "phone_home",
    "power_state",
    "prefer_fqdn_over_hostname",
    "preserve_hostname",
    "preserve_sources_list",
    "puppet",
    "random_seed",
    "reporting",
    "resize_rootfs",
    "resolv_conf",
    "rh_subscription",
    "rsyslog",
    "runcmd",
    "salt_minion",
    "snap",
    "spacewalk",
    "ssh",
    "ssh_authorized_keys",
    "ssh_deletekeys",
    "ssh_fp_console_blacklist",
    "ssh_genkeytypes",
    "ssh_import_id",
    "ssh_key_console_blacklist",
    "ssh_keys",
    "ssh_publish_hostkeys",
    "ssh_pwauth",
    "ssh_quiet_keygen",
    "swap",
    "system_info",
    "timezone",
    "ubuntu_advantage",
    "ubuntu_pro",
    "updates",
    "user",
    "users",
    "vendor_data",
    "version",
    "wireguard",
    "write_files",
    "yum_repo_dir",
    "yum_repos",
    "zypper",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_data_is_checked() {
        assert_eq!(check_user_data(b"#cloud-config\nusers:\n  - name: ann\npackages: [vim]\n"), Ok(vec![]));
        assert_eq!(check_user_data(b"#cloud-config\nuser_s: []\n").unwrap().len(), 1);
        assert_eq!(check_user_data(b"#!/bin/sh\necho\n"), Ok(vec![]));
        assert_eq!(check_user_data(b"#cloud-config\n"), Ok(vec![]));
        for wrong in
            ["users: []\n", "#cloud-config\n- a\n", "#cloud-config\na: [\n", "#cloud-config\na: b\n\tc: d\n", ""]
        {
            assert!(check_user_data(wrong.as_bytes()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_keys_are_in_order() {
        assert!(KEYS.windows(2).all(|pair| pair[0] < pair[1]));
    }
}
